package recovery

import (
	"bytes"
	"crypto"
	"crypto/hpke"
	"crypto/sha256"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// start is when the tests take place.
var start = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

var (
	signerSeed   = bytes.Repeat([]byte{7}, 32)
	strangerSeed = bytes.Repeat([]byte{8}, 32)
)

// machines are two of one fleet and one of another, made once: nothing changes them.
var machines = sync.OnceValues(func() (all [3]*sim.Processor, err error) {
	dir, err := os.MkdirTemp("", "recovery")
	if err != nil {
		return all, err
	}
	defer os.RemoveAll(dir)
	for i, fleet := range []string{"fleet", "fleet", "foreign"} {
		o := sim.Options{Fleet: filepath.Join(dir, fleet), Now: start.AddDate(-1, 0, 0)}
		if all[i], err = sim.OpenProcessor(filepath.Join(dir, fmt.Sprint(i)), o); err != nil {
			return all, err
		}
	}
	return all, nil
})

func machine(t testing.TB, i int) *sim.Processor {
	t.Helper()
	all, err := machines()
	if err != nil {
		t.Fatal(err)
	}
	return all[i]
}

// load runs a signed program on a machine.
func load(t testing.TB, i int, product uint16, seed []byte, debug bool) *sim.Machine {
	t.Helper()
	measurement := sha256.Sum256(fmt.Append(nil, product))
	s, err := sim.Sign(secret.Copy(seed), measurement, product, 1, debug)
	if err != nil {
		t.Fatal(err)
	}
	m, err := machine(t, i).Load(sim.Program{Measurement: measurement, Signature: &s}, product, 1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// dkeyserver runs the domain's dkeyserver on a machine.
func dkeyserver(t testing.TB, i int) *sim.Machine {
	return load(t, i, tee.ProductDKeyServer, signerSeed, false)
}

func collateral(t testing.TB, i int) []byte {
	t.Helper()
	p := machine(t, i)
	c, err := p.Issue(p.Terms(start))
	if err != nil {
		t.Fatal(err)
	}
	return c.Append(nil)
}

// A person is a custodian with the private key.
type person struct {
	name string
	key  hpke.PrivateKey
}

func newPerson(t testing.TB, name string) *person {
	t.Helper()
	key, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	return &person{name, key}
}

// A realm is a domain with its operator and its custodians.
type realm struct {
	dir        string
	operator   crypto.Signer
	custodians []*person
	files      [][]byte
	last       *manifest.State
}

func quorum(threshold int, people ...*person) *manifest.Quorum {
	q := &manifest.Quorum{Threshold: threshold}
	for _, p := range people {
		q.Members = append(q.Members, manifest.Person{Name: p.name, Key: p.key.PublicKey().Bytes()})
	}
	return q
}

// newRealm makes a domain with a dkeyserver on machine 0, whose DomainKey 2 of 3
// custodians can recover on machine 1.
func newRealm(t testing.TB) *realm {
	t.Helper()
	a := &realm{dir: filepath.Join(t.TempDir(), "domain"), custodians: []*person{newPerson(t, "dave"), newPerson(t, "erin"), newPerson(t, "fay")}}
	s := manifest.Defaults(manifest.Development)
	s.AllowSim, s.SimRoot = true, machine(t, 0).Root().Raw
	signer := dkeyserver(t, 0).Identity().Signer
	for product, role := range []string{manifest.RoleCore, manifest.RoleDKeyCache, manifest.RoleDKeyServer} {
		s.Code = append(s.Code, manifest.Code{Role: role, MRSigner: signer, Product: uint16(product + 1), MinSVN: 1})
	}
	for i := range 2 {
		s.Platforms = append(s.Platforms, manifest.Platform{Name: fmt.Sprint("machine ", i), PPID: machine(t, i).Terms(start).Platform.PPID})
	}
	draft, operator, err := manifest.ThrowAway(s)
	if err != nil {
		t.Fatal(err)
	}
	a.operator, draft.Custodians = operator, quorum(2, a.custodians...)
	k, err := Make(draft.Custodians)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Forget()
	if err := domainkey.CreateRecoverable(a.dir, dkeyserver(t, 0), draft, k, start.AddDate(0, -1, 0), operator); err != nil {
		t.Fatal(err)
	}
	if a.files, err = domainkey.Files(a.dir); err != nil {
		t.Fatal(err)
	}
	if a.last, err = manifest.Open(a.files[0]); err != nil {
		t.Fatal(err)
	}
	return a
}

// keys opens the DomainKey of a directory on a machine.
func keys(t testing.TB, dir string, i int) *domainkey.Keyring {
	t.Helper()
	k, _, err := domainkey.Open(dir, dkeyserver(t, i), secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// next makes the domain's next manifest.
func (a *realm) next(t testing.TB, edit func(*manifest.Statement)) []byte {
	t.Helper()
	m, err := a.last.Follow(start)
	if err != nil {
		t.Fatal(err)
	}
	m.Statement.Settings.Code = append([]manifest.Code(nil), a.last.Settings.Code...)
	m.Statement.Settings.Platforms = append([]manifest.Platform(nil), a.last.Settings.Platforms...)
	edit(&m.Statement)
	if err := m.Sign(a.operator); err != nil {
		t.Fatal(err)
	}
	b, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if a.last, err = a.last.Next(b, start); err != nil {
		t.Fatal(err)
	}
	a.files = append(a.files, b)
	return b
}

// share reads a custodian's share from the directory.
func (a *realm) share(t testing.TB, name string, version uint64) *escrow.Share {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(a.dir, escrow.ShareFile(name, version)))
	if err != nil {
		t.Fatal(err)
	}
	s, err := escrow.ParseShare(b)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// backup is one of the realm as it is now, with the keys of its directory.
func (a *realm) backup(t testing.TB) []byte {
	t.Helper()
	return a.backupOf(t, keys(t, a.dir, 0))
}

func (a *realm) backupOf(t testing.TB, k *domainkey.Keyring) []byte {
	t.Helper()
	e, err := Seal(k, a.last, start)
	if err != nil {
		t.Fatal(err)
	}
	return (&escrow.Backup{Manifests: a.files, Escrow: e}).Encode()
}

// options are those of a restoration on machine 1.
func (a *realm) options(t testing.TB) Options {
	m := dkeyserver(t, 1)
	return Options{Attester: m, Platform: m, Backup: a.backup(t), Collateral: collateral(t, 1), Domain: a.last.Domain, Now: start}
}

func begin(t testing.TB, o Options) *Session {
	t.Helper()
	s, err := Begin(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// release is what the tool of a custodian does once it has judged a request.
func release(t testing.TB, p *person, s *escrow.Share, request []byte) []byte {
	t.Helper()
	value, err := escrow.OpenShare(p.key, s)
	if err != nil {
		t.Fatal(err)
	}
	r, err := escrow.ParseRequest(request)
	if err != nil {
		t.Fatal(err)
	}
	a, err := escrow.Release(s, value, r)
	if err != nil {
		t.Fatal(err)
	}
	return a.Encode()
}
