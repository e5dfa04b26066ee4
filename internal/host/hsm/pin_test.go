package hsm

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
)

func TestReadPIN(t *testing.T) {
	for _, row := range []struct {
		name, text string
		mode       os.FileMode
		want       string // "": refused
	}{
		{"a line", "4321\n", 0o600, "4321"},
		{"no end of line", "4321", 0o400, "4321"},
		{"end of line of other systems", "4321\r\n", 0o600, "4321"},
		{"spaces", " 43 21 ", 0o600, " 43 21 "},
		{"longest", strings.Repeat("9", maxPIN) + "\n", 0o600, strings.Repeat("9", maxPIN)},

		{"the group reads", "4321", 0o640, ""},
		{"others read", "4321", 0o604, ""},
		{"others write", "4321", 0o602, ""},
		{"empty", "", 0o600, ""},
		{"an end of line", "\n", 0o600, ""},
		{"two lines", "4321\n1234\n", 0o600, ""},
		{"a zero", "43\x0021", 0o600, ""},
		{"too long", strings.Repeat("9", maxPIN+1), 0o600, ""},
	} {
		path := filepath.Join(t.TempDir(), "pin")
		if err := os.WriteFile(path, []byte(row.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, row.mode); err != nil {
			t.Fatal(err)
		}
		got, err := ReadPIN(path)
		if string(got) != row.want || (row.want == "") != errors.Is(err, ErrPIN) {
			t.Errorf("%s: got %q, %v, want %q", row.name, got, err, row.want)
		}
		if err != nil && strings.Contains(err.Error(), "4321") {
			t.Errorf("%s: the error shows the PIN: %v", row.name, err)
		}
	}
	fifo := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{fifo, t.TempDir(), filepath.Join(t.TempDir(), "none")} {
		if _, err := ReadPIN(path); !errors.Is(err, ErrPIN) {
			t.Errorf("%s: got %v, want ErrPIN", path, err)
		}
	}
}

// TestFacts changes one fact at a time.
func TestFacts(t *testing.T) {
	good := Facts{
		AES: true, Bytes: 32, Private: true, Sensitive: true, AlwaysSensitive: true, NeverExtractable: true,
		MayEncrypt: true, MayDecrypt: true, MayWrapKey: true, MayUnwrapKey: true,
	}
	for _, m := range []hsm.Mechanism{hsm.GCM, hsm.KeyWrapPad} {
		if err := good.Check(m); err != nil {
			t.Errorf("%s: got %v", m, err)
		}
	}
	for _, row := range []struct {
		name   string
		m      hsm.Mechanism
		change func(*Facts)
	}{
		{"no AES", hsm.GCM, func(f *Facts) { f.AES = false }},
		{"AES-128", hsm.GCM, func(f *Facts) { f.Bytes = 16 }},
		{"no length", hsm.KeyWrapPad, func(f *Facts) { f.Bytes = 0 }},
		{"public", hsm.GCM, func(f *Facts) { f.Private = false }},
		{"not sensitive", hsm.GCM, func(f *Facts) { f.Sensitive = false }},
		{"made sensitive later", hsm.GCM, func(f *Facts) { f.AlwaysSensitive = false }},
		{"extractable", hsm.GCM, func(f *Facts) { f.Extractable, f.NeverExtractable = true, false }},
		{"imported", hsm.KeyWrapPad, func(f *Facts) { f.NeverExtractable = false }},
		{"encrypts only", hsm.GCM, func(f *Facts) { f.MayDecrypt = false }},
		{"decrypts only", hsm.GCM, func(f *Facts) { f.MayEncrypt = false }},
		{"wraps only", hsm.KeyWrapPad, func(f *Facts) { f.MayUnwrapKey = false }},
		{"unwraps only", hsm.KeyWrapPad, func(f *Facts) { f.MayWrapKey = false }},
		{"no mechanism", 0, func(*Facts) {}},
		{"unknown mechanism", 3, func(*Facts) {}},
	} {
		f := good
		row.change(&f)
		if err := f.Check(row.m); !errors.Is(err, ErrKey) {
			t.Errorf("%s: got %v, want ErrKey", row.name, err)
		}
	}
	if err := (Facts{}).Check(hsm.GCM); !errors.Is(err, ErrKey) {
		t.Errorf("nothing: got %v, want ErrKey", err)
	}
}
