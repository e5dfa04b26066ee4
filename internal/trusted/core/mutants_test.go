//go:build mutants

package core

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

// mutated are the folders whose checks are removed.
var mutated = []string{".", "../record"}

// mark is the comment behind a condition that is a security check:
//
//	check: NAME            removing it must make a test fail
//	check+: NAME: REASON   defence in depth: another check stands behind it
var mark = regexp.MustCompile(`^// check(\+)?: ([a-z0-9-]+)(: .+)?$`)

// A check is a marked condition.
type check struct {
	name   string
	spare  bool // defence in depth
	where  token.Position
	offset [2]int // of the condition in the file
}

// TestMutants removes the checks one at a time and expects the attacker of
// TestHostAttacker to succeed, or else another test to fail. All mutants are
// in one binary, which is built from altered copies of the sources; a variable
// of the environment picks one. A first run of each test, without a mutant, tells
// which checks refuse something in it: only those tests can miss them.
func TestMutants(t *testing.T) {
	dir := t.TempDir()
	binary, checks := build(t, dir)
	tests := survey(t, binary)
	if t.Failed() {
		return
	}
	t.Run("removed", func(t *testing.T) {
		for _, c := range checks {
			t.Run(c.name, func(t *testing.T) {
				t.Parallel()
				killer := kill(t, binary, c.name, tests)
				switch {
				case killer == "" && !c.spare:
					t.Errorf("%s: nothing fails without this check: write the attack, or say why it is spare", c.where)
				case killer != "" && c.spare:
					t.Errorf("%s: it is not spare, %s fails without it", c.where, killer)
				case killer != "":
					t.Logf("found by %s", killer)
				}
			})
		}
	})
}

// A surveyed test is one that passes without a mutant.
type surveyed struct {
	name  string
	took  time.Duration
	fired map[string]bool // checks that refused something
}

const attackerTest = "TestHostAttacker"

// survey runs each test once. The attacker comes first, then the fastest.
func survey(t *testing.T, binary string) []surveyed {
	out, err := exec.Command(binary, "-test.list", "^Test").Output()
	if err != nil {
		t.Fatal(err)
	}
	names := strings.Fields(string(out))
	tests := make([]surveyed, len(names))
	t.Run("unaltered", func(t *testing.T) {
		for i, name := range names {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				trace := filepath.Join(t.TempDir(), "trace")
				began := time.Now()
				if out, err := run(t, binary, "", name, trace); err != nil {
					t.Fatalf("without a mutant: %v\n%s", err, out)
				}
				tests[i] = surveyed{name, time.Since(began), map[string]bool{}}
				b, err := os.ReadFile(trace)
				if err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
				for _, check := range strings.Fields(string(b)) {
					tests[i].fired[check] = true
				}
			})
		}
	})
	rank := func(s surveyed) time.Duration {
		if s.name == attackerTest {
			return 0
		}
		return s.took
	}
	slices.SortFunc(tests, func(a, b surveyed) int { return cmp.Compare(rank(a), rank(b)) })
	return tests
}

// kill returns the test that fails without a check, "" if none does.
func kill(t *testing.T, binary, check string, tests []surveyed) string {
	for _, test := range tests {
		if !test.fired[check] {
			continue
		}
		out, err := run(t, binary, check, test.name, "")
		if err == nil {
			continue
		}
		for line := range strings.Lines(string(out)) {
			if failed, ok := strings.CutPrefix(strings.TrimSpace(line), "--- FAIL: "+test.name+"/"); ok {
				return test.name + ": " + strings.TrimSpace(failed)
			}
		}
		return test.name
	}
	return ""
}

func run(t *testing.T, binary, mutant, test, trace string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 6*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.run", "^"+test+"$", "-test.failfast", "-test.timeout", "5m")
	cmd.Env = append(os.Environ(), "EHSM_MUTANT="+mutant, "EHSM_TRACE="+trace)
	return cmd.CombinedOutput()
}

// theSwitch is added to each altered package. It writes down which checks were
// about to refuse something.
const theSwitch = `package %s

import (
	"os"
	"sync"
)

var (
	theMutant = os.Getenv("EHSM_MUTANT")
	theTrace  = os.Getenv("EHSM_TRACE")
	traced    sync.Map
)

func mutant(name string) bool {
	if _, again := traced.LoadOrStore(name, true); !again && theTrace != "" {
		f, err := os.OpenFile(theTrace, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			panic(err)
		}
		f.WriteString(name + "\n")
		f.Close()
	}
	return name == theMutant
}
`

// build makes the binary with all mutants.
func build(t *testing.T, dir string) (binary string, all []check) {
	overlay := map[string]string{}
	for n, folder := range mutated {
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
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			altered, of, checks := alter(t, name)
			pkg, all = of, append(all, checks...)
			overlay[name] = write(t, filepath.Join(dir, fmt.Sprintf("%d-%s", n, filepath.Base(name))), altered)
		}
		overlay[filepath.Join(folder, "mutant_switch.go")] = write(t, filepath.Join(dir, fmt.Sprintf("%d-switch.go", n)), fmt.Appendf(nil, theSwitch, pkg))
	}
	unique(t, all)
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	binary = filepath.Join(dir, "core.test")
	cmd := exec.Command("go", "test", "-c", "-overlay", write(t, filepath.Join(dir, "overlay.json"), b), "-o", binary, ".")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("build the mutants: %v\n%s", err, out)
	}
	return binary, all
}

func unique(t *testing.T, checks []check) {
	seen := map[string]token.Position{}
	for _, c := range checks {
		if at, ok := seen[c.name]; ok {
			t.Fatalf("%s: %s has the name %q too", c.where, at, c.name)
		}
		seen[c.name] = c.where
	}
	if len(checks) < 30 {
		t.Fatalf("found %d checks only", len(checks))
	}
}

func write(t *testing.T, name string, b []byte) string {
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// alter returns a source in which each marked condition can be switched off. It
// is still evaluated, for what else it does.
func alter(t *testing.T, name string) (source []byte, pkg string, checks []check) {
	source, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	checks, pkg = find(t, name, source)
	for _, c := range slices.Backward(checks) {
		condition := source[c.offset[0]:c.offset[1]]
		source = slices.Concat(source[:c.offset[0]], fmt.Appendf(nil, "(%s) && !mutant(%q)", condition, c.name), source[c.offset[1]:])
	}
	return source, pkg, checks
}

// find returns the checks of a source in their order.
func find(t *testing.T, name string, source []byte) (checks []check, pkg string) {
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
	for _, group := range file.Comments {
		for _, comment := range group.List {
			if !strings.HasPrefix(comment.Text, "// check:") && !strings.HasPrefix(comment.Text, "// check+:") {
				continue
			}
			at := fset.Position(comment.Pos())
			m := mark.FindStringSubmatch(comment.Text)
			condition := conditions[at.Line]
			switch {
			case m == nil || (m[1] == "+") != (m[3] != ""):
				t.Fatalf("%s: the mark is malformed", at)
			case condition == nil:
				t.Fatalf("%s: there is no condition on the line of the mark", at)
			case bytes.Contains(source, []byte("mutant(")):
				t.Fatalf("%s: the name mutant is taken", at)
			}
			checks = append(checks, check{m[2], m[1] == "+", at, [2]int{fset.Position(condition.Pos()).Offset, fset.Position(condition.End()).Offset}})
		}
	}
	return checks, file.Name.Name
}
