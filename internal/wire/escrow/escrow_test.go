package escrow

import (
	"bytes"
	"crypto"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func rep(b byte, n int) []byte { return bytes.Repeat([]byte{b}, n) }

func sampleEscrow() *Escrow {
	return &Escrow{
		Domain: [32]byte(rep(1, 32)), Manifest: 2, Date: time.Unix(0x6553f100, 0).UTC(), Key: [32]byte(rep(3, 32)),
		Versions: []uint32{1, 3}, Sealed: rep(4, overhead+1), Signature: rep(5, 64),
	}
}

func sampleShare() *Share {
	return &Share{Domain: [32]byte(rep(1, 32)), Key: [32]byte(rep(3, 32)), Index: 2, Threshold: 2, Members: 3, Custodian: "erin", Sealed: rep(6, sealedShare)}
}

func sampleAnswer() *Answer {
	return &Answer{Domain: [32]byte(rep(1, 32)), Session: [32]byte(rep(7, 32)), Index: 2, Custodian: "erin", Sealed: rep(8, sealedShare)}
}

func sampleBackup() *Backup {
	return &Backup{Manifests: [][]byte{{1}, {2, 3}}, Escrow: []byte{4}, Shares: [][]byte{{5}}}
}

func sampleRequest() *Request {
	return &Request{Backup: [32]byte(rep(1, 32)), Manifests: [][]byte{{2}}, Session: [keySize]byte(rep(3, keySize)), Evidence: []byte{4}, Collateral: []byte{5, 6}}
}

// TestLayouts compares encodings with docs/formats.md.
func TestLayouts(t *testing.T) {
	unhex := func(parts ...string) string {
		b, err := hex.DecodeString(strings.Join(parts, ""))
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	x := func(b byte, n int) string { return hex.EncodeToString(rep(b, n)) }
	escrowHead := unhex(x(1, 32), "0000000000000002", "000000006553f100", x(3, 32), "00000002", "00000001", "00000003")
	backup := unhex("00000002", "0000000101", "000000020203", "0000000104", "00000001", "0000000105")
	sum := sha256.Sum256([]byte("ehsm/domain-backup/v1\n" + backup))
	for _, row := range []struct{ name, got, want string }{
		{"escrow", string(sampleEscrow().Encode()), "ehsm/escrow/v1\n" + escrowHead + unhex("00000471", x(4, 1137), x(5, 64))},
		{"info of an escrow", string(sampleEscrow().Info()), "ehsm/escrow/v1\x00" + escrowHead},
		{"share", string(sampleShare().Encode()), "ehsm/recovery-share/v1\n" + unhex(x(1, 32), x(3, 32), "020203", "0004") + "erin" + unhex(x(6, 1200))},
		{"info of a share", string(sampleShare().Info()), "ehsm/recovery-share/v1\x00" + unhex(x(1, 32), x(3, 32), "020203", "0004") + "erin"},
		{"answer", string(sampleAnswer().Encode()), "ehsm/restore-answer/v1\n" + unhex(x(1, 32), x(7, 32), "02", "0004") + "erin" + unhex(x(8, 1200))},
		{"info of an answer", string(sampleAnswer().Info()), "ehsm/restore-answer/v1\x00" + unhex(x(1, 32), x(7, 32), "02", "0004") + "erin"},
		{"request", string(sampleRequest().Encode()), "ehsm/restore-request/v1\n" + unhex(x(1, 32), "00000001", "00000001", "02", x(3, 1216), "00000001", "04", "00000002", "0506")},
		{"backup", string(sampleBackup().Encode()), "ehsm/domain-backup/v1\n" + backup + string(sum[:])},
	} {
		if row.got != row.want {
			t.Errorf("%s: got %x, want %x", row.name, row.got, row.want)
		}
	}
	if got := ShareFile("dave", 1) + " " + ShareFile("dave", 12); got != "share-dave.sealed share-dave-m12.sealed" {
		t.Errorf("got %s", got)
	}
	signed := sampleEscrow().SignedText()
	if !strings.HasPrefix(string(signed), "ehsm/escrow/v1\x00") || len(signed) != len(escrowLabel)+32 {
		t.Errorf("an escrow's signature is over %x", signed)
	}
}

// decoders are all decoders of this package: each gives the encoding of what it read.
func decoders() map[string]func([]byte) ([]byte, error) {
	return map[string]func([]byte) ([]byte, error){
		"escrow":  func(b []byte) ([]byte, error) { return again(ParseEscrow(b)) },
		"share":   func(b []byte) ([]byte, error) { return again(ParseShare(b)) },
		"answer":  func(b []byte) ([]byte, error) { return again(ParseAnswer(b)) },
		"backup":  func(b []byte) ([]byte, error) { return again(ParseBackup(b)) },
		"request": func(b []byte) ([]byte, error) { return again(ParseRequest(b)) },
	}
}

func again(v interface{ Encode() []byte }, err error) ([]byte, error) {
	if err != nil {
		return nil, err
	}
	return v.Encode(), nil
}

func samples() map[string][]byte {
	return map[string][]byte{
		"escrow": sampleEscrow().Encode(), "share": sampleShare().Encode(), "answer": sampleAnswer().Encode(),
		"backup": sampleBackup().Encode(), "request": sampleRequest().Encode(),
	}
}

// TestOneEncoding reads what was written, and refuses it cut short, extended, and
// under each other's name.
func TestOneEncoding(t *testing.T) {
	for name, decode := range decoders() {
		good := samples()[name]
		if b, err := decode(good); err != nil || !bytes.Equal(b, good) {
			t.Errorf("%s: %v", name, err)
		}
		for n := range good {
			if _, err := decode(good[:n]); !errors.Is(err, ErrFile) {
				t.Fatalf("%s: %d of %d bytes: got %v, want ErrFile", name, n, len(good), err)
			}
		}
		if _, err := decode(append(good[:len(good):len(good)], 0)); !errors.Is(err, ErrFile) {
			t.Errorf("%s with a byte more: got %v, want ErrFile", name, err)
		}
		if _, err := decode(make([]byte, MaxFile+1)); !errors.Is(err, ErrFile) {
			t.Errorf("%s too long: got %v, want ErrFile", name, err)
		}
		for other, b := range samples() {
			if _, err := decode(b); other != name && !errors.Is(err, ErrFile) {
				t.Errorf("%s as %s: got %v, want ErrFile", other, name, err)
			}
		}
	}
}

func TestDecoderRefusals(t *testing.T) {
	share := func(change func(*Share)) []byte { s := sampleShare(); change(s); return s.Encode() }
	escrow := func(change func(*Escrow)) []byte { e := sampleEscrow(); change(e); return e.Encode() }
	damaged := sampleBackup().Encode()
	damaged[len(backupMagic)+9] ^= 1
	for _, row := range []struct {
		name, kind string
		b          []byte
	}{
		{"share 0", "share", share(func(s *Share) { s.Index = 0 })},
		{"share beyond", "share", share(func(s *Share) { s.Index = 4 })},
		{"threshold 0", "share", share(func(s *Share) { s.Threshold = 0 })},
		{"threshold beyond", "share", share(func(s *Share) { s.Threshold = 4 })},
		{"65 custodians", "share", share(func(s *Share) { s.Members = 65 })},
		{"nobody's share", "share", share(func(s *Share) { s.Custodian = "" })},
		{"name with a line feed", "share", share(func(s *Share) { s.Custodian = "a\nb" })},
		{"name too long", "share", share(func(s *Share) { s.Custodian = strings.Repeat("a", 65) })},
		{"share too long", "share", share(func(s *Share) { s.Sealed = rep(1, sealedShare+1) })},
		{"no versions", "escrow", escrow(func(e *Escrow) { e.Versions = nil })},
		{"version 0", "escrow", escrow(func(e *Escrow) { e.Versions = []uint32{0, 1} })},
		{"version twice", "escrow", escrow(func(e *Escrow) { e.Versions = []uint32{2, 2} })},
		{"versions out of order", "escrow", escrow(func(e *Escrow) { e.Versions = []uint32{2, 1} })},
		{"date before 1970", "escrow", escrow(func(e *Escrow) { e.Date = time.Unix(-1, 0) })},
		{"date in the year 10000", "escrow", escrow(func(e *Escrow) { e.Date = time.Unix(253402300800, 0) })},
		{"empty escrow", "escrow", escrow(func(e *Escrow) { e.Sealed = rep(1, overhead) })},
		{"answer 0", "answer", func() []byte { a := sampleAnswer(); a.Index = 0; return a.Encode() }()},
		{"answer 65", "answer", func() []byte { a := sampleAnswer(); a.Index = 65; return a.Encode() }()},
		{"damaged backup", "backup", damaged},
		{"evidence too long", "request", func() []byte { q := sampleRequest(); q.Evidence = make([]byte, maxEvidence+1); return q.Encode() }()},
	} {
		if _, err := decoders()[row.kind](row.b); !errors.Is(err, ErrFile) {
			t.Errorf("%s: got %v, want ErrFile", row.name, err)
		}
	}
}

func TestSealAndOpen(t *testing.T) {
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	other, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	sealed, err := Seal(key.PublicKey().Bytes(), []byte("info"), rep(9, ShareSize))
	if err != nil || len(sealed) != sealedShare {
		t.Fatalf("got %d bytes, %v", len(sealed), err)
	}
	if plain, err := Open(key, []byte("info"), sealed); err != nil || !bytes.Equal(plain, rep(9, ShareSize)) {
		t.Errorf("got %x, %v", plain, err)
	}
	if _, err := Seal(rep(255, keySize), nil, nil); err == nil {
		t.Error("sealed to what is no key")
	}
	flipped := bytes.Clone(sealed)
	flipped[len(flipped)-1] ^= 1
	for name, err := range map[string]error{
		"other info": second(Open(key, []byte("Info"), sealed)), "other key": second(Open(other, []byte("info"), sealed)),
		"flipped": second(Open(key, []byte("info"), flipped)), "cut": second(Open(key, []byte("info"), sealed[:100])),
	} {
		if !errors.Is(err, ErrOpen) || err.Error() != ErrOpen.Error() {
			t.Errorf("%s: got %v, want ErrOpen and nothing else", name, err)
		}
	}
}

// TestDigest compares the digest of a share with docs/formats.md.
func TestDigest(t *testing.T) {
	value := rep(9, ShareSize)
	want := sha256.Sum256([]byte("ehsm/recovery-share-digest/v1\x00\x02" + string(value)))
	if got := Digest(2, value); got != want {
		t.Errorf("got %x, want %x", got, want)
	}
	r := &manifest.Recovery{Digests: append(rep(1, 32), want[:]...)}
	for name, row := range map[string]struct {
		index uint8
		value []byte
		want  error
	}{
		"as made": {2, value, nil}, "of another": {1, value, ErrDigest}, "of nobody": {0, value, ErrDigest}, "beyond": {3, value, ErrDigest},
		"other": {2, rep(8, ShareSize), ErrDigest}, "short": {2, value[1:], ErrDigest}, "none": {2, nil, ErrDigest},
	} {
		if err := CheckDigest(row.index, row.value, r); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// people is the draft of a domain of one operator, with custodians whose keys are
// of no use.
func people(t testing.TB) (*manifest.Draft, crypto.Signer) {
	t.Helper()
	d, operator, err := manifest.ThrowAway(manifest.Defaults(manifest.Development))
	if err != nil {
		t.Fatal(err)
	}
	d.Custodians = &manifest.Quorum{Threshold: 2, Members: []manifest.Person{{Name: "dave", Key: rep(4, keySize)}, {Name: "erin", Key: rep(5, keySize)}, {Name: "fay", Key: rep(6, keySize)}}}
	return d, operator
}

func encoded(t testing.TB, m *manifest.Manifest, operator crypto.Signer) []byte {
	t.Helper()
	if err := m.Sign(operator); err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A fixture is a domain with an escrow and shares that have what it takes to verify.
type fixture struct {
	domainKey ed25519.PrivateKey
	operator  crypto.Signer
	state     *manifest.State
	backup    *Backup
	escrow    *Escrow
}

func newFixture(t testing.TB) *fixture {
	t.Helper()
	d, operator := people(t)
	f := &fixture{domainKey: ed25519.NewKeyFromSeed(rep(9, 32)), operator: operator}
	genesis := d.Complete(f.domainKey.Public().(ed25519.PublicKey), &manifest.Recovery{PublicKey: rep(7, keySize), Commitment: rep(8, 64)}, time.Unix(1e9, 0))
	file := encoded(t, genesis, operator)
	var err error
	if f.state, err = manifest.Open(file); err != nil {
		t.Fatal(err)
	}
	f.escrow = sampleEscrow()
	f.escrow.Domain, f.escrow.Key, f.escrow.Manifest = f.state.Domain, KeyID(f.state.Recovery), 1
	f.sign()
	f.backup = &Backup{Manifests: [][]byte{file}, Escrow: f.escrow.Encode()}
	for i, p := range d.Custodians.Members {
		s := sampleShare()
		s.Domain, s.Key, s.Index, s.Custodian = f.state.Domain, f.escrow.Key, uint8(i+1), p.Name
		f.backup.Shares = append(f.backup.Shares, s.Encode())
	}
	return f
}

func (f *fixture) sign() { f.escrow.Signature = ed25519.Sign(f.domainKey, f.escrow.SignedText()) }

func TestBackupVerify(t *testing.T) {
	f := newFixture(t)
	c, err := f.backup.Verify(time.Time{})
	if err != nil || c.State().Domain != f.state.Domain || len(c.Shares) != 3 || c.Escrow.Manifest != 1 {
		t.Fatalf("got %+v, %v", c, err)
	}
	for _, row := range []struct {
		name   string
		change func(f *fixture)
		want   error
	}{
		{"no manifests", func(f *fixture) { f.backup.Manifests = nil }, ErrFile},
		{"unsigned genesis", func(f *fixture) {
			m, _ := manifest.Parse(f.backup.Manifests[0])
			m.Signatures = m.Signatures[:0]
			f.backup.Manifests[0], _ = m.Encode()
		}, manifest.ErrQuorum},
		{"genesis twice", func(f *fixture) { f.backup.Manifests = append(f.backup.Manifests, f.backup.Manifests[0]) }, manifest.ErrDomain},
		{"no escrow", func(f *fixture) { f.backup.Escrow = nil }, ErrFile},
		{"escrow of a host", func(f *fixture) {
			f.domainKey = ed25519.NewKeyFromSeed(rep(10, 32))
			f.sign()
			f.backup.Escrow = f.escrow.Encode()
		}, ErrSignature},
		{"escrow with other versions", func(f *fixture) { f.escrow.Versions = []uint32{1, 2}; f.backup.Escrow = f.escrow.Encode() }, ErrSignature},
		{"escrow with another date", func(f *fixture) { f.escrow.Date = f.escrow.Date.Add(time.Second); f.backup.Escrow = f.escrow.Encode() }, ErrSignature},
		{"escrow with another content", func(f *fixture) { f.escrow.Sealed[0] ^= 1; f.backup.Escrow = f.escrow.Encode() }, ErrSignature},
		{"escrow of another domain", func(f *fixture) { f.escrow.Domain[0] ^= 1; f.sign(); f.backup.Escrow = f.escrow.Encode() }, ErrDomain},
		{"escrow for other custodians", func(f *fixture) { f.escrow.Key[0] ^= 1; f.sign(); f.backup.Escrow = f.escrow.Encode() }, ErrRecoveryKey},
		{"escrow of a later manifest", func(f *fixture) { f.escrow.Manifest = 2; f.sign(); f.backup.Escrow = f.escrow.Encode() }, ErrFile},
		{"no share", func(f *fixture) { f.backup.Shares[0] = []byte("x") }, ErrFile},
		{"share twice", func(f *fixture) { f.backup.Shares[1] = f.backup.Shares[0] }, ErrFile},
		{"share of another domain", f.share(func(s *Share) { s.Domain[0] ^= 1 }), ErrDomain},
		{"share of another recovery key", f.share(func(s *Share) { s.Key[0] ^= 1 }), ErrRecoveryKey},
		{"share under another name", f.share(func(s *Share) { s.Custodian = "eve" }), ErrFile},
		{"share of another quorum", f.share(func(s *Share) { s.Threshold = 3 }), ErrFile},
	} {
		f := newFixture(t)
		row.change(f)
		if _, err := f.backup.Verify(time.Time{}); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

// share returns what changes the first share of a fixture.
func (*fixture) share(change func(*Share)) func(f *fixture) {
	return func(f *fixture) {
		s, err := ParseShare(f.backup.Shares[0])
		if err != nil {
			panic(err)
		}
		change(s)
		f.backup.Shares[0] = s.Encode()
	}
}

// TestRestorable has domains that change what they allow.
func TestRestorable(t *testing.T) {
	state := func(sim bool) *manifest.State {
		s := *newFixture(t).state
		s.Settings.AllowSim = sim
		return &s
	}
	without := state(false)
	without.Recovery = nil
	for _, row := range []struct {
		name   string
		states []*manifest.State
		want   error
	}{
		{"simulated", []*manifest.State{state(true)}, nil},
		{"protected", []*manifest.State{state(false)}, nil},
		{"simulated, then protected", []*manifest.State{state(true), state(false)}, nil},
		{"protected, then simulated", []*manifest.State{state(false), state(true)}, ErrSimulation},
		{"protected between", []*manifest.State{state(true), state(false), state(true)}, ErrSimulation},
		{"without a recovery key", []*manifest.State{without}, ErrNoRecovery},
	} {
		if err := Restorable(row.states); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, b := range samples() {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for name, decode := range decoders() {
			if again, err := decode(b); err == nil && !bytes.Equal(again, b) {
				t.Errorf("%s: the file does not encode to the bytes it came from", name)
			} else if err != nil && !errors.Is(err, ErrFile) {
				t.Errorf("%s: got %v, want ErrFile", name, err)
			}
		}
	})
}
