package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

const marker, markerNumber = "geheim-4815162342", "4815162342"

// shapesOfSecrets returns texts that have a secret, the marker, wherever the configuration has one: as it should be, and as people
// write it by mistake.
func shapesOfSecrets() (texts []string) {
	for _, tb := range tables() {
		path, kind, isSource := strings.Cut(tb.label, " with kind = ")
		array := strings.HasPrefix(path, "[[")
		path = strings.ReplaceAll(strings.Trim(path, "[]"), "NAME", "x")
		if path == "" {
			continue
		}
		for _, k := range keysOf(tb.typ) {
			if k.field.Tag.Get("secret") == "" {
				continue
			}
			begin, end := "["+path+"]\n", ""
			switch {
			case array:
				begin = "[[" + path + "]]\n"
			case isSource:
				begin += "kind = " + kind + "\n"
			}
			for _, shape := range []string{`%s = "§"`, `%s = ["§"]`, `%s = [["§"], "§"]`, `%s = { value = "§" }`, `%s = [{ a = "§" }, "§"]`, `%s.value = "§"`, `%s = №`, `%s = [№]`,
				`%s = 1979-05-27 # "§"`, `%ss = "§"`, `my_%s = '§'`, `%s_ = """` + "\n" + `§"""`, `%s = §`, "%s = [\n  'a',\n  §\n]", `%s = "§`, "%s = [\n'a', '§'\n'§' ]", `# %s = "§"`,
				"# %s = [\n#   \"§\",\n# ]", `# %ss = "§"`, "%s = '''\nM\n''' §"} {
				texts = append(texts, begin+fmt.Sprintf(shape, k.key)+end+"\n")
			}
			texts = append(texts, "["+path+"."+k.key+"]\nvalue = \"§\"\n", "[["+path+"."+k.key+"]]\nvalue = [\"§\"]\n", "["+path+"s]\n"+k.key+" = \"§\"\n")
			upper := strings.ToUpper(k.key)
			texts = append(texts, begin+upper+" = \"§\"\n")
		}
		// A string where a table should be, in any of those above it.
		if holdsSecrets(tb.typ) {
			parts := strings.Split(path, ".")
			for i := range parts {
				p := strings.Join(parts[:i+1], ".")
				texts = append(texts, p+" = \"§\"\n", p+" = [\"§\"]\n", p+" = [[\"§\"]]\n", p+" = №\n", p+" = [№]\n", p+" = §\n")
			}
		}
	}
	for i, text := range texts {
		texts[i] = strings.NewReplacer("§", marker, "№", markerNumber).Replace(text)
	}
	return texts
}

// TestNoSecretInWhatIsShown: whatever shape a secret has in a text, it is not in what Redact shows.
func TestNoSecretInWhatIsShown(t *testing.T) {
	shown := 0
	for _, text := range shapesOfSecrets() {
		got, err := Redact("x.toml", []byte(text))
		if err == nil {
			shown++
		}
		if strings.Contains(string(got), markerNumber) {
			t.Errorf("%s\nis shown as\n%s", text, got)
		}
	}
	if shown < 100 {
		t.Errorf("only %d texts are TOML", shown)
	}
}

// TestNoSecretInMistakes: nor is it in what is said about the text.
func TestNoSecretInMistakes(t *testing.T) {
	wrong := 0
	for _, text := range shapesOfSecrets() {
		c, err := Parse("x.toml", []byte(text))
		if err != nil {
			wrong++
			if strings.Contains(err.Error(), markerNumber) {
				t.Errorf("%s\n%v", text, err)
			}
			continue
		}
		if strings.Contains(strings.Join(c.Warnings, "\n"), markerNumber) {
			t.Errorf("%s\n%q", text, c.Warnings)
		}
	}
	if wrong < 100 {
		t.Errorf("only %d texts have mistakes", wrong)
	}
}

// TestWhatIsNoSecretIsShown: of a configuration without mistakes only the values of secrets are left out.
func TestWhatIsNoSecretIsShown(t *testing.T) {
	files, err := filepath.Glob("testdata/*.toml")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range append(files, "../awe4lb.toml") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(file, text); err != nil {
			continue // it is there for its mistakes
		}
		got, err := Redact(file, text)
		if err != nil {
			t.Fatal(err)
		}
		a, b := strings.Split(string(text), "\n"), strings.Split(string(got), "\n")
		if len(a) != len(b) {
			t.Fatalf("%s has %d lines, shown are %d", file, len(a), len(b))
		}
		for i := range a {
			value, _, _ := strings.Cut(a[i], "#")
			after, _, _ := strings.Cut(b[i], "#")
			if value != after && !namesASecret(value) {
				t.Errorf("%s:%d: %s\nis shown as %s", file, i+1, a[i], b[i])
			}
		}
	}
}

func namesASecret(line string) bool {
	for _, key := range secretKeys() {
		if strings.Contains(line, key) {
			return true
		}
	}
	return false
}
