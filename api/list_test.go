package api

import (
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strconv"
	"testing"
)

// TestActions compares the list with the constants of the block above
// CreateKey.
func TestActions(t *testing.T) {
	f, err := parser.ParseFile(token.NewFileSet(), "api.go", nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, d := range f.Decls {
		block, ok := d.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST || len(block.Specs) < 10 {
			continue
		}
		for _, s := range block.Specs {
			name, err := strconv.Unquote(s.(*ast.ValueSpec).Values[0].(*ast.BasicLit).Value)
			if err != nil {
				t.Fatal(err)
			}
			names = append(names, name)
		}
	}
	got := Actions()
	slices.Sort(got)
	slices.Sort(names)
	if len(names) < 30 || !slices.Equal(got, names) {
		t.Errorf("got %q, want the constants %q", got, names)
	}
}
