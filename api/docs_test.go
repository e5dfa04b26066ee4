package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// constants returns the string constants of a file of this package by name.
func constants(t *testing.T, file string) map[string]string {
	t.Helper()
	f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	ast.Inspect(f, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok {
			return true
		}
		for i, value := range spec.Values {
			if lit, ok := value.(*ast.BasicLit); ok && lit.Kind == token.STRING {
				if found[spec.Names[i].Name], err = strconv.Unquote(lit.Value); err != nil {
					t.Fatal(err)
				}
			}
		}
		return true
	})
	return found
}

// Every action, name and text that a caller may meet is in the documentation.
func TestDocumented(t *testing.T) {
	b, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for _, file := range []string{"api.go", "names.go", "errors.go", "keylife.go", "reply.go", "policies.go"} {
		for name, text := range constants(t, file) {
			if name == "replyInfo" {
				continue // docs/formats.md
			}
			n++
			if !strings.Contains(string(b), text) {
				t.Errorf("%s: docs/api.md does not have %q", name, text)
			}
		}
	}
	if n < 90 {
		t.Errorf("got %d constants, want at least 90", n)
	}
}

// Every action has an example in the documentation, which scripts/docs.sh runs.
func TestExamples(t *testing.T) {
	b, err := os.ReadFile("../docs/api.md")
	if err != nil {
		t.Fatal(err)
	}
	var examples strings.Builder
	for i, part := range strings.Split("\n"+string(b), "\n```") {
		if code, ok := strings.CutPrefix(part, "sh\n"); ok && i%2 == 1 {
			examples.WriteString(code + "\n")
		}
	}
	n := 0
	signed := constants(t, "api.go")
	maps.Copy(signed, constants(t, "policies.go"))
	maps.Copy(signed, constants(t, "keylife.go"))
	for name, text := range signed {
		if name != text {
			continue // no action
		}
		n++
		command := "ehsm api " + name
		if name == GetEvidence {
			command = "ehsm attest verify" // which asks for it
		}
		if !regexp.MustCompile(`(?m)` + regexp.QuoteMeta(command) + `( |$)`).MatchString(examples.String()) {
			t.Errorf("docs/api.md runs no %q", command)
		}
	}
	if n != 55 {
		t.Errorf("got %d actions, want 55", n)
	}
}
