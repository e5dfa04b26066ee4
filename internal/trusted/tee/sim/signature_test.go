package sim

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// A file written by this version, as tools of others read it. Made with
// openssl pkeyutl.
func TestSignatureKnownAnswer(t *testing.T) {
	s, err := Sign(secret.New(bytes.Repeat([]byte{3}, 32)), [32]byte{1, 31: 2}, 0x0102, 0x0304, true)
	if err != nil {
		t.Fatal(err)
	}
	want := "01" + "ed4928c628d1c2c6eae90338905995612959273a5c63f93636c14614ac8737d1" +
		"01" + strings.Repeat("00", 30) + "02" + "0102" + "0304" + "01" +
		"f11f3b8a126d68a39ebdaf3016596c23134d85e15c08958fbf3d815691837395" +
		"dd128fc00f715e3e9684bd709842ec6a3ae939be041ca14c51c70e1b87f86f0c"
	if got := hex.EncodeToString(s.Append(nil)); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// signedProgram makes a file that stands for an executable, and signs it.
func signedProgram(t *testing.T) (path, key string) {
	t.Helper()
	dir := t.TempDir()
	path, key = filepath.Join(dir, "program"), filepath.Join(dir, "key")
	write(t, path, "an executable")
	if err := NewSigner(key); err != nil {
		t.Fatal(err)
	}
	if _, err := SignFile(path, key, 7, 3, false); err != nil {
		t.Fatal(err)
	}
	return path, key
}

func TestSignedProgram(t *testing.T) {
	path, key := signedProgram(t)
	program, err := MeasureFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p := open(t, filepath.Join(t.TempDir(), "sim"), 1, 1).Processor()
	m, err := p.Load(program, 7, 3)
	if err != nil {
		t.Fatal(err)
	}
	want := tee.Identity{Measurement: program.Measurement, Signer: SignerID(program.Signature.Signer), Product: 7, SVN: 3}
	if m.Identity() != want || want.Signer == SignerID(p.signer) {
		t.Errorf("Identity: got %+v, want %+v", m.Identity(), want)
	}
	for _, built := range [][2]uint16{{7, 2}, {7, 4}, {1, 3}} {
		if _, err := p.Load(program, built[0], built[1]); !errors.Is(err, tee.ErrIdentity) {
			t.Errorf("Load as %v: got %v, want ErrIdentity", built, err)
		}
	}
	write(t, path, "an executable, built again")
	if _, err := MeasureFile(path); !errors.Is(err, ErrSignature) {
		t.Errorf("a stale signature: got %v, want ErrSignature", err)
	}
	if _, err := SignFile(path, key, 7, 3, true); err != nil {
		t.Fatal(err)
	}
	program, err = MeasureFile(path)
	if err != nil {
		t.Fatal(err)
	}
	rebuilt, err := p.Load(program, 7, 3)
	if err != nil || rebuilt.Identity().Signer != want.Signer || !rebuilt.Identity().Debug {
		t.Errorf("signed again: got %+v, %v", rebuilt.Identity(), err)
	}
}

func TestWrongSignaturesAreRefused(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, path, key string){
		"other executable":    func(t *testing.T, path, _ string) { write(t, path, "another") },
		"new configuration":   func(t *testing.T, path, _ string) { write(t, path+EnvironmentSuffix, "A=1\n") },
		"empty signature":     func(t *testing.T, path, _ string) { write(t, path+SignatureSuffix, "") },
		"no signature at all": func(t *testing.T, path, _ string) { write(t, path+SignatureSuffix, "unsigned") },
		"one byte more": func(t *testing.T, path, _ string) {
			b, err := os.ReadFile(path + SignatureSuffix)
			if err != nil {
				t.Fatal(err)
			}
			write(t, path+SignatureSuffix, string(b)+"x")
		},
		"a directory": func(t *testing.T, path, _ string) {
			if err := errors.Join(os.Remove(path+SignatureSuffix), os.Mkdir(path+SignatureSuffix, 0o700)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		path, key := signedProgram(t)
		change(t, path, key)
		if _, err := MeasureFile(path); !errors.Is(err, ErrSignature) {
			t.Errorf("%s: got %v, want ErrSignature", name, err)
		}
	}
}

func TestEverySignedByteCounts(t *testing.T) {
	path, _ := signedProgram(t)
	b, err := os.ReadFile(path + SignatureSuffix)
	if err != nil || len(b) != signatureSize {
		t.Fatalf("got %d bytes, %v, want %d", len(b), err, signatureSize)
	}
	for i := range b {
		changed := bytes.Clone(b)
		changed[i] ^= 1
		if _, err := DecodeSignature(changed); !errors.Is(err, ErrSignature) {
			t.Errorf("byte %d changed: got %v, want ErrSignature", i, err)
		}
		if _, err := DecodeSignature(b[:i]); !errors.Is(err, ErrSignature) {
			t.Errorf("cut to %d: got %v, want ErrSignature", i, err)
		}
	}
}

func TestSigningRefuses(t *testing.T) {
	path, key := signedProgram(t)
	if err := NewSigner(key); !errors.Is(err, os.ErrExist) {
		t.Errorf("a second key in one file: got %v, want ErrExist", err)
	}
	if err := os.Chmod(key, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := SignFile(path, key, 1, 1, false); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Errorf("a key that others read: got %v", err)
	}
	short := filepath.Join(t.TempDir(), "short")
	write(t, short, "31 bytes are no key of thirtytwo")
	if err := os.Truncate(short, 31); err != nil {
		t.Fatal(err)
	}
	if _, err := SignFile(path, short, 1, 1, false); err == nil {
		t.Error("a key of 31 bytes signs")
	}
	if _, err := Sign(secret.New(make([]byte, 64)), [32]byte{}, 1, 1, false); err == nil {
		t.Error("a seed of 64 bytes signs")
	}
	for name, bad := range map[string]string{"missing": path + "-not-there", "directory": filepath.Dir(path)} {
		if _, err := MeasureFile(bad); !errors.Is(err, ErrProgram) {
			t.Errorf("%s: got %v, want ErrProgram", name, err)
		}
	}
}

func TestMeasuresOnlyWhatThePathLeadsTo(t *testing.T) {
	path, _ := signedProgram(t)
	exe, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	if _, err := Measure(exe, path); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if _, err := Measure(exe, path); !errors.Is(err, ErrProgram) {
		t.Errorf("the executable is gone: got %v, want ErrProgram", err)
	}
	write(t, path, "an executable")
	if _, err := Measure(exe, path); !errors.Is(err, ErrProgram) || !strings.Contains(err.Error(), "another file") {
		t.Errorf("a copy is in its place: got %v, want ErrProgram", err)
	}
	for _, size := range []int64{2, 4} {
		if _, err := measurement(strings.NewReader("abc"), size, nil); !errors.Is(err, ErrProgram) {
			t.Errorf("three bytes instead of %d: got %v, want ErrProgram", size, err)
		}
	}
}

func TestEnvironment(t *testing.T) {
	values, err := ParseEnvironment([]byte("A=1\n_b2==x y\nEMPTY=\n"))
	if err != nil || len(values) != 3 || values["A"] != "1" || values["_b2"] != "=x y" || values["EMPTY"] != "" {
		t.Errorf("got %q, %v", values, err)
	}
	if values, err := ParseEnvironment(nil); err != nil || len(values) != 0 {
		t.Errorf("nothing: got %q, %v", values, err)
	}
	for name, bad := range map[string]string{
		"no line end": "A=1", "blank line": "A=1\n\n", "comment": "# A=1\n", "no value": "A\n", "no name": "=1\n",
		"twice": "A=1\nA=2\n", "carriage return": "A=1\r\n", "NUL": "A=\x00\n", "space before": " A=1\n",
		"space after the name": "A =1\n", "digit first": "1A=1\n", "export": "export A=1\n", "not UTF-8": "A=\xff\n",
	} {
		if _, err := ParseEnvironment([]byte(bad)); !errors.Is(err, ErrEnvironment) {
			t.Errorf("%s: got %v, want ErrEnvironment", name, err)
		}
	}
	path := filepath.Join(t.TempDir(), "program")
	write(t, path, "an executable")
	write(t, path+EnvironmentSuffix, "A=1")
	if _, err := MeasureFile(path); !errors.Is(err, ErrEnvironment) {
		t.Errorf("a malformed file: got %v, want ErrEnvironment", err)
	}
	write(t, path+EnvironmentSuffix, "A="+strings.Repeat("x", maxEnvironment)+"\n")
	if _, err := MeasureFile(path); !errors.Is(err, ErrEnvironment) {
		t.Errorf("too long a file: got %v, want ErrEnvironment", err)
	}
}

func FuzzDecodeSignature(f *testing.F) {
	s, err := Sign(secret.New(bytes.Repeat([]byte{3}, 32)), [32]byte{1}, 1, 1, false)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(s.Append(nil))
	f.Add([]byte{signatureV1})
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := DecodeSignature(b)
		if err == nil && !bytes.Equal(s.Append(nil), b) {
			t.Error("the signature does not re-encode to the bytes it came from")
		}
		if err != nil && !errors.Is(err, ErrSignature) {
			t.Errorf("got %v, want ErrSignature", err)
		}
	})
}

func FuzzParseEnvironment(f *testing.F) {
	f.Add([]byte("A=1\nB=\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		values, err := ParseEnvironment(b)
		if err == nil && len(values) != bytes.Count(b, []byte("\n")) {
			t.Errorf("%d values of %q", len(values), b)
		}
	})
}
