package layout

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// leastAttacks is how many refusals docs/attacks.md has to name.
const leastAttacks = 70

var (
	attackRow = regexp.MustCompile("^\\| (.+) \\| .+ \\| `([a-z0-9/]+)` (Test[A-Za-z0-9]+)(?: `([^`]+)`)? \\|$")
	tableHead = regexp.MustCompile(`^\|(-+\|)+$|^\| (attack|event) \|`)
)

// TestAttacksAreTested holds that every attack of the table has the test that it
// names, so that nobody relies on one that is gone.
func TestAttacksAreTested(t *testing.T) {
	b, err := os.ReadFile("../../docs/attacks.md")
	if err != nil {
		t.Fatal(err)
	}
	attacks, sources := map[string]bool{}, map[string]string{}
	for line := range strings.Lines(string(b)) {
		line = strings.TrimSpace(line)
		if !strings.HasPrefix(line, "|") || tableHead.MatchString(line) {
			continue
		}
		m := attackRow.FindStringSubmatch(line)
		if m == nil {
			t.Errorf("not a row of this table: %s", line)
			continue
		}
		attack, folder, test, row := m[1], m[2], m[3], m[4]
		if attacks[attack] {
			t.Errorf("%q stands there twice", attack)
		}
		attacks[attack] = true
		if sources[folder] == "" {
			sources[folder] = testsIn(t, folder)
		}
		if !strings.Contains(sources[folder], "func "+test+"(t *testing.T)") {
			t.Errorf("%q: %s has no %s", attack, folder, test)
		}
		if row != "" && !strings.Contains(sources[folder], `"`+row+`"`) {
			t.Errorf("%q: %s of %s has no row %q", attack, test, folder, row)
		}
	}
	if len(attacks) < leastAttacks {
		t.Errorf("docs/attacks.md names %d refusals, want at least %d", len(attacks), leastAttacks)
	}
}

// testsIn is the text of all tests of a folder.
func testsIn(t *testing.T, folder string) string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("../..", folder, "*_test.go"))
	if err != nil {
		t.Fatal(err)
	}
	var all strings.Builder
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}
