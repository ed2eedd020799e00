package admin

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	validate "github.com/santhosh-tekuri/jsonschema/v6"
	"github.com/swaggest/jsonschema-go"
	"github.com/swaggest/openapi-go"
	"github.com/swaggest/openapi-go/openapi31"
)

var pathParameter = regexp.MustCompile(`\{(\w+)(:\*)?\}`)

// document makes the OpenAPI document of the table.
func document(t *testing.T) []byte {
	t.Helper()
	r := openapi31.NewReflector()
	r.JSONSchemaReflector().DefaultOptions = append(r.JSONSchemaReflector().DefaultOptions,
		jsonschema.InterceptDefName(func(_ reflect.Type, name string) string { return strings.TrimPrefix(name, "Admin") }))
	r.Spec.Info.WithTitle("awe4lb").WithVersion("1").
		WithDescription("What a running awe4lb tells and is told. Errors are problem details (RFC 9457). " +
			"Times are RFC 3339, durations seconds, sizes bytes; c2b is from clients to backends, b2c back. " +
			"Roles: read, operate, configure; each may do what those before it may.")
	r.SpecEns().SetHTTPBasicSecurity("basic", "users of the configuration")
	r.SpecEns().SetHTTPBearerTokenSecurity("bearer", "token", "tokens of the configuration")
	r.SpecEns().SetAPIKeySecurity("cookie", cookieName, openapi.InCookie, "of POST /api/v1/login")
	for _, e := range endpoints() {
		oc, err := r.NewOperationContext(e.method, pathParameter.ReplaceAllString(e.path, "{$1}"))
		if err != nil {
			t.Fatal(err)
		}
		describe(oc, e)
		if err := r.AddOperation(oc); err != nil {
			t.Fatalf("%s %s: %v", e.method, e.path, err)
		}
	}
	b, err := json.MarshalIndent(r.Spec, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return append(b, '\n')
}

func describe(oc openapi.OperationContext, e endpoint) {
	oc.SetSummary(e.does)
	oc.SetDescription("Needs the role " + e.needs.String() + ".")
	oc.SetTags(strings.Split(strings.TrimPrefix(e.path, "/api/v1/"), "/")[0])
	if e.needs > nobody {
		oc.AddSecurity("basic")
		oc.AddSecurity("bearer")
		oc.AddSecurity("cookie")
	}
	var fields []reflect.StructField
	for _, m := range pathParameter.FindAllStringSubmatch(e.path, -1) {
		fields = append(fields, reflect.StructField{Name: strings.ToUpper(m[1]), Type: reflect.TypeFor[string](),
			Tag: reflect.StructTag(`path:"` + m[1] + `" required:"true"`)})
	}
	if fields != nil {
		oc.AddReqStructure(reflect.New(reflect.StructOf(fields)).Interface())
	}
	if e.query != nil {
		oc.AddReqStructure(e.query)
	}
	switch e.body.(type) {
	case nil:
	case lines:
		oc.AddReqStructure(nil, openapi.WithContentType("application/toml"), func(cu *openapi.ContentUnit) { cu.Format = "binary" })
	case text:
		for _, kind := range []string{"application/toml", "application/json"} {
			oc.AddReqStructure(nil, openapi.WithContentType(kind), func(cu *openapi.ContentUnit) { cu.Format = "binary" })
		}
	default:
		oc.AddReqStructure(e.body, openapi.WithContentType("application/json"))
	}
	switch e.answer.(type) {
	case nil:
		oc.AddRespStructure(nil, openapi.WithHTTPStatus(http.StatusNoContent))
	case raw, streamed:
		oc.AddRespStructure(nil, openapi.WithHTTPStatus(http.StatusOK), openapi.WithContentType("*/*"))
	default:
		oc.AddRespStructure(e.answer, openapi.WithHTTPStatus(http.StatusOK))
	}
	oc.AddRespStructure(problem{}, openapi.WithContentType("application/problem+json"), func(cu *openapi.ContentUnit) { cu.IsDefault = true })
}

func TestOpenAPIDocumentIsCurrent(t *testing.T) {
	got := document(t)
	if *update {
		if err := os.WriteFile("openapi.json", got, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if !bytes.Equal(got, openAPIDocument) {
		t.Error("openapi.json is not what the table of endpoints makes: go test ./admin -run OpenAPI -update")
	}
}

// documented returns the path under which the document has that of a request.
func documented(t testing.TB, method, path string) string {
	t.Helper()
	path, _, _ = strings.Cut(path, "?")
	best := ""
	for _, e := range endpoints() {
		pattern := "^" + pathParameter.ReplaceAllStringFunc(e.path, func(p string) string {
			if strings.HasSuffix(p, ":*}") {
				return ".+"
			}
			return "[^/]+"
		}) + "$"
		if e.method == method && regexp.MustCompile(pattern).MatchString(path) && (best == "" || !pathParameter.MatchString(e.path)) {
			best = pathParameter.ReplaceAllString(e.path, "{$1}")
		}
	}
	if best == "" {
		t.Fatalf("%s %s is not in the table", method, path)
	}
	return best
}

// fits reports what of an answer is not as the document says.
func fits(t testing.TB, method, path string, status int, body []byte) {
	t.Helper()
	doc, err := validate.UnmarshalJSON(bytes.NewReader(openAPIDocument))
	if err != nil {
		t.Fatal(err)
	}
	c := validate.NewCompiler()
	if err := c.AddResource("openapi.json", doc); err != nil {
		t.Fatal(err)
	}
	code, kind := "200", "application~1json"
	if status >= 400 {
		code, kind = "default", "application~1problem+json"
	}
	schema, err := c.Compile("openapi.json#/paths/" + strings.NewReplacer("/", "~1", "{", "%7B", "}", "%7D").Replace(path) + "/" + strings.ToLower(method) + "/responses/" + code + "/content/" + kind + "/schema")
	if err != nil {
		t.Fatal(err)
	}
	v, err := validate.UnmarshalJSON(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if err := schema.Validate(v); err != nil {
		t.Errorf("%s %s does not fit the document: %v", method, path, err)
	}
}
