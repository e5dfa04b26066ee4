//go:build mutants

package channel_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// mutated are the packages whose checks are removed, and whose tests must notice.
var mutated = []string{".", "internal/session", "local"}

// mark is the comment behind a condition that is a security check, as in package
// core: "check: NAME", or "check+: NAME: REASON" where another stands behind it.
var mark = regexp.MustCompile(`^// check(\+)?: ([a-z0-9-]+)(: .+)?$`)

// theSwitch is added to each package; a variable of the environment picks a mutant.
const theSwitch = `package %s

import "os"

var theMutant = os.Getenv("EHSM_MUTANT")

func mutant(name string) bool { return name == theMutant }
`

// TestMutants removes the marked checks one at a time, and expects a test to fail.
func TestMutants(t *testing.T) {
	dir := t.TempDir()
	binaries, checks := buildMutants(t, dir)
	for _, b := range binaries {
		if out, err := runMutant(b, ""); err != nil {
			t.Fatalf("%s without a mutant: %v\n%s", b, err, out)
		}
	}
	for name, spare := range checks {
		t.Run(name, func(t *testing.T) {
			killer := ""
			for _, b := range binaries {
				if out, err := runMutant(b, name); err != nil {
					killer = firstFailure(out)
					break
				}
			}
			switch {
			case killer == "" && !spare:
				t.Error("nothing fails without this check: write the attack, or say why it is spare")
			case killer != "" && spare:
				t.Errorf("it is not spare: %s", killer)
			default:
				t.Log("found by", killer)
			}
		})
	}
}

func firstFailure(out []byte) string {
	for line := range strings.Lines(string(out)) {
		if failed, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "); ok && strings.HasPrefix(line, " ") {
			return failed
		}
	}
	head, _, _ := strings.Cut(string(out), "\n")
	return head
}

func runMutant(binary, name string) ([]byte, error) {
	cmd := exec.Command(binary, "-test.failfast", "-test.timeout", "60s")
	cmd.Env = append(os.Environ(), "EHSM_MUTANT="+name)
	return cmd.CombinedOutput()
}

// buildMutants builds the tests of each package, with all mutants in all of them,
// and returns the names of the checks and whether they are spare.
func buildMutants(t *testing.T, dir string) (binaries []string, checks map[string]bool) {
	overlay, checks := map[string]string{}, map[string]bool{}
	store := func(path string, b []byte) {
		to := filepath.Join(dir, fmt.Sprintf("%d.go", len(overlay)))
		if err := os.WriteFile(to, b, 0o600); err != nil {
			t.Fatal(err)
		}
		overlay[path] = to
	}
	for _, folder := range mutated {
		folder, err := filepath.Abs(folder)
		if err != nil {
			t.Fatal(err)
		}
		files, err := filepath.Glob(filepath.Join(folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		pkg := ""
		for _, name := range files {
			if !strings.HasSuffix(name, "_test.go") {
				altered, of := alter(t, name, checks)
				pkg = of
				store(name, altered)
			}
		}
		store(filepath.Join(folder, "mutant_switch.go"), fmt.Appendf(nil, theSwitch, pkg))
	}
	if len(checks) < 40 {
		t.Fatalf("found %d checks only", len(checks))
	}
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(list, b, 0o600); err != nil {
		t.Fatal(err)
	}
	for n, folder := range mutated {
		binary := filepath.Join(dir, fmt.Sprintf("%d.test", n))
		if out, err := exec.Command("go", "test", "-c", "-overlay", list, "-o", binary, "./"+folder).CombinedOutput(); err != nil {
			t.Fatalf("build the mutants of %s: %v\n%s", folder, err, out)
		}
		binaries = append(binaries, binary)
	}
	return binaries, checks
}

// alter returns a source in which each marked condition can be switched off; it is
// still evaluated.
func alter(t *testing.T, name string, checks map[string]bool) (source []byte, pkg string) {
	source, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, name, source, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	conditions := map[int]ast.Expr{} // by the line on which they end
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.IfStmt:
			conditions[fset.Position(n.Body.Lbrace).Line] = n.Cond
		case *ast.CaseClause:
			if len(n.List) == 1 {
				conditions[fset.Position(n.Colon).Line] = n.List[0]
			}
		}
		return true
	})
	var comments []*ast.Comment
	for _, group := range file.Comments {
		comments = append(comments, group.List...)
	}
	for _, comment := range slices.Backward(comments) {
		if !strings.HasPrefix(comment.Text, "// check:") && !strings.HasPrefix(comment.Text, "// check+:") {
			continue
		}
		at := fset.Position(comment.Pos())
		m, condition := mark.FindStringSubmatch(comment.Text), conditions[at.Line]
		if m == nil || (m[1] == "+") != (m[3] != "") || condition == nil {
			t.Fatalf("%s: the mark is malformed, or stands at no condition", at)
		}
		if _, twice := checks[m[2]]; twice {
			t.Fatalf("%s: the name %q is there twice", at, m[2])
		}
		checks[m[2]] = m[1] == "+"
		from, to := fset.Position(condition.Pos()).Offset, fset.Position(condition.End()).Offset
		source = bytes.Join([][]byte{source[:from], fmt.Appendf(nil, "(%s) && !mutant(%q)", source[from:to], m[2]), source[to:]}, nil)
	}
	return source, file.Name.Name
}
