package yamlfile

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/config"
)

func TestParse(t *testing.T) {
	keys := []string{"listen", "max_body", "idle_timeout"}
	for name, row := range map[string]struct {
		text string
		want map[string]string
	}{
		"empty":        {"", nil},
		"comments":     {"# nothing\n", nil},
		"text":         {"listen: 127.0.0.1:9000", map[string]string{"listen": "127.0.0.1:9000"}},
		"quoted":       {"listen: \"[::]:9000\"\n", map[string]string{"listen": "[::]:9000"}},
		"number":       {"max_body: 4096\nidle_timeout: 2m\n", map[string]string{"max_body": "4096", "idle_timeout": "2m"}},
		"negative":     {"max_body: -1", map[string]string{"max_body": "-1"}},
		"flow mapping": {"{max_body: 1}", map[string]string{"max_body": "1"}},
	} {
		if got, err := parse([]byte(row.text), keys); err != nil || !maps.Equal(got, row.want) {
			t.Errorf("%s: got %v, %v", name, got, err)
		}
	}
	for name, row := range map[string]struct{ text, says string }{
		"unknown setting":   {"listne: x", "listne is none"},
		"letter case":       {"Listen: x", "Listen is none"},
		"with prefix":       {"EHSM_KMS_LISTEN: x", "EHSM_KMS_LISTEN is none"},
		"two wrong":         {"a: x\nb: [1]", "b is none"},
		"twice":             {"listen: a\nlisten: b", "listen"},
		"nested":            {"listen: {host: a}", "listen: want a text"},
		"list":              {"listen: [a]", "listen: want a text"},
		"no value":          {"listen:", "listen: want a text"},
		"boolean":           {"listen: true", "listen: want a text"},
		"fraction":          {"max_body: 1.5", "max_body: want a text"},
		"no mapping":        {"listen", ""},
		"a list of all":     {"- listen: a", ""},
		"not YAML":          {"listen: [", ""},
		"a second document": {"listen: a\n---\nlisten: b\n", "more than one document"},
	} {
		got, err := parse([]byte(row.text), keys)
		if !errors.Is(err, config.ErrSetting) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: got %v, %v, want an error with %q", name, got, err, row.says)
		}
	}
}

func TestRead(t *testing.T) {
	path := filepath.Join(t.TempDir(), "kms.yaml")
	if _, err := Read(path, nil); !errors.Is(err, fs.ErrNotExist) || !strings.Contains(err.Error(), path) {
		t.Errorf("no file: got %v", err)
	}
	write := func(text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("listen: x")
	if got, err := Read(path, []string{"listen"}); err != nil || got["listen"] != "x" {
		t.Errorf("got %v, %v", got, err)
	}
	if _, err := Read(path, nil); !errors.Is(err, config.ErrSetting) || !strings.Contains(err.Error(), path) {
		t.Errorf("unknown setting: got %v", err)
	}
	write(strings.Repeat("# long\n", maxFile/7+1))
	if _, err := Read(path, nil); !errors.Is(err, config.ErrSetting) {
		t.Errorf("long file: got %v", err)
	}
}
