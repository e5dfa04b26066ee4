package recovery

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/restoration"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// restore has all that are needed release their shares, and returns the directory.
func restore(t *testing.T, a *realm, o Options) string {
	t.Helper()
	s := begin(t, o)
	for _, p := range a.custodians[1:] {
		if err := s.Add(release(t, p, a.share(t, p.name, 1), s.Request())); err != nil {
			t.Fatal(err)
		}
	}
	k, err := s.Keys(secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(t.TempDir(), "restored")
	if err := s.Write(dir, k, start); err != nil {
		t.Fatal(err)
	}
	return dir
}

// TestRestore loses machine 0 and restores on machine 1, from a backup that is as
// old as the domain.
func TestRestore(t *testing.T) {
	a := newRealm(t)
	o := a.options(t)
	maker := keys(t, a.dir, 0)
	b := a.next(t, func(s *manifest.Statement) { s.Settings.RequestWindow = 100 })
	o.Manifests = [][]byte{a.files[0], b} // the genesis is in the backup already
	dir := restore(t, a, o)
	restored := keys(t, dir, 1)
	if !restored.Extends(maker) || !maker.Extends(restored) {
		t.Error("another DomainKey was restored")
	}
	files, err := domainkey.Files(dir)
	if err != nil || len(files) != 2 || !bytes.Equal(files[0], a.files[0]) || !bytes.Equal(files[1], b) {
		t.Errorf("got %d manifests, %v", len(files), err)
	}
	e, err := os.ReadFile(filepath.Join(dir, escrow.File))
	if err != nil || !Current(e, restored, a.last) {
		t.Errorf("the restored domain has no current escrow: %v", err)
	}
	if _, _, err := domainkey.Open(dir, dkeyserver(t, 0), secret.NewHeap()); !errors.Is(err, domainkey.ErrSeal) {
		t.Errorf("another machine opens what was restored: %v", err)
	}
}

// TestRestoreOlderThanRotation has the DomainKey of before a rotation back.
func TestRestoreOlderThanRotation(t *testing.T) {
	a := newRealm(t)
	old := a.options(t)
	next, err := keys(t, a.dir, 0).Next(secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	newer := old
	newer.Backup = a.backupOf(t, next)
	for name, row := range map[string]struct {
		o    Options
		want uint32
	}{"before": {old, 1}, "after": {newer, 2}} {
		if got := keys(t, restore(t, a, row.o), 1); got.Newest() != row.want || !next.Extends(got) {
			t.Errorf("%s: got version %d, want %d", name, got.Newest(), row.want)
		}
	}
}

// TestEscrowWithOtherVersions has a TEE of the domain sign an escrow that says less
// than is in it.
func TestEscrowWithOtherVersions(t *testing.T) {
	a := newRealm(t)
	o := a.options(t)
	k, err := keys(t, a.dir, 0).Next(secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	e := &escrow.Escrow{Domain: a.last.Domain, Manifest: a.last.Version, Date: a.last.Date, Key: escrow.KeyID(a.last.Recovery), Versions: []uint32{1}}
	if e.Sealed, err = escrow.Seal(a.last.Recovery.PublicKey, e.Info(), k.Export().Expose()); err != nil {
		t.Fatal(err)
	}
	e.Signature = k.Sign(e.SignedText())
	o.Backup = (&escrow.Backup{Manifests: a.files, Escrow: e.Encode()}).Encode()
	s := begin(t, o)
	for _, p := range a.custodians[1:] {
		if err := s.Add(release(t, p, a.share(t, p.name, 1), s.Request())); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := s.Keys(secret.NewHeap()); !errors.Is(err, domainkey.ErrSeal) || got != nil {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAnswerRefusals(t *testing.T) {
	a, other := newRealm(t), newRealm(t)
	s := begin(t, a.options(t))
	dave, erin := a.custodians[0], a.custodians[1]
	daves, erins := a.share(t, "dave", 1), a.share(t, "erin", 1)
	if err := s.Add(release(t, dave, daves, s.Request())); err != nil {
		t.Fatal(err)
	}
	foreign := begin(t, other.options(t))
	again := begin(t, a.options(t))
	answer := func(change func(*escrow.Answer)) []byte {
		x, err := escrow.ParseAnswer(release(t, erin, erins, s.Request()))
		if err != nil {
			t.Fatal(err)
		}
		change(x)
		return x.Encode()
	}
	sealed := func(value []byte) []byte { // to this session, by anybody
		r, err := escrow.ParseRequest(s.Request())
		if err != nil {
			t.Fatal(err)
		}
		x, err := escrow.Release(erins, value, r)
		if err != nil {
			t.Fatal(err)
		}
		return x.Encode()
	}
	value, err := escrow.OpenShare(dave.key, daves)
	if err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name   string
		answer []byte
		want   error
	}{
		{"nothing", nil, escrow.ErrFile},
		{"the share itself", erins.Encode(), escrow.ErrFile},
		{"the same share twice", release(t, dave, daves, s.Request()), ErrTwice},
		{"to another restoration", release(t, erin, erins, again.Request()), ErrSession},
		{"of another domain", release(t, other.custodians[1], other.share(t, "erin", 1), foreign.Request()), escrow.ErrDomain},
		{"of another domain, to this session", release(t, other.custodians[1], other.share(t, "erin", 1), s.Request()), escrow.ErrDomain},
		{"of another domain, called this one", answer(func(x *escrow.Answer) {
			y, _ := escrow.ParseAnswer(release(t, other.custodians[1], other.share(t, "erin", 1), s.Request()))
			x.Sealed = y.Sealed
		}), ErrShare},
		{"changed", answer(func(x *escrow.Answer) { x.Sealed[2000%len(x.Sealed)] ^= 1 }), ErrShare},
		{"under another index", answer(func(x *escrow.Answer) { x.Index = 3 }), ErrShare},
		{"under another name", answer(func(x *escrow.Answer) { x.Custodian = "eve" }), ErrShare},
		{"beyond the custodians", answer(func(x *escrow.Answer) { x.Index = 4 }), ErrShare},
		{"random share", sealed(bytes.Repeat([]byte{3}, escrow.ShareSize)), ErrShare},
		{"no scalar", sealed(bytes.Repeat([]byte{255}, escrow.ShareSize)), ErrShare},
		{"short share", answer(func(x *escrow.Answer) { x.Sealed = x.Sealed[:len(x.Sealed)-1] }), escrow.ErrFile},
		{"dave's share as erin's", sealed(value), ErrShare},
	} {
		if err := s.Add(row.answer); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
		if have, need := s.Progress(); len(have) != 1 || need != 2 {
			t.Fatalf("%s: got the shares of %v", row.name, have)
		}
	}
	if _, err := s.Keys(secret.NewHeap()); !errors.Is(err, ErrTooFew) {
		t.Errorf("with one of two: got %v, want ErrTooFew", err)
	}
	if err := s.Add(release(t, erin, erins, s.Request())); err != nil {
		t.Fatal(err)
	}
	if k, err := s.Keys(secret.NewHeap()); err != nil || !k.Extends(keys(t, a.dir, 0)) {
		t.Errorf("after all refusals: got %v", err)
	}
}

// TestBeginRefusals has machines, programs and domains that restore nothing.
func TestBeginRefusals(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(t *testing.T, a *realm, o *Options)
		want   error
	}{
		{"no backup", func(t *testing.T, _ *realm, o *Options) { o.Backup = nil }, escrow.ErrFile},
		{"damaged backup", func(t *testing.T, _ *realm, o *Options) { o.Backup[100] ^= 1 }, escrow.ErrFile},
		{"another domain", func(t *testing.T, a *realm, o *Options) { o.Domain[0] ^= 1 }, restoration.ErrDomain},
		{"machine that is not admitted", func(t *testing.T, a *realm, o *Options) {
			o.Manifests = [][]byte{a.next(t, func(s *manifest.Statement) { s.Settings.Platforms = s.Settings.Platforms[:1] })}
		}, validate.ErrPlatform},
		{"machine of another fleet", func(t *testing.T, a *realm, o *Options) {
			m := dkeyserver(t, 2)
			o.Attester, o.Platform, o.Collateral = m, m, collateral(t, 2)
		}, verify.ErrUnknownRoot},
		{"program of a stranger", func(t *testing.T, a *realm, o *Options) {
			m := load(t, 1, tee.ProductDKeyServer, strangerSeed, false)
			o.Attester, o.Platform = m, m
		}, validate.ErrEnclave},
		{"program of another role", func(t *testing.T, a *realm, o *Options) {
			m := load(t, 1, tee.ProductDKeyCache, signerSeed, false)
			o.Attester, o.Platform = m, m
		}, validate.ErrEnclave},
		{"program of another role that the manifest names as one", func(t *testing.T, a *realm, o *Options) {
			m := load(t, 1, tee.ProductCore, signerSeed, false)
			o.Attester, o.Platform = m, m
			o.Manifests = [][]byte{a.next(t, func(s *manifest.Statement) {
				s.Settings.Code = []manifest.Code{{Role: manifest.RoleDKeyServer, MREnclave: m.Identity().Measurement}}
			})}
		}, restoration.ErrRole},
		{"debug program", func(t *testing.T, a *realm, o *Options) {
			m := load(t, 1, tee.ProductDKeyServer, signerSeed, true)
			o.Attester, o.Platform = m, m
		}, validate.ErrDebug},
		{"nobody is admitted", func(t *testing.T, a *realm, o *Options) {
			o.Manifests = [][]byte{a.next(t, func(s *manifest.Statement) { s.Settings.Code = s.Settings.Code[:1] })}
		}, admission.ErrNobody},
		{"no collateral", func(t *testing.T, _ *realm, o *Options) { o.Collateral = nil }, restoration.ErrCollateral},
		{"collateral that has ended", func(t *testing.T, _ *realm, o *Options) { o.Now = start.AddDate(0, 2, 0) }, verify.ErrCRLExpired},
		{"manifest of a stranger", func(t *testing.T, a *realm, o *Options) {
			o.Manifests = [][]byte{newRealm(t).next(t, func(*manifest.Statement) {})}
		}, manifest.ErrDomain},
		{"platform that cannot seal", func(t *testing.T, _ *realm, o *Options) { o.Platform = sealless{o.Platform} }, tee.ErrNoSealKey},
		{"simulation is no longer allowed", func(t *testing.T, a *realm, o *Options) {
			o.Manifests = [][]byte{a.next(t, func(s *manifest.Statement) { s.Settings.AllowSim, s.Settings.SimRoot = false, nil })}
		}, domainkey.ErrSimulated},
		{"simulation is no longer allowed, and nothing is kept", func(t *testing.T, a *realm, o *Options) {
			o.InMemory = true
			o.Manifests = [][]byte{a.next(t, func(s *manifest.Statement) { s.Settings.AllowSim, s.Settings.SimRoot = false, nil })}
		}, domainkey.ErrSimulated},
		{"machine that is not admitted, and nothing is kept", func(t *testing.T, a *realm, o *Options) {
			o.InMemory, o.Platform = true, sealless{o.Platform}
			o.Manifests = [][]byte{a.next(t, func(s *manifest.Statement) { s.Settings.Platforms = s.Settings.Platforms[:1] })}
		}, validate.ErrPlatform},
		{"simulation is allowed again", func(t *testing.T, a *realm, o *Options) {
			root := a.last.Settings.SimRoot
			first := a.next(t, func(s *manifest.Statement) { s.Settings.AllowSim, s.Settings.SimRoot = false, nil })
			o.Manifests = [][]byte{first, a.next(t, func(s *manifest.Statement) { s.Settings.AllowSim, s.Settings.SimRoot = true, root })}
		}, escrow.ErrSimulation},
		{"custodians have changed since the backup", func(t *testing.T, a *realm, o *Options) {
			o.Manifests = [][]byte{replace(t, a, newPerson(t, "gus"))}
		}, escrow.ErrRecoveryKey},
	} {
		a := newRealm(t)
		o := a.options(t)
		row.change(t, a, &o)
		if s, err := Begin(t.Context(), o); !errors.Is(err, row.want) || s != nil {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

type sealless struct{ tee.Platform }

func (sealless) SealKey(tee.KeyRequest) (secret.Bytes, error) {
	return secret.Bytes{}, tee.ErrNoSealKey
}

// replace makes a manifest in which p has the place of the first custodian.
func replace(t testing.TB, a *realm, p *person) []byte {
	t.Helper()
	q := quorum(2, p, a.custodians[1], a.custodians[2])
	k, err := Make(q)
	if err != nil {
		t.Fatal(err)
	}
	defer k.Forget()
	files, err := k.Shares(a.last.Domain, a.last.Version+1)
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range files {
		if err := domainkey.WriteFile(a.dir, name, b); err != nil {
			t.Fatal(err)
		}
	}
	return a.next(t, func(s *manifest.Statement) {
		s.Custodians, s.Recovery = q, k.Endorsed(keys(t, a.dir, 0))
	})
}

// TestReplacedCustodian has a custodian lost and another one in place: old shares
// are of no use for new escrows.
func TestReplacedCustodian(t *testing.T) {
	a := newRealm(t)
	k := keys(t, a.dir, 0)
	before, err := Seal(k, a.last, start)
	if err != nil || !Current(before, k, a.last) {
		t.Fatalf("the escrow is not current: %v", err)
	}
	gus := newPerson(t, "gus")
	replace(t, a, gus)
	if Current(before, k, a.last) {
		t.Error("the escrow for the custodians of before is current")
	}
	s := begin(t, a.options(t))
	erin := a.custodians[1]
	if err := s.Add(release(t, erin, a.share(t, "erin", 1), s.Request())); !errors.Is(err, ErrShare) {
		t.Errorf("the share of before: got %v, want ErrShare", err)
	}
	for _, p := range []*person{gus, erin} {
		if err := s.Add(release(t, p, a.share(t, p.name, 2), s.Request())); err != nil {
			t.Fatal(err)
		}
	}
	if restored, err := s.Keys(secret.NewHeap()); err != nil || !restored.Extends(k) {
		t.Errorf("got %v", err)
	}
	// A backup of before, under the manifest of before, is for the custodians of then.
	o := a.options(t)
	o.Backup = (&escrow.Backup{Manifests: a.files[:1], Escrow: before}).Encode()
	s = begin(t, o)
	for _, p := range a.custodians[:2] {
		if err := s.Add(release(t, p, a.share(t, p.name, 1), s.Request())); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.Keys(secret.NewHeap()); err != nil {
		t.Errorf("the old backup: %v", err)
	}
}

// TestCurrent lists when another escrow is needed.
func TestCurrent(t *testing.T) {
	a, other := newRealm(t), newRealm(t)
	k := keys(t, a.dir, 0)
	e, err := Seal(k, a.last, start.AddDate(-1, 0, 0)) // a slow clock
	if err != nil {
		t.Fatal(err)
	}
	if x, err := escrow.ParseEscrow(e); err != nil || !x.Date.Equal(a.last.Date) {
		t.Errorf("got %+v, %v, want the date of the manifest", x, err)
	}
	next, err := k.Next(secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	none := *a.last
	none.Recovery = nil
	for _, row := range []struct {
		name string
		file []byte
		k    *domainkey.Keyring
		s    *manifest.State
		want bool
	}{
		{"as it is", e, k, a.last, true},
		{"none", nil, k, a.last, false},
		{"damaged", append(bytes.Clone(e), 0), k, a.last, false},
		{"after a rotation", e, next, a.last, false},
		{"of another domain", e, k, other.last, false},
	} {
		if got := Current(row.file, row.k, row.s); got != row.want {
			t.Errorf("%s: got %t", row.name, got)
		}
	}
	if _, err := Seal(k, &none, start); !errors.Is(err, escrow.ErrNoRecovery) {
		t.Errorf("without a recovery key: got %v", err)
	}
	if _, err := Seal(k, other.last, start); !errors.Is(err, escrow.ErrDomain) {
		t.Errorf("keys of another domain: got %v", err)
	}
}

// TestMakeRefusals has custodians to whom nothing can be encrypted.
func TestMakeRefusals(t *testing.T) {
	q := quorum(1, newPerson(t, "dave"))
	q.Members[0].Key = bytes.Repeat([]byte{255}, len(q.Members[0].Key))
	if _, err := Make(q); !errors.Is(err, ErrCustodian) || !strings.Contains(err.Error(), "dave") {
		t.Errorf("got %v, want ErrCustodian", err)
	}
}

// TestEvidenceIsForRestoring shows evidence of other uses, and of other requests, to
// the judge.
func TestEvidenceIsForRestoring(t *testing.T) {
	a := newRealm(t)
	s := begin(t, a.options(t))
	state := s.Verdict().State()
	judge := func(change func(*escrow.Request)) error {
		r, err := escrow.ParseRequest(s.Request())
		if err != nil {
			t.Fatal(err)
		}
		change(r)
		_, err = restoration.Judge(r, restoration.Options{Domain: a.last.Domain, Now: start})
		return err
	}
	if err := judge(func(*escrow.Request) {}); err != nil {
		t.Fatal(err)
	}
	m := dkeyserver(t, 1)
	for _, use := range attest.Uses() {
		if use == attest.UseRestore {
			continue
		}
		e, err := m.Evidence(t.Context(), attest.ReportData(use, state.Domain, []byte(restoration.Role), s.request.Session[:], s.request.Backup[:], state.Hash[:]))
		if err != nil {
			t.Fatal(err)
		}
		if err := judge(func(r *escrow.Request) { r.Evidence = e.Append(nil) }); !errors.Is(err, validate.ErrReportData) {
			t.Errorf("evidence for %q: got %v, want ErrReportData", use, err)
		}
	}
	b := a.next(t, func(s *manifest.Statement) { s.Settings.RequestWindow = 100 })
	for name, row := range map[string]struct {
		change func(*escrow.Request)
		want   error
	}{
		"evidence of a guest, which nobody here judges": {func(r *escrow.Request) { r.Evidence[1] = byte(attest.TDXQuote4) }, attest.ErrNoVerifier},
		"other session key":                             {func(r *escrow.Request) { r.Session[0] ^= 1 }, validate.ErrReportData},
		"other backup":                                  {func(r *escrow.Request) { r.Backup[0] ^= 1 }, validate.ErrReportData},
		"other manifest":                                {func(r *escrow.Request) { r.Manifests = append(r.Manifests, b) }, validate.ErrReportData},
		"no manifests":                                  {func(r *escrow.Request) { r.Manifests = nil }, escrow.ErrFile},
		"manifest alone":                                {func(r *escrow.Request) { r.Manifests = [][]byte{b} }, manifest.ErrVersion},
		"no collateral":                                 {func(r *escrow.Request) { r.Collateral = nil }, restoration.ErrCollateral},
	} {
		if err := judge(row.change); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
	}
	r, err := escrow.ParseRequest(s.Request())
	if err != nil {
		t.Fatal(err)
	}
	domain := a.last.Domain
	domain[0] ^= 1
	if _, err := restoration.Judge(r, restoration.Options{Domain: domain, Now: start}); !errors.Is(err, restoration.ErrDomain) {
		t.Errorf("another domain is pinned: got %v", err)
	}
	if _, err := restoration.Judge(r, restoration.Options{Domain: a.last.Domain, Now: start.Add(-25*time.Hour).AddDate(0, -1, 0)}); err == nil {
		t.Error("a clock a day behind the collateral passes")
	}
	c, err := verify.DecodeCollateral(collateral(t, 1))
	if err != nil {
		t.Fatal(err)
	}
	r.Collateral = nil
	if _, err := restoration.Judge(r, restoration.Options{Domain: a.last.Domain, Now: start, Collateral: &c}); err != nil {
		t.Errorf("collateral of the custodian's own: %v", err)
	}
}
