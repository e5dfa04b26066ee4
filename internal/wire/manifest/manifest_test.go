package manifest

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

var made = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// key is a person's, the same in every run.
func key(n byte) ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{n}, ed25519.SeedSize))
}

func person(name string, n byte) Person { return Person{name, key(n).Public().(ed25519.PublicKey)} }

func custodian(name string, n byte) Person {
	return Person{name, bytes.Repeat([]byte{n}, Custodian.KeySize())}
}

// draft is of a domain in production, of which two of three operators decide.
func draft() *Draft {
	s := Defaults(Production)
	s.Limits = Limits{} // the released files are from before there were any
	s.Code = []Code{
		{Role: RoleCore, MRSigner: Hash{1}, Product: 1, MinSVN: 2},
		{Role: RoleDKeyServer, MREnclave: Hash{3}},
	}
	s.Platforms = []Platform{{Name: "node 1", PPID: PPID{1}}, {Name: "node 2", Serial: "0a1b"}}
	s.Accept = []genesis.Acceptance{{Status: "SWHardeningNeeded", Advisory: "INTEL-SA-00615", Reason: "the core does no MMIO <&>"}}
	s.MinEvaluation = 17
	s.DisabledPaddings = []api.PaddingMode{api.PKCS1}
	s.DisabledKeySpecs = []api.KeySpec{api.ECP224}
	return &Draft{DraftFormat, Terms{
		Root: Seal, Administrator: person("admin", 9), Settings: s,
		Operators:  Quorum{2, []Person{person("alice", 1), person("bob", 2), person("carol", 3)}},
		Custodians: &Quorum{1, []Person{custodian("dave", 4), custodian("erin", 5)}},
	}}
}

func recovery() *Recovery {
	return &Recovery{PublicKey: bytes.Repeat([]byte{6}, 1216), Commitment: bytes.Repeat([]byte{7}, 32)}
}

// endorsed is another recovery key, for q, that a TEE of the domain has made.
func endorsed(s *State, q *Quorum, n byte) *Recovery {
	r := &Recovery{PublicKey: bytes.Repeat([]byte{n}, 1216), Commitment: bytes.Repeat([]byte{n}, 32*q.Threshold)}
	r.Endorsement = ed25519.Sign(key(8), EndorsedText(s.Domain, r, q))
	return r
}

// first is the genesis of draft.
func first() *Manifest {
	return draft().Complete(key(8).Public().(ed25519.PublicKey), recovery(), made.Add(678*time.Millisecond))
}

