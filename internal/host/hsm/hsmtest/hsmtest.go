// Package hsmtest makes tokens of SoftHSM2 for tests. It needs Debian's softhsm2, or
// the like of another system, and no cgo.
package hsmtest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
)

// PIN is that of the user of each new token.
const PIN = "4321-user"

// A SoftHSM is a directory of tokens with its configuration.
type SoftHSM struct {
	Dir     string // of all below
	Tokens  string // directory of the tokens, one directory each
	Config  string // for SOFTHSM2_CONF
	Library string // a copy of the PKCS#11 library, which a test can take away
	PINFile string // with PIN, mode 0600
}

// New makes a SoftHSM without tokens in dir.
func New(t testing.TB, dir string) *SoftHSM {
	t.Helper()
	s := &SoftHSM{Dir: dir, Tokens: filepath.Join(dir, "tokens"), Config: filepath.Join(dir, "softhsm2.conf"), Library: filepath.Join(dir, "libsofthsm2.so"), PINFile: filepath.Join(dir, "pin")}
	library := ""
	for _, pattern := range []string{"/usr/lib/softhsm/libsofthsm2.so", "/usr/lib/*/softhsm/libsofthsm2.so", "/usr/lib*/libsofthsm2.so", "/usr/local/lib/softhsm/libsofthsm2.so"} {
		if found, _ := filepath.Glob(pattern); len(found) > 0 && library == "" {
			library = found[0]
		}
	}
	if library == "" {
		t.Skip("SoftHSM2 is missing: apt-get install softhsm2")
	}
	b, err := os.ReadFile(library)
	if err != nil {
		t.Fatal(err)
	}
	config := fmt.Sprintf("directories.tokendir = %s\nobjectstore.backend = file\nlog.level = ERROR\nslots.removable = false\n", s.Tokens)
	for path, content := range map[string]string{s.Library: string(b), s.Config: config, s.PINFile: PIN} {
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.MkdirAll(s.Tokens, 0o700); err != nil {
		t.Fatal(err)
	}
	return s
}

// InitToken makes a token with a label, and returns its directory.
func (s *SoftHSM) InitToken(t testing.TB, label string) string {
	t.Helper()
	before := s.list(t)
	cmd := exec.Command("softhsm2-util", "--init-token", "--free", "--label", label, "--so-pin", "12345678", "--pin", PIN)
	cmd.Env = append(os.Environ(), "SOFTHSM2_CONF="+s.Config)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("make a token: %v\n%s", err, out)
	}
	for _, dir := range s.list(t) {
		if !slices.Contains(before, dir) {
			return dir
		}
	}
	t.Fatal("softhsm2-util has made no token")
	return ""
}

// WritePIN puts another PIN into the file.
func (s *SoftHSM) WritePIN(t testing.TB, pin string) {
	t.Helper()
	if err := os.WriteFile(s.PINFile, []byte(pin), 0o600); err != nil {
		t.Fatal(err)
	}
}

func (s *SoftHSM) list(t testing.TB) []string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(s.Tokens, "*"))
	if err != nil {
		t.Fatal(err)
	}
	return found
}
