package acceptance

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
)

func write(t *testing.T, dir, name string, b []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func encoded(t *testing.T, q *acceptance.Request) []byte {
	t.Helper()
	b, err := json.Marshal(q)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRunAsked(t *testing.T) {
	c := configOf(machine(t, t.TempDir()+"/sim"))
	dir := t.TempDir()
	write(t, dir, acceptance.RequestFile, encoded(t, request()))
	var out bytes.Buffer
	asked, err := RunAsked(t.Context(), c, dir, &out)
	if err != nil || !asked {
		t.Fatalf("RunAsked: got %t, %v", asked, err)
	}
	line, rest, _ := strings.Cut(out.String(), "\n")
	if s, err := acceptance.DecodeStatement([]byte(line)); err != nil || s.Result.Version != "test" || rest != "" {
		t.Errorf("statement: got %v, and %q follows", err, rest)
	}
}

func TestNobodyAsked(t *testing.T) {
	c := configOf(machine(t, t.TempDir()+"/sim"))
	domain := t.TempDir()
	write(t, domain, "genesis.json", []byte("{}"))
	for name, dir := range map[string]string{"no directory": filepath.Join(domain, "none"), "a domain": domain, "nothing": t.TempDir()} {
		if asked, err := RunAsked(t.Context(), c, dir, nil); asked || err != nil {
			t.Errorf("%s: got %t, %v", name, asked, err)
		}
	}
}

// TestRefusedRequests has requests of a host that wants too much. Each keeps the
// core from serving, which the program must not do without saying so.
func TestRefusedRequests(t *testing.T) {
	c := configOf(machine(t, t.TempDir()+"/sim"))
	good := encoded(t, request())
	seal := acceptance.Seal{Policy: 1, KeyID: make([]byte, 31)}
	edit := func(f func(*acceptance.Request)) []byte {
		q := request()
		f(q)
		return encoded(t, q)
	}
	for _, row := range []struct {
		name    string
		request []byte
		beside  string
		want    error
	}{
		{"beside a genesis", good, "genesis.json", ErrDomain},
		{"beside a sealed key", good, "domainkey.sealed", ErrDomain},
		{"odd, beside a genesis", []byte("{"), "genesis.json", ErrDomain},
		{"empty", nil, "", acceptance.ErrMalformed},
		{"no JSON", []byte("{"), "", acceptance.ErrMalformed},
		{"other format", edit(func(q *acceptance.Request) { q.Format += "x" }), "", acceptance.ErrMalformed},
		{"short nonce", edit(func(q *acceptance.Request) { q.Nonce = q.Nonce[1:] }), "", acceptance.ErrMalformed},
		{"no nonce", edit(func(q *acceptance.Request) { q.Nonce = nil }), "", acceptance.ErrMalformed},
		{"endless measurements", edit(func(q *acceptance.Request) { q.Each = acceptance.MaxEach + 1 }), "", acceptance.ErrMalformed},
		{"negative measurements", edit(func(q *acceptance.Request) { q.Each = -1 }), "", acceptance.ErrMalformed},
		{"all memory", edit(func(q *acceptance.Request) { q.Memory = acceptance.MaxMemory + 1 }), "", acceptance.ErrMalformed},
		{"negative memory", edit(func(q *acceptance.Request) { q.Memory = -1 }), "", acceptance.ErrMalformed},
		{"short KEYID", edit(func(q *acceptance.Request) { q.Seals = []acceptance.Seal{seal} }), "", acceptance.ErrMalformed},
		{"unknown member", bytes.Replace(good, []byte("{"), []byte(`{"x":1,`), 1), "", acceptance.ErrMalformed},
		{"member twice", bytes.Replace(good, []byte(`"memoryMiB":1`), []byte(`"memoryMiB":1,"memoryMiB":1`), 1), "", acceptance.ErrMalformed},
		{"two requests", append(bytes.Clone(good), good...), "", acceptance.ErrMalformed},
		{"too long", append(bytes.Clone(good), bytes.Repeat([]byte(" "), acceptance.MaxRequest)...), "", acceptance.ErrMalformed},
	} {
		dir := t.TempDir()
		write(t, dir, acceptance.RequestFile, row.request)
		if row.beside != "" {
			write(t, dir, row.beside, nil)
		}
		var out bytes.Buffer
		if asked, err := RunAsked(t.Context(), c, dir, &out); !asked || !errors.Is(err, row.want) || out.Len() > 0 {
			t.Errorf("%s: got %t, %v, want %v", row.name, asked, err, row.want)
		}
	}
	dir := t.TempDir()
	if err := os.Mkdir(filepath.Join(dir, acceptance.RequestFile), 0o700); err != nil {
		t.Fatal(err)
	}
	if asked, err := RunAsked(t.Context(), c, dir, nil); !asked || err == nil {
		t.Errorf("a directory: got %t, %v", asked, err)
	}
}

type fullDisk struct{}

func (fullDisk) Write([]byte) (int, error) { return 0, errBroken }

func TestStatementNotWritten(t *testing.T) {
	dir := t.TempDir()
	write(t, dir, acceptance.RequestFile, encoded(t, request()))
	if _, err := RunAsked(t.Context(), configOf(machine(t, t.TempDir()+"/sim")), dir, fullDisk{}); !errors.Is(err, errBroken) {
		t.Errorf("got %v, want the error of the writer", err)
	}
}
