package config

import (
	"os"
	"strings"
	"testing"
)

const settingsPage = "../../docs/settings.md"

// TestSettingsPage compares the page with the tables. UPDATE_DOCS=1 writes it
// anew.
func TestSettingsPage(t *testing.T) {
	page, err := os.ReadFile(settingsPage)
	if err != nil {
		t.Fatal(err)
	}
	head, _, ok := strings.Cut(string(page), "## ehsm-kms")
	if !ok {
		t.Fatal("the page has no section for ehsm-kms")
	}
	want := head + strings.TrimRight(Markdown(), "\n") + "\n"
	if string(page) == want {
		return
	}
	if os.Getenv("UPDATE_DOCS") == "" {
		t.Fatalf("%s differs from the tables; UPDATE_DOCS=1 go test ./internal/config writes it", settingsPage)
	}
	if err := os.WriteFile(settingsPage, []byte(want), 0o644); err != nil {
		t.Fatal(err)
	}
}
