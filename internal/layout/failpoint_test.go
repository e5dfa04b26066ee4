package layout

import (
	"encoding/json"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const failpoints = module + "/internal/failpoint"

// TestReleasedProgramsHaveNoFailpoints: what every build of ours links of package
// failpoint imports nothing, so it can do nothing, and is there for trusted
// programs only.
func TestReleasedProgramsHaveNoFailpoints(t *testing.T) {
	for _, set := range tagSets {
		out, err := goRun("list", "-tags="+set.tags, "-json=GoFiles,Imports", failpoints)
		if err != nil {
			t.Fatal(err)
		}
		var p struct{ GoFiles, Imports []string }
		if err := json.Unmarshal(out, &p); err != nil {
			t.Fatal(err)
		}
		if want := []string{"failpoint.go", "off.go"}; !slices.Equal(p.GoFiles, want) || len(p.Imports) > 0 {
			t.Errorf("tags %q: package failpoint is %v, which imports %v", set.tags, p.GoFiles, p.Imports)
		}
	}
	for _, p := range list(t, module+"/...") {
		path := strings.TrimPrefix(p.ImportPath, module+"/")
		if slices.Contains(p.Imports, failpoints) && !in("internal/trusted", path) && path != "cmd/ehsm-dkeyserver" {
			t.Errorf("%s imports package failpoint", path)
		}
	}
}

// TestNoBuildSetsTheTag looks for the build tag wherever programs are built for
// others than the tests.
func TestNoBuildSetsTheTag(t *testing.T) {
	looked := 0
	look := func(path string) {
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		looked++
		if strings.Contains(string(b), "failpoints") {
			t.Errorf("%s has the build tag failpoints", path)
		}
	}
	for _, path := range []string{"../../Makefile", "../../scripts/build-core.sh", "../../scripts/reproducible.sh", "../../README.md"} {
		look(path)
	}
	err := filepath.WalkDir("../../deploy", func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			look(path)
		}
		return err
	})
	if err != nil || looked < 6 {
		t.Errorf("looked into %d files: %v", looked, err)
	}
}
