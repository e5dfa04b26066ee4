package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// A write that fails after the key rotated leaves the file as it was.
func TestReplaceAPIKey(t *testing.T) {
	const app = "86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c"
	mine := profile{URL: "https://127.0.0.1:9000", AppID: app, APIKey: storedAKey{ehsm.NewAPIKey("old")}}
	node, batch, other := mine, mine, mine
	node.URL = "https://127.0.0.1:9001"
	batch.APIKey = storedAKey{ehsm.NewAPIKey("batch")}
	other.AppID = "00000000-4b5d-4c3e-9a77-0d1e2f3a4b5c"
	write := func(t *testing.T, path string) []byte {
		t.Helper()
		c := configFile{Profiles: map[string]profile{"dev": mine, "dev-1": node, "batch": batch, "other": other}}
		short := filepath.Join(filepath.Dir(path), "short")
		if err := writePrivate(short, c); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(short, path); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	t.Run("every profile with the key", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "config.yaml")
		write(t, path)
		names, err := replaceAPIKey(path, mine, ehsm.NewAPIKey("new"))
		if err != nil || !slices.Equal(names, []string{"dev", "dev-1"}) {
			t.Fatalf("replaceAPIKey: got %v, %v", names, err)
		}
		c, err := loadConfig(path) // which refuses a file that others can read
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]string{"dev": "new", "dev-1": "new", "batch": "batch", "other": "old"} {
			if got := c.Profiles[name].APIKey.Expose(); got != want {
				t.Errorf("profile %s: got key %q, want %q", name, got, want)
			}
		}
		if got := c.Profiles["dev-1"].URL; got != node.URL {
			t.Errorf("URL of dev-1: got %q, want %q", got, node.URL)
		}
	})
	refusals := []struct {
		name, file string
		old        profile
	}{
		{"no file can be made beside it", strings.Repeat("a", 250), mine},
		{"changed meanwhile", "config.yaml", profile{AppID: app, APIKey: storedAKey{ehsm.NewAPIKey("older")}}},
	}
	for _, tt := range refusals {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), tt.file)
			before := write(t, path)
			if names, err := replaceAPIKey(path, tt.old, ehsm.NewAPIKey("new")); err == nil {
				t.Errorf("replaceAPIKey: got %v and no error", names)
			}
			after, err := os.ReadFile(path)
			if err != nil || string(after) != string(before) {
				t.Errorf("the file changed, %v", err)
			}
		})
	}
}

// ehsm dev knows the first API key of its tenant only; a profile may have its successor.
func TestDevKeepsRotatedKey(t *testing.T) {
	a := &app{getenv: home(t)}
	p := profile{URL: "https://127.0.0.1:9000", AppID: "86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c", APIKey: storedAKey{ehsm.NewAPIKey("first")}}
	path, err := a.putDevProfile(devProfile, p)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := replaceAPIKey(path, p, ehsm.NewAPIKey("second")); err != nil {
		t.Fatal(err)
	}
	p.URL = "https://127.0.0.1:9009"
	if _, err := a.putDevProfile(devProfile, p); err != nil {
		t.Fatal(err)
	}
	c, err := loadConfig(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := c.Profiles[devProfile]; got.APIKey.Expose() != "second" || got.URL != p.URL {
		t.Errorf("profile: got key %q and %s, want \"second\" and %s", got.APIKey.Expose(), got.URL, p.URL)
	}
}
