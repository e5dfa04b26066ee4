package layout

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// tracked returns the files that git knows, by path from the root of the module.
func tracked(t *testing.T, patterns ...string) []string {
	t.Helper()
	cmd := exec.Command("git", append([]string{"ls-files", "-z", "--"}, patterns...)...)
	cmd.Dir = root
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git ls-files: %v", err)
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == 0 })
}

const root = "../.."

var (
	heading      = regexp.MustCompile(`(?m)^#{1,6} (.*)$`)
	linkedText   = regexp.MustCompile(`\[([^\]]*)\]\([^)]*\)`)
	link         = regexp.MustCompile(`\]\(([^)\s]+)\)`)
	fenced       = regexp.MustCompile("(?ms)^```.*?^```$")
	reference    = regexp.MustCompile(`\bdocs/[a-z]+\.md(?:#[A-Za-z0-9-]+)?`)
	noAnchorRune = regexp.MustCompile(`[^\p{L}\p{N}_ -]`)
)

// anchors returns the names of a document's headings, as the usual renderers make
// them.
func anchors(text string) map[string]bool {
	all := map[string]bool{}
	for _, m := range heading.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
		name := linkedText.ReplaceAllString(strings.TrimSpace(m[1]), "$1")
		all[strings.ReplaceAll(noAnchorRune.ReplaceAllString(strings.ToLower(name), ""), " ", "-")] = true
	}
	return all
}

// checkLink reports a link to a file that is not there, or to none of its headings.
func checkLink(t *testing.T, from, to string) {
	t.Helper()
	path, anchor, _ := strings.Cut(to, "#")
	b, err := os.ReadFile(filepath.Join(root, path))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		t.Errorf("%s: nothing is at %s", from, to)
	case anchor != "" && strings.HasSuffix(path, ".md") && !anchors(string(b))[anchor]:
		t.Errorf("%s: %s has no such heading", from, to)
	}
}

// Links between documents, and what comments and texts of programs say of
// documents, lead somewhere.
func TestLinks(t *testing.T) {
	n := 0
	for _, file := range tracked(t, "*.md", "*.go") {
		b, err := os.ReadFile(filepath.Join(root, file))
		if errors.Is(err, fs.ErrNotExist) {
			continue // removed, and not yet committed
		}
		if err != nil {
			t.Fatal(err)
		}
		if filepath.Ext(file) == ".go" {
			for _, to := range reference.FindAllString(string(b), -1) {
				n++
				checkLink(t, file, to)
			}
			continue
		}
		for _, m := range link.FindAllStringSubmatch(string(b), -1) {
			to := m[1]
			if strings.Contains(to, "://") || strings.HasPrefix(to, "mailto:") {
				continue
			}
			n++
			if strings.HasPrefix(to, "#") {
				checkLink(t, file, file+to)
			} else {
				checkLink(t, file, filepath.Join(filepath.Dir(file), to))
			}
		}
	}
	if n < 100 {
		t.Errorf("got %d links, want at least 100", n)
	}
}
