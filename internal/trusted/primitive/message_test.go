package primitive

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	_ "embed"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// Ciphertexts of released versions. Add lines, never change one: a failure here
// means stored ciphertexts can no longer be opened.
//
//go:embed testdata/messages.json
var released []byte

// hexBytes is a byte string written in hexadecimal in a JSON file.
type hexBytes []byte

func (h *hexBytes) UnmarshalText(text []byte) (err error) {
	*h, err = hex.DecodeString(string(text))
	return err
}

type message struct {
	Name, Spec                                          string
	Material, KeyID, Random, AAD, Plaintext, Ciphertext hexBytes
	Version                                             uint32
}

func releasedMessages(t testing.TB) []message {
	t.Helper()
	var file struct{ Messages []message }
	if err := json.Unmarshal(released, &file); err != nil {
		t.Fatal(err)
	}
	if len(file.Messages) == 0 {
		t.Fatal("testdata/messages.json has no messages")
	}
	return file.Messages
}

func (m message) open(t testing.TB) *Symmetric {
	t.Helper()
	spec, ok := ParseSpec(m.Spec)
	if !ok {
		t.Fatalf("%s: unknown spec", m.Name)
	}
	s, err := NewSymmetric(spec, secret.Copy(m.Material), [16]byte(m.KeyID), m.Version)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// sealWith encrypts with a chosen random field.
func sealWith(t testing.TB, s *Symmetric, random, plaintext, aad []byte) []byte {
	t.Helper()
	d := s.derivers.Get().(*deriver)
	defer s.put(d)
	copy(d.header(), s.prefix[:])
	if copy(d.header()[prefixLen:], random) != randomLen {
		t.Fatal("random field too short")
	}
	out, err := s.seal(nil, d, plaintext, aad)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func TestReleasedMessages(t *testing.T) {
	seen := map[string]bool{}
	for _, m := range releasedMessages(t) {
		t.Run(m.Name, func(t *testing.T) {
			s := m.open(t)
			got, err := s.Decrypt(nil, m.Ciphertext, m.AAD)
			if err != nil || !bytes.Equal(got, m.Plaintext) {
				t.Errorf("Decrypt: got %x, %v, want %x", got, err, m.Plaintext)
			}
			if got := sealWith(t, s, m.Random, m.Plaintext, m.AAD); !bytes.Equal(got, m.Ciphertext) {
				t.Errorf("seal: got %x, want %x", got, m.Ciphertext)
			}
			if got := s.CiphertextLen(len(m.Plaintext)); got != len(m.Ciphertext) {
				t.Errorf("CiphertextLen: got %d, want %d", got, len(m.Ciphertext))
			}
		})
		seen[m.Spec] = true
	}
	for s := range Spec(len(specs)) {
		if s.Symmetric() && !seen[s.String()] {
			t.Errorf("no released ciphertext of %s", s)
		}
	}
}

// plainKeys is the derivation of the layout in one straight line, by the
// standard library alone.
func plainKeys(t *testing.T, m message, n int) []byte {
	t.Helper()
	spec, _ := ParseSpec(m.Spec)
	version := binary.BigEndian.AppendUint32(nil, m.Version)
	info := slices.Concat([]byte("ehsm/message/v1\x00"), []byte{byte(spec)}, m.KeyID, version)
	prk, err := hkdf.Extract(sha256.New, m.Material, nil)
	if err != nil {
		t.Fatal(err)
	}
	kmsg, err := hkdf.Expand(sha256.New, prk, string(info), 32)
	if err != nil {
		t.Fatal(err)
	}
	header := slices.Concat([]byte{1}, m.KeyID, version, m.Random)
	okm, err := hkdf.Expand(sha256.New, kmsg, string(header), n)
	if err != nil {
		t.Fatal(err)
	}
	return okm
}

func TestDerivationStepByStep(t *testing.T) {
	for _, m := range releasedMessages(t) {
		if !strings.HasPrefix(m.Spec, "EH_AES") {
			continue
		}
		okm := plainKeys(t, m, 32+len(m.Material))
		if got := m.Ciphertext[45:77]; !bytes.Equal(got, okm[:32]) {
			t.Errorf("%s: commitment: got %x, want %x", m.Name, got, okm[:32])
		}
		block, err := aes.NewCipher(okm[32:])
		if err != nil {
			t.Fatal(err)
		}
		gcm, err := cipher.NewGCM(block)
		if err != nil {
			t.Fatal(err)
		}
		if got := gcm.Seal(nil, m.Random[12:], m.Plaintext, m.AAD); !bytes.Equal(got, m.Ciphertext[77:]) {
			t.Errorf("%s: body: got %x, want %x", m.Name, m.Ciphertext[77:], got)
		}
	}
}

// refused fails unless Decrypt gives the one error, itself, and no bytes.
func refused(t *testing.T, what string, s *Symmetric, ciphertext, aad []byte) {
	t.Helper()
	if got, err := s.Decrypt(nil, ciphertext, aad); err != ErrDecrypt || got != nil {
		t.Errorf("%s: got %x, %v, want ErrDecrypt itself", what, got, err)
	}
}

func TestDecryptRefuses(t *testing.T) {
	for _, m := range releasedMessages(t) {
		t.Run(m.Name, func(t *testing.T) {
			s := m.open(t)
			for i := range m.Ciphertext {
				for _, bit := range []byte{0x01, 0x80} {
					bad := bytes.Clone(m.Ciphertext)
					bad[i] ^= bit
					refused(t, fmt.Sprintf("byte %d, bit %#x", i, bit), s, bad, m.AAD)
				}
				refused(t, fmt.Sprintf("cut to %d", i), s, m.Ciphertext[:i], m.AAD)
			}
			refused(t, "a byte more", s, append(bytes.Clone(m.Ciphertext), 0), m.AAD)
			refused(t, "a block more", s, append(bytes.Clone(m.Ciphertext), make([]byte, 16)...), m.AAD)
			refused(t, "nothing", s, nil, m.AAD)
			refused(t, "zeros", s, make([]byte, len(m.Ciphertext)), m.AAD)
			refused(t, "longer aad", s, m.Ciphertext, append(bytes.Clone(m.AAD), 0))
			refused(t, "huge aad", s, m.Ciphertext, make([]byte, MaxAAD+1))
			refused(t, "huge ciphertext", s, make([]byte, MaxPlaintext+MaxOverhead+1), nil)
			if len(m.AAD) > 0 {
				refused(t, "no aad", s, m.Ciphertext, nil)
				refused(t, "shorter aad", s, m.Ciphertext, m.AAD[1:])
			}
		})
	}
}

// A key that differs in one respect refuses the ciphertext, also when the
// header is rewritten to name that key.
func TestDecryptRefusesOtherKeys(t *testing.T) {
	others := []struct {
		name   string
		change func(*message)
	}{
		{"material", func(m *message) { m.Material[0] ^= 1 }},
		{"key id", func(m *message) { m.KeyID[15] ^= 1 }},
		{"version up", func(m *message) { m.Version++ }},
		{"version down", func(m *message) { m.Version-- }},
	}
	for _, m := range releasedMessages(t) {
		for _, o := range others {
			other := m
			other.Material, other.KeyID = bytes.Clone(m.Material), bytes.Clone(m.KeyID)
			o.change(&other)
			s := other.open(t)
			refused(t, m.Name+": other "+o.name, s, m.Ciphertext, m.AAD)
			bad := append(bytes.Clone(s.prefix[:]), m.Ciphertext[prefixLen:]...)
			refused(t, m.Name+": relabeled, other "+o.name, s, bad, m.AAD)
		}
	}
}

// Specs with keys of one length must not open each other's ciphertexts.
func TestDecryptRefusesOtherSpecs(t *testing.T) {
	for _, m := range releasedMessages(t) {
		for spec := range Spec(len(specs)) {
			if spec.Symmetric() && spec.String() != m.Spec && spec.MaterialLen() == len(m.Material) {
				s, err := NewSymmetric(spec, secret.Copy(m.Material), [16]byte(m.KeyID), m.Version)
				if err != nil {
					t.Fatal(err)
				}
				refused(t, m.Name+" as "+spec.String(), s, m.Ciphertext, m.AAD)
			}
		}
	}
}

// A failure must also not write what it refused into the caller's buffer.
func TestDecryptLeavesNoPlaintext(t *testing.T) {
	for _, m := range releasedMessages(t) {
		if len(m.Plaintext) < 16 {
			continue
		}
		for name, at := range map[string]int{"commitment": HeaderLen, "tag": len(m.Ciphertext) - 1} {
			bad := bytes.Clone(m.Ciphertext)
			bad[at] ^= 1
			buf := make([]byte, 0, 1024)
			if _, err := m.open(t).Decrypt(buf, bad, m.AAD); err != ErrDecrypt {
				t.Fatalf("%s, wrong %s: got %v, want ErrDecrypt", m.Name, name, err)
			}
			if bytes.Contains(buf[:cap(buf)], m.Plaintext[:16]) {
				t.Errorf("%s: a wrong %s left plaintext in the buffer", m.Name, name)
			}
		}
	}
}

func symmetricSpecs() (list []Spec) {
	for s := range Spec(len(specs)) {
		if s.Symmetric() {
			list = append(list, s)
		}
	}
	return list
}

func newSymmetric(t testing.TB, spec Spec) *Symmetric {
	t.Helper()
	material, err := NewMaterial(spec)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSymmetric(spec, material, [16]byte{1, 2, 3}, 7)
	if err != nil {
		t.Fatal(err)
	}
	material.Zero() // must not matter any more
	return s
}

func TestEncryptRoundTrip(t *testing.T) {
	for _, spec := range symmetricSpecs() {
		s := newSymmetric(t, spec)
		for _, n := range []int{0, 1, 15, 16, 17, 31, 32, 33, 255, 6144} {
			plaintext, aad := bytes.Repeat([]byte{0xa5}, n), make([]byte, n%6143)
			prefix := []byte("kept")
			c, err := s.Encrypt(prefix, plaintext, aad)
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", spec, n, err)
			}
			if string(c[:4]) != "kept" || len(c)-4 != s.CiphertextLen(n) || len(c)-4 > n+MaxOverhead {
				t.Errorf("%s, %d bytes: got %d bytes after %q", spec, n, len(c)-4, c[:4])
			}
			id, version, ok := PeekVersion(c[4:])
			if !ok || id != [16]byte{1, 2, 3} || version != 7 {
				t.Errorf("%s: PeekVersion: got %x, %d, %v", spec, id, version, ok)
			}
			got, err := s.Decrypt(prefix, c[4:], aad)
			if err != nil || !bytes.Equal(got, append([]byte("kept"), plaintext...)) {
				t.Errorf("%s, %d bytes: Decrypt: got %x, %v", spec, n, got, err)
			}
		}
	}
}

func TestEncryptIsRandomized(t *testing.T) {
	for _, spec := range symmetricSpecs() {
		s := newSymmetric(t, spec)
		a, _ := s.Encrypt(nil, []byte("same"), nil)
		b, _ := s.Encrypt(nil, []byte("same"), nil)
		for name, span := range map[string][2]int{"random": {prefixLen, HeaderLen}, "commitment": {HeaderLen, HeaderLen + CommitmentLen}, "body": {HeaderLen + CommitmentLen, len(a)}} {
			if bytes.Equal(a[span[0]:span[1]], b[span[0]:span[1]]) {
				t.Errorf("%s: two ciphertexts share the %s", spec, name)
			}
		}
	}
}

func TestEncryptBounds(t *testing.T) {
	for _, spec := range symmetricSpecs() {
		s := newSymmetric(t, spec)
		for name, in := range map[string][2]int{"plaintext": {MaxPlaintext + 1, 0}, "aad": {0, MaxAAD + 1}} {
			if c, err := s.Encrypt(nil, make([]byte, in[0]), make([]byte, in[1])); !errors.Is(err, ErrParameter) || c != nil {
				t.Errorf("%s: %s too long: got %d bytes, %v, want ErrParameter", spec, name, len(c), err)
			}
		}
		c, err := s.Encrypt(nil, make([]byte, MaxPlaintext), nil)
		if err != nil {
			t.Fatal(err)
		}
		if p, err := s.Decrypt(nil, c, nil); err != nil || len(p) != MaxPlaintext {
			t.Errorf("%s: longest plaintext: got %d bytes, %v", spec, len(p), err)
		}
	}
}

func TestNewSymmetricRefuses(t *testing.T) {
	for spec := range Spec(len(specs) + 1) {
		for n := range 40 {
			_, err := NewSymmetric(spec, secret.New(make([]byte, n)), [16]byte{}, 1)
			want := error(nil)
			switch {
			case !spec.Symmetric():
				want = ErrUsage
			case n != spec.MaterialLen():
				want = ErrMaterial
			}
			if !errors.Is(err, want) {
				t.Errorf("NewSymmetric(%s, %d bytes): got %v, want %v", spec, n, err, want)
			}
		}
	}
}

func TestSymmetricIsConcurrent(t *testing.T) {
	for _, spec := range symmetricSpecs() {
		s := newSymmetric(t, spec)
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				for i := range 50 {
					want := bytes.Repeat([]byte{byte(g)}, i)
					c, err := s.Encrypt(nil, want, nil)
					if err != nil {
						t.Error(err)
					}
					if got, err := s.Decrypt(nil, c, nil); err != nil || !bytes.Equal(got, want) {
						t.Errorf("%s: got %x, %v, want %x", spec, got, err, want)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestPeekVersionRefuses(t *testing.T) {
	c := releasedMessages(t)[0].Ciphertext
	for name, bad := range map[string][]byte{
		"nothing": nil, "short": c[:HeaderLen+CommitmentLen+gcmTagLen-1],
		"format 0": append([]byte{0}, c[1:]...), "format 2": append([]byte{2}, c[1:]...),
	} {
		if id, version, ok := PeekVersion(bad); ok || version != 0 || id != [16]byte{} {
			t.Errorf("%s: got %x, %d, %v, want nothing", name, id, version, ok)
		}
	}
}

// FuzzDecrypt gives Decrypt hostile ciphertexts. Whatever opens must be exactly
// what encrypting its plaintext under its own random field gives.
func FuzzDecrypt(f *testing.F) {
	for _, m := range releasedMessages(f) {
		f.Add([]byte(m.Ciphertext), []byte(m.AAD))
	}
	f.Add([]byte{messageV1}, []byte{})
	keys := map[string]*Symmetric{}
	for _, m := range releasedMessages(f) {
		keys[m.Name] = m.open(f)
	}
	f.Fuzz(func(t *testing.T, ciphertext, aad []byte) {
		for name, s := range keys {
			got, err := s.Decrypt(nil, ciphertext, aad)
			if err != nil {
				if err != ErrDecrypt {
					t.Errorf("%s: got %v, want ErrDecrypt", name, err)
				}
				continue
			}
			if again := sealWith(t, s, ciphertext[prefixLen:HeaderLen], got, aad); !bytes.Equal(again, ciphertext) {
				t.Errorf("%s: opened %x, which is written %x", name, ciphertext, again)
			}
		}
	})
}

func BenchmarkEncrypt(b *testing.B) {
	for _, spec := range symmetricSpecs() {
		for _, n := range []int{32, 6144} {
			b.Run(fmt.Sprintf("%s/%d", spec, n), func(b *testing.B) {
				s, p := newSymmetric(b, spec), make([]byte, n)
				b.ReportAllocs()
				for b.Loop() {
					s.Encrypt(nil, p, nil)
				}
			})
		}
	}
}

func BenchmarkDecrypt(b *testing.B) {
	for _, spec := range symmetricSpecs() {
		for _, n := range []int{32, 6144} {
			b.Run(fmt.Sprintf("%s/%d", spec, n), func(b *testing.B) {
				s := newSymmetric(b, spec)
				c, err := s.Encrypt(nil, make([]byte, n), nil)
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					s.Decrypt(nil, c, nil)
				}
			})
		}
	}
}

func BenchmarkNewSymmetric(b *testing.B) {
	material := secret.New(make([]byte, 32))
	b.ReportAllocs()
	for b.Loop() {
		NewSymmetric(AESGCM256, material, [16]byte{}, 1)
	}
}
