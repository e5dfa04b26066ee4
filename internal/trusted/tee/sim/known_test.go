package sim

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// RFC 4493, section 4.
func TestCMACKnownAnswers(t *testing.T) {
	key := [16]byte(unhex(t, "2b7e151628aed2a6abf7158809cf4f3c"))
	message := unhex(t, "6bc1bee22e409f96e93d7e117393172aae2d8a571e03ac9c9eb76fac45af8e51"+
		"30c81c46a35ce411e5fbc1191a0a52eff69f2445df4f9b17ad2b417be66c3710")
	for size, want := range map[int]string{
		0:  "bb1d6929e95937287fa37d129b756746",
		16: "070a16b46b4d4144f79bdd9dd04a287c",
		40: "dfa66747de9ae63030ca32611497c827",
		64: "51f0bebf7e3b9d92fc49741779363cfe",
	} {
		if got := cmac(key, message[:size]); hex.EncodeToString(got[:]) != want {
			t.Errorf("%d bytes: got %x, want %s", size, got, want)
		}
	}
}

// Made with Python's hashlib from docs/formats.md. A failure here means that
// stored seals are lost, or that signatures have to be made again.
func TestMeasurementKnownAnswers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "program")
	write(t, path, "an executable")
	for _, row := range []struct{ environment, want string }{
		{"", "1a2cbd01c42efd9c09e819f8c42f54c07489516b5f66a46066f39632a3d8645d"},
		{"A=1\nB=\n", "a2f13631dcbd9515b73dda3448e5d58b43806e36be3f8d35c1021e31ff1832fa"},
	} {
		if row.environment != "" {
			write(t, path+EnvironmentSuffix, row.environment)
		}
		p, err := MeasureFile(path)
		if err != nil || hex.EncodeToString(p.Measurement[:]) != row.want || p.Signature != nil {
			t.Errorf("environment %q: got %x, %v, want %s", row.environment, p.Measurement, err, row.want)
		}
	}
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	if got := SignerID(key); hex.EncodeToString(got[:]) != "8c6d0998cd2650b95d48ec983282c014d08d052600413a5ab3d3c5da1c4d817c" {
		t.Errorf("SignerID: got %x", got)
	}
}

func write(t testing.TB, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fixed is a program on a processor whose keys are known.
func fixed(debug bool) *Machine {
	return &Machine{p: &Processor{fuse: secret.New(bytes.Repeat([]byte{7}, 32))}, id: tee.Identity{
		Measurement: [32]byte(bytes.Repeat([]byte{10}, 32)), Signer: [32]byte(bytes.Repeat([]byte{11}, 32)),
		Product: 1, SVN: 2, Debug: debug,
	}}
}

// Made with Python's hmac from docs/formats.md. A failure here means that stored
// seals are lost.
func TestSealKeyKnownAnswers(t *testing.T) {
	for _, row := range []struct {
		name   string
		policy tee.Policy
		debug  bool
		want   string
	}{
		{"signer", tee.BindSigner, false, "64abb06ba9e6a6d9cd3f62e1904b9af2469c62c48690bc5d15ca0009cabc4ac3"},
		{"measured", tee.BindMeasured, false, "c53223c8217b1546e40b578c2fe5da232475e1532d643804192f611f48460397"},
		{"signer, debug", tee.BindSigner, true, "556dcbb16a2def89e662eed63307bf094186a2f78020a765b32ec44ddfe7fe57"},
	} {
		q := tee.KeyRequest{Policy: row.policy, SVN: 2, KeyID: [32]byte(bytes.Repeat([]byte{1}, 32))}
		if got := sealKey(t, fixed(row.debug), q); hex.EncodeToString([]byte(got)) != row.want {
			t.Errorf("%s: got %x, want %s", row.name, got, row.want)
		}
	}
}

// Made with Python's hmac and `openssl mac -cipher AES-128-CBC CMAC`.
func TestReportMACKnownAnswer(t *testing.T) {
	m := fixed(false)
	target, err := m.Target()
	if err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("0a", 32) + "0500000000000000" + "0700000000000000" + strings.Repeat("00", 464); hex.EncodeToString(target) != want {
		t.Errorf("Target: got %x", target)
	}
	body := make([]byte, 384)
	for i := range body {
		body[i] = byte(i % 251)
	}
	mac, err := m.p.reportMAC(target, [32]byte(bytes.Repeat([]byte{1}, 32)), body)
	if err != nil || hex.EncodeToString(mac[:]) != "87c6dc0b2e07036a23eaedef0b83ab16" {
		t.Errorf("reportMAC: got %x, %v", mac, err)
	}
}
