package mutants

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

var mark = regexp.MustCompile(`^// check(\+)?: ([a-z0-9-]+)(: .+)?$`)

// A check is a marked condition.
type check struct {
	name   string
	spare  bool // another stands behind it
	where  token.Position
	offset [2]int // of the condition in the file
}

// A binary is the tests of a package.
type binary struct {
	file string
	dir  string // of the package, in which they run
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

// build makes the binaries, each with all mutants.
func build(t *testing.T, dir string, o Options) (binaries []binary, all []check) {
	overlay := map[string]string{}
	store := func(path string, b []byte) {
		to := filepath.Join(dir, fmt.Sprintf("%d-%s", len(overlay), filepath.Base(path)))
		write(t, to, b)
		overlay[path] = to
	}
	for _, folder := range o.Folders {
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
			store(name, altered)
		}
		store(filepath.Join(folder, "mutant_switch.go"), fmt.Appendf(nil, theSwitch, pkg))
	}
	unique(t, all, o.Least)
	b, err := json.Marshal(map[string]any{"Replace": overlay})
	if err != nil {
		t.Fatal(err)
	}
	list := filepath.Join(dir, "overlay.json")
	write(t, list, b)
	for n, folder := range o.Tests {
		file := filepath.Join(dir, fmt.Sprintf("%d.test", n))
		if out, err := exec.Command("go", "test", "-c", "-tags", o.Tags, "-overlay", list, "-o", file, "./"+folder).CombinedOutput(); err != nil {
			t.Fatalf("build the mutants of %s: %v\n%s", folder, err, out)
		}
		binaries = append(binaries, binary{file, folder})
	}
	return binaries, all
}

func unique(t *testing.T, checks []check, least int) {
	seen := map[string]token.Position{}
	for _, c := range checks {
		if at, ok := seen[c.name]; ok {
			t.Fatalf("%s: %s has the name %q too", c.where, at, c.name)
		}
		seen[c.name] = c.where
	}
	if len(checks) < least {
		t.Fatalf("found %d checks only, want %d", len(checks), least)
	}
}

func write(t *testing.T, name string, b []byte) {
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
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
	conditions := conditionsOf(fset, file)
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

// conditionsOf returns the conditions of a file by the line on which they end.
func conditionsOf(fset *token.FileSet, file *ast.File) map[int]ast.Expr {
	conditions := map[int]ast.Expr{}
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
	return conditions
}