// signed returns the file of m with the signatures of keys.
func signed(t testing.TB, m *Manifest, keys ...byte) []byte {
	t.Helper()
	for _, n := range keys {
		if err := m.Sign(key(n)); err != nil {
			t.Fatal(err)
		}
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// begin returns the state of a domain after its genesis.
func begin(t testing.TB) *State {
	t.Helper()
	s, err := Open(signed(t, first(), 1, 2))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// follow returns a manifest that follows s, with a change.
func follow(t testing.TB, s *State, change func(*Statement)) *Manifest {
	t.Helper()
	m, err := s.Follow(s.Date.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	if change != nil {
		change(&m.Statement)
	}
	return m
}

// openChain verifies a genesis and later manifests.
func openChain(first []byte, later ...[]byte) (*State, error) {
	s, err := Open(first)
	for _, file := range later {
		if err == nil {
			s, err = s.Next(file, time.Time{})
		}
	}
	return s, err
}

// released is a chain that was written once, with the hashes that it has for
// good. Add chains, never change one: a failure here gives domains other ids.
var released = []struct{ file, hash string }{
	{"genesis.json", "3e3790125616829a1ffba967d9f85cf28b70237c79dee40a64ecf727ca035243"},
	{"manifest-2.json", "98d5e9cb18aea1358dae0dd499824e30474bd60d44747520d16f9d814cb6d548"},
	{"manifest-4.json", "b7831b5d0306654940b435457cc54696c19576219bd45f850b3ae0352e76c0cc"},
}

// releasedChain is how the files were made.
func releasedChain(t testing.TB) [][]byte {
	files := [][]byte{signed(t, first(), 3, 1)}
	s, err := Open(files[0])
	if err != nil {
		t.Fatal(err)
	}
	rotated := follow(t, s, func(n *Statement) {
		n.Operators = Quorum{1, []Person{person("bob", 2), person("frank", 10)}}
	})
	files = append(files, signed(t, rotated, 1, 2))
	if s, err = s.Next(files[1], made.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	last := follow(t, s, func(n *Statement) { n.Version, n.Settings.AnyPlatform, n.Settings.Platforms = 4, true, nil })
	return append(files, signed(t, last, 10))
}

func TestReleasedChain(t *testing.T) {
	made := releasedChain(t)
	var files [][]byte
	for i, r := range released {
		path := filepath.Join("testdata", r.file)
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(b, made[i]) {
			t.Errorf("%s: the code writes something else: %s", r.file, made[i])
		}
		m, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		if got := m.Hash().String(); got != r.hash {
			t.Errorf("%s: got hash %s, want %s", r.file, got, r.hash)
		}
		files = append(files, b)
	}
	s, err := openChain(files[0], files[1:]...)
	if err != nil {
		t.Fatal(err)
	}
	if s.Domain.String() != released[0].hash || s.Version != 4 || !s.Settings.AnyPlatform || !s.Date.Equal(time.Date(2026, 1, 2, 5, 4, 5, 0, time.UTC)) {
		t.Errorf("got %+v", s)
	}
}

// TestHashIsOfTheFile computes the domain id as another implementation would.
func TestHashIsOfTheFile(t *testing.T) {
	m := first()
	b := signed(t, m, 1)
	begin := bytes.Index(b, []byte(`"statement": `)) + len(`"statement": `)
	end := bytes.Index(b, []byte("},\n  \"signatures\""))
	if sum := sha256.Sum256(b[begin : end+1]); m.Hash() != sum {
		t.Errorf("got %s, want %x", m.Hash(), sum)
	}
	if want := "ehsm/manifest-signature/v1\x00" + string(m.state().Hash[:]); string(m.SignedText()) != want {
		t.Errorf("SignedText: got %q, want %q", m.SignedText(), want)
	}
	before := m.Hash()
	if signed(t, m, 2); m.Hash() != before {
		t.Error("a signature changes the domain id")
	}
}

// TestV1 has a genesis from before there were manifests: the id stays.
func TestV1(t *testing.T) {
	path := filepath.Join("..", "genesis", "testdata", "before-attestation.json")
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	g, id, err := genesis.Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func([]byte) (*State, error){
		"Open": Open, "Trust": Trust,
	} {
		s, err := open(b)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if s.Domain != id || s.Version != 1 || !s.Date.Equal(g.Created) || !bytes.Equal(s.DomainKey, g.DomainKey) ||
			s.Settings.AllowSim != g.AllowSim || s.Settings.PlainEnrollment() != g.OpenEnrollment || s.Settings.Window() != g.Window() ||
			!reflect.DeepEqual(s.Settings.TrustRoots, []string{IntelSGX}) || s.Settings.Mode != Development {
			t.Errorf("%s: got %+v of %+v", name, s, g)
		}
		if err := s.Settings.validate(); err != nil {
			t.Errorf("%s: its settings are none: %v", name, err)
		}
		if _, err := s.Follow(made); !errors.Is(err, ErrFinal) {
			t.Errorf("%s: Follow: got %v, want ErrFinal", name, err)
		}
		m := follow(t, begin(t), nil)
		m.Statement.Domain, m.Statement.Previous = Hash(id), s.Hash
		if _, err := s.Next(signed(t, m, 1, 2), made); !errors.Is(err, ErrFinal) {
			t.Errorf("%s: Next: got %v, want ErrFinal", name, err)
		}
	}
	g.Attestation = &genesis.Attestation{Accept: draft().Settings.Accept, MinEvaluation: 3}
	g.OpenEnrollment = true
	if b, err = g.Encode(); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(b); err != nil || len(s.Settings.Accept) != 1 || s.Settings.MinEvaluation != 3 || !s.Settings.PlainEnrollment() {
		t.Errorf("got %+v, %v", s, err)
	}
	for name, b := range map[string][]byte{"edited": append(b, ' '), "extended": bytes.Replace(b, []byte("{\n"), []byte("{\n  \"version\": 1,\n"), 1)} {
		if _, err := Open(b); !errors.Is(err, genesis.ErrInvalid) {
			t.Errorf("%s: got %v, want genesis.ErrInvalid", name, err)
		}
	}
}

func TestThrowAway(t *testing.T) {
	d, operator, err := ThrowAway(Defaults(Development))
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if again, err := ParseDraft(b); err != nil || !reflect.DeepEqual(again, d) {
		t.Errorf("ParseDraft: got %+v, %v", again, err)
	}
	m := d.Complete(key(8).Public().(ed25519.PublicKey), nil, made)
	if err := m.Sign(operator); err != nil {
		t.Fatal(err)
	}
	if s, err := Open(signed(t, m)); err != nil || !s.Settings.AllowSim || !s.Settings.PlainEnrollment() {
		t.Errorf("Open: got %+v, %v", s, err)
	}
}

// TestHSMRoot has the settings of a domain whose root is an HSM. A domain that does
// not say so is encoded as before there was the setting.
func TestHSMRoot(t *testing.T) {
	d, _, err := ThrowAway(Defaults(Development))
	if err != nil {
		t.Fatal(err)
	}
	d.Root = HSM
	for _, without := range []bool{false, true} {
		d.Settings.HSMWithoutTEE = without
		b, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got := bytes.Contains(b, []byte(`"hsmWithoutTEE": true`)); got != without {
			t.Errorf("hsmWithoutTEE %v: encoded as %s", without, b)
		}
		if again, err := ParseDraft(b); err != nil || !reflect.DeepEqual(again, d) {
			t.Errorf("hsmWithoutTEE %v: got %+v, %v", without, again, err)
		}
	}
}

// TestRecoveryFollowsCustodians rotates both, which is the only way.
func TestRecoveryFollowsCustodians(t *testing.T) {
	s := begin(t)
	m := follow(t, s, func(n *Statement) {
		n.Custodians = &Quorum{1, []Person{custodian("dave", 4)}}
		n.Recovery = endorsed(s, n.Custodians, 8)
	})
	if _, err := s.Next(signed(t, m, 1, 2), made); err != nil {
		t.Error(err)
	}
	without := first()
	without.Statement.Recovery = nil
	if s, err := Open(signed(t, without, 1, 2)); err != nil {
		t.Error(err)
	} else if _, err := s.Next(signed(t, follow(t, s, func(n *Statement) { n.Recovery = endorsed(s, n.Custodians, 8) }), 1, 2), made); err != nil {
		t.Errorf("a first recovery key: %v", err)
	} else if _, err := s.Next(signed(t, follow(t, s, func(n *Statement) { n.Recovery = recovery() }), 1, 2), made); !errors.Is(err, ErrEndorsed) {
		t.Errorf("a first recovery key that nobody endorses: got %v", err)
	} else if _, err := s.Next(signed(t, follow(t, s, func(n *Statement) { n.Custodians = nil }), 1, 2), made); err != nil {
		t.Error(err)
	}
}

// TestEndorsedText compares what a TEE signs with the layout in docs/formats.md.
func TestEndorsedText(t *testing.T) {
	r := &Recovery{PublicKey: []byte{1, 2}, Commitment: []byte{3}, Digests: []byte{9}}
	q := &Quorum{2, []Person{{"a", []byte{4}}, {"bc", []byte{5, 6}}}}
	want := "6568736d2f7265636f766572792d656e646f7273656d656e742f763100" + strings.Repeat("07", 32) +
		"00000002" + "0102" + "00000001" + "03" + "00000001" + "09" + "00000002" + "00000001" + "61" + "00000001" + "04" + "00000002" + "6263" + "00000002" + "0506"
	if got := fmt.Sprintf("%x", EndorsedText([32]byte(bytes.Repeat([]byte{7}, 32)), r, q)); got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

func TestSignInPlace(t *testing.T) {
	m := first()
	if signed(t, m, 1, 2, 3, 1); len(m.Signatures) != 3 {
		t.Errorf("got %d signatures, want 3", len(m.Signatures))
	}
	other, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if err := m.Sign(other); err == nil {
		t.Error("Sign: an ECDSA key signs")
	}
}

// TestFollowBehindTheClock has operators whose clock is slow.
func TestFollowBehindTheClock(t *testing.T) {
	s := begin(t)
	m, err := s.Follow(s.Date.Add(-time.Hour))
	if err != nil || !m.Statement.Date.Equal(s.Date) || m.Statement.Version != 2 {
		t.Errorf("got %+v, %v", m, err)
	}
}

func TestPublicText(t *testing.T) {
	p := person("alice", 1)
	const want = "ehsm-operator-v1 alice iojj3XQJ8ZX9UtstPLpdcspnCb8dlBIb83SIAbQPb1w=\n"
	if got := p.PublicText(Operator); got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	for _, d := range Duties() {
		p := Person{"a", bytes.Repeat([]byte{1}, d.KeySize())}
		got, duty, err := ParsePublic([]byte(p.PublicText(d)))
		if err != nil || duty != d || !reflect.DeepEqual(got, p) {
			t.Errorf("%s: got %+v, %s, %v", d, got, duty, err)
		}
	}
	for name, text := range map[string]string{
		"empty":           "",
		"one word":        "ehsm-operator-v1\n",
		"two words":       "ehsm-operator-v1 alice\n",
		"no line feed":    strings.TrimSuffix(want, "\n"),
		"two line feeds":  want + "\n",
		"two lines":       want + want,
		"carriage return": strings.TrimSuffix(want, "\n") + "\r\n",
		"secret key":      strings.Replace(want, "operator", "operator-secret", 1),
		"unknown duty":    strings.Replace(want, "operator", "king", 1),
		"another version": strings.Replace(want, "v1", "v2", 1),
		"wrong size":      strings.Replace(want, "operator", "custodian", 1),
		"odd name":        strings.Replace(want, "alice", "al/ce", 1),
		"no name":         strings.Replace(want, "alice", "", 1),
		"two names":       strings.Replace(want, "alice", "alice b", 1),
		"no base64":       strings.Replace(want, "iojj", "io-j", 1),
		"loose base64":    strings.Replace(want, "b1w=", "b1x=", 1),
		"zeros":           Person{"alice", make([]byte, 32)}.PublicText(Operator),
		"endless":         want + strings.Repeat("a", 5000),
	} {
		if _, _, err := ParsePublic([]byte(text)); !errors.Is(err, ErrInvalid) {
			t.Errorf("%s: got %v, want ErrInvalid", name, err)
		}
	}
}

func TestHex(t *testing.T) {
	var h Hash
	if err := h.UnmarshalText([]byte(hex.EncodeToString(h[:]) + "00")); err == nil {
		t.Error("a long hash is accepted")
	}
	if err := h.UnmarshalText(bytes.Repeat([]byte("g"), 64)); err == nil {
		t.Error("a hash of other digits is accepted")
	}
	if got := (PPID{0xab}).String(); got != "ab"+strings.Repeat("0", 30) {
		t.Errorf("got %s", got)
	}
}
