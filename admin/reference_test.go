package admin

import (
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
)

// TestReference makes docs/api-reference.md of openapi.json: go test ./admin -run Reference -update.
func TestReference(t *testing.T) {
	const path = "../docs/api-reference.md"
	got := reference(t)
	if *update {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if is, err := os.ReadFile(path); err != nil || string(is) != got {
		t.Errorf("%s is not what openapi.json makes: go test ./admin -run 'OpenAPI|Reference' -update (%v)", path, err)
	}
}

type schema struct {
	Ref         string            `json:"$ref"`
	Type        any               `json:"type"`
	Description string            `json:"description"`
	Enum        []any             `json:"enum"`
	Items       *schema           `json:"items"`
	Properties  map[string]schema `json:"properties"`
	Required    []string          `json:"required"`
}

// reference writes what the document says for people, in the order of the table of endpoints.
func reference(t *testing.T) string {
	t.Helper()
	var doc struct {
		Paths map[string]map[string]struct {
			Summary    string
			Tags       []string
			Parameters []struct {
				Name, In, Description string
				Schema                schema
			}
			RequestBody struct {
				Content map[string]struct{ Schema schema }
			}
			Responses map[string]struct {
				Content map[string]struct{ Schema schema }
			}
		}
		Components struct{ Schemas map[string]schema }
	}
	if err := json.Unmarshal(document(t), &doc); err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	b.WriteString("# Reference of the API\n\nMade of `admin/openapi.json`: `go test ./admin -run 'OpenAPI|Reference' -update`. How to use it is in [api.md](api.md).\n")
	var used []string
	name := func(s schema) string {
		text := fmt.Sprint(s.Type)
		if s.Items != nil && s.Items.Ref != "" {
			s, text = *s.Items, "list of "
		} else if s.Ref != "" {
			text = ""
		} else {
			return text
		}
		ref := strings.TrimPrefix(s.Ref, "#/components/schemas/")
		if !slices.Contains(used, ref) {
			used = append(used, ref)
		}
		return text + "[" + ref + "](#" + strings.ToLower(ref) + ")"
	}
	for _, e := range endpoints() {
		op := doc.Paths[pathParameter.ReplaceAllString(e.path, "{$1}")][strings.ToLower(e.method)]
		if op.Summary == "" {
			t.Fatalf("%s %s is not in the document", e.method, e.path)
		}
		role := "role `" + e.needs.String() + "`"
		if e.needs == nobody {
			role = "for everybody"
		}
		fmt.Fprintf(&b, "\n## %s %s\n\n%s; %s.\n", e.method, pathParameter.ReplaceAllString(e.path, "{$1}"), strings.ToUpper(op.Summary[:1])+op.Summary[1:], role)
		var lines []string
		for _, p := range op.Parameters {
			if p.In == "query" {
				lines = append(lines, fmt.Sprintf("- query `%s`%s", p.Name, about(p.Schema, p.Description)))
			}
		}
		for _, kind := range slices.Sorted(maps.Keys(op.RequestBody.Content)) {
			what := "a configuration or its table"
			if s := op.RequestBody.Content[kind].Schema; s.Ref != "" {
				what = name(s)
			}
			lines = append(lines, "- body `"+kind+"`: "+what)
		}
		for _, kind := range slices.Sorted(maps.Keys(op.Responses["200"].Content)) {
			what := "as it is"
			if s := op.Responses["200"].Content[kind].Schema; s.Ref != "" || s.Items != nil {
				what = name(s)
			}
			lines = append(lines, "- answer: "+what)
		}
		if lines != nil {
			b.WriteString("\n" + strings.Join(lines, "\n") + "\n")
		}
	}
	b.WriteString("\n## Types\n")
	for i := 0; i < len(used); i++ { // it grows
		s := doc.Components.Schemas[used[i]]
		fmt.Fprintf(&b, "\n### %s\n\n", used[i])
		for _, key := range slices.Sorted(maps.Keys(s.Properties)) {
			p := s.Properties[key]
			fmt.Fprintf(&b, "- `%s` %s%s\n", key, name(p), about(p, p.Description))
		}
	}
	return b.String()
}

func about(s schema, description string) string {
	text := ""
	if s.Enum != nil {
		text = " of `" + strings.Trim(strings.ReplaceAll(fmt.Sprint(s.Enum), " ", "` `"), "[]") + "`"
	}
	if description == "" {
		description = s.Description
	}
	if description != "" {
		text += ": " + description
	}
	return text
}
