package core

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// twin is another TEE of the domain, with the DomainKey as it is sealed: version 1.
func (d domain) twin(t testing.TB) domain {
	t.Helper()
	keys, _, err := domainkey.Open(d.dir, d.platform, secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	d.keys = keys
	return d
}

// grow has a TEE hold a version more of the DomainKey, and no core use it yet.
func (d domain) grow(t testing.TB) {
	t.Helper()
	next, err := d.keys.Next(secret.NewHeap())
	if err == nil {
		err = d.keys.Adopt(next)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// manifest is one of the domain that nobody has signed; the core is told that
// somebody has verified it.
func (d domain) manifest(version uint64, edit func(*manifest.Settings)) *manifest.State {
	s := *d.state
	s.Version, s.Settings = version, d.settings
	edit(&s.Settings)
	return &s
}

func current(version uint32) func(*manifest.Settings) {
	return func(s *manifest.Settings) { s.DomainKey = manifest.DomainKey{Version: version} }
}

// reachVersion makes version n of the DomainKey and has all cores of h use it.
func (h *host) reachVersion(d domain, n uint32) {
	h.t.Helper()
	d.grow(h.t)
	for _, c := range h.cores {
		if err := c.reach(n, c.clock.micros()); err != nil || c.keys.Current() != n {
			h.t.Fatalf("version %d is not reached: %v", n, err)
		}
	}
}

// all are references to all rows of h, with their bytes.
func (h *host) all() (refs []wire.Ref) {
	for id := range h.rows {
		refs = append(refs, h.ref(id, true))
	}
	slices.SortFunc(refs, func(a, b wire.Ref) int { return bytes.Compare(a.Sealed, b.Sealed) })
	return refs
}

// rewrap has a core wrap records anew.
func (h *host) rewrap(core int, version uint32, refs ...wire.Ref) *wire.Answer {
	h.t.Helper()
	a, err := h.cores[core].Rewrap(context.Background(), &wire.Rewrap{RequestID: "w", Version: version, Records: refs})
	if err != nil {
		h.t.Fatal(err)
	}
	return a
}

// TestRewrap wraps everything that a tenant can have anew: nothing is left under the
// version before, all of it works on a core that has the new version only, and on
// one that remembers the states from before.
func TestRewrap(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	key, other := c.createKey(), c.createKey()
	external := c.createExternal("EH_AES_GCM_256")
	i := c.parameters(external, "EH_RSA_2048")
	c.mustDo("CreateSecret", map[string]any{"secretName": "s", "secretData": "value"})
	policy := c.mustDo("UploadQuotePolicy", map[string]any{"mr_enclave": fmt.Sprintf("%064x", 1), "mr_signer": fmt.Sprintf("%064x", 2)}).text("policyId")
	sealed := c.mustDo("Encrypt", encrypts(key)).text("ciphertext")
	c.mustDo("DisableKey", named(other))
	h.reachVersion(d, 2)
	before := h.all()
	a := h.rewrap(0, 2, before...)
	if a.Kind != wire.Pending || a.Code != 0 || len(a.Writes) != len(before) || a.Replay != nil || !a.Audit.Durable {
		t.Fatalf("Rewrap: kind %d, %d writes of %d records", a.Kind, len(a.Writes), len(before))
	}
	for n, w := range a.Writes {
		wrapped, made := wire.SealedVersions(w.Sealed)
		if w.ID != before[n].ID || !w.Rewrapped || w.Expected != before[n].Revision || w.Revision != w.Expected || w.Tag() != before[n].Tag || wrapped != 2 || made != 1 {
			t.Errorf("%s: %+v, wrapped under %d, made under %d", w.ID, w, wrapped, made)
		}
	}
	// Once more, before it is stored, on another core: the very same bytes.
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	if b := h.rewrap(1, 2, before...); !slices.EqualFunc(a.Writes, b.Writes, func(a, b wire.Write) bool { return bytes.Equal(a.Sealed, b.Sealed) }) {
		t.Error("two cores wrap one state differently")
	}
	end, err := h.settle(0, a)
	if err != nil || end.Code != codeOK {
		t.Fatalf("stored: %+v, %v", end, err)
	}
	if again := h.rewrap(0, 2, h.all()...); again.Kind != wire.Final || again.Code != codeOK || again.Audit.Count != 0 {
		t.Errorf("nothing is due: got %+v", again)
	}
	c.mustDo("DisableKey", named(other)) // an entry of the log of facts under the new version vouches for those before
	d.keys.Settle(&manifest.Settings{DomainKey: manifest.DomainKey{Version: 2, Forgotten: []uint32{1}}})
	if d.keys.Holds(1) {
		t.Fatal("version 1 is still held")
	}
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	for core := range h.cores {
		want(t, "Decrypt", c.do(core, "Decrypt", map[string]any{"keyid": key, "ciphertext": sealed}), 200, "success!")
		want(t, "Encrypt with the disabled key", c.do(core, "Encrypt", encrypts(other)), 400, "keyid is disabled")
		if got := c.do(core, "GetSecretValue", map[string]any{"secretName": "s"}).text("secretData"); got != "value" {
			t.Errorf("core %d: the secret is %q", core, got)
		}
		want(t, "GetQuotePolicy", c.do(core, "GetQuotePolicy", map[string]any{"policyId": policy}), 200, "Query quote policy success.")
	}
	// The token was made under a version that nobody has any more.
	if r := c.do(2, "ImportKeyMaterial", i.payload(t, "EH_RSA_PKCS1_OAEP", bytes.Repeat([]byte{7}, 32))); r.Code != 500 {
		t.Errorf("a token of a forgotten version: got %d %s", r.Code, r.Message)
	}
	c.mustDo("EnableKey", named(other))
	if wrapped, made := wire.SealedVersions(h.rows[c.keyRecord(other)].Sealed); wrapped != 2 || made != 2 {
		t.Errorf("a new state is wrapped under %d, made under %d", wrapped, made)
	}
}

// TestTokenSurvivesRotation imports with a token that was made under the version
// before.
func TestTokenSurvivesRotation(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	key := c.createExternal("EH_AES_GCM_256")
	i := c.parameters(key, "EH_RSA_2048")
	h.reachVersion(d, 2)
	h.settle(0, h.rewrap(0, 2, h.all()...))
	h.reachVersion(d, 3)
	c.imported("over two rotations", i.payload(t, "EH_RSA_PKCS1_OAEP", bytes.Repeat([]byte{7}, 32)))
}

// TestRewrapAudit has one entry for a step, and one more for a step that was not
// stored.
func TestRewrapAudit(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	c.createKey()
	h.reachVersion(d, 2)
	from := len(h.frames)
	a := h.rewrap(0, 2, h.all()...)
	if a.Audit.Count != 1 {
		t.Errorf("%d entries for a step", a.Audit.Count)
	}
	h.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
	if end, err := h.settle(0, a); err != nil || end.Code != codeInternal || end.Audit.Count != 1 {
		t.Errorf("not stored: got %+v, %v", end, err)
	}
	if !bytes.Contains(h.frames[from:], []byte("Rewrap")) {
		t.Error("the trail does not name the step")
	}
}

// TestRewrapRefused offers a core, beside a record that is due, one that is not to be
// wrapped: the first is wrapped all the same.
func TestRewrapRefused(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	good, changed := c.createKey(), c.createKey()
	old := h.ref(c.keyRecord(changed), true)
	c.mustDo("DisableKey", named(changed))
	c.mustDo("EnableKey", named(changed))
	unstored := h.ref(c.keyRecord(changed), true)
	for _, w := range h.history {
		if w.ID == unstored.ID && w.Revision == 2 {
			unstored.Revision, unstored.Sealed, unstored.Tag = w.Revision, w.Sealed, w.Tag()
		}
	}
	// It was deleted where the store said that there is none.
	buried := h.ref(c.keyRecord(c.createKey()), true)
	row := h.rows[buried.ID]
	delete(h.rows, buried.ID)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	want(t, "DeleteKey", c.do(1, "DeleteKey", named(buried.ID.ID.String())), 200, "successful")
	h.rows[buried.ID] = row
	foreign, _ := newHost(t)
	foreign.enroll()
	forged := h.ref(c.keyRecord(good), true)
	forged.Sealed = bytes.Clone(forged.Sealed)
	forged.Sealed[len(forged.Sealed)-1] ^= 1
	relabeled := h.ref(c.keyRecord(good), true)
	relabeled.ID.Tenant = wire.NewUUID()
	bare := h.ref(c.keyRecord(good), false)
	h.reachVersion(d, 2)
	for _, row := range []struct {
		name string
		core int
		ref  wire.Ref
	}{
		{"a state that a newer one has replaced", 0, old},
		{"one that a newer one has replaced, of which there are several", 0, unstored},
		{"a record whose owner was told that it is gone", 1, buried},
		{"of another domain", 0, foreign.all()[0]},
		{"forged", 0, forged},
		{"of another name", 0, relabeled},
		{"without bytes", 0, bare},
		{"nothing", 0, wire.Ref{}},
	} {
		due := h.ref(appID(c.id()), true)
		a := h.rewrap(row.core, 2, row.ref, due)
		if a.Kind != wire.Pending || len(a.Writes) != 1 || a.Writes[0].ID != due.ID {
			t.Fatalf("%s: kind %d, writes %v", row.name, a.Kind, a.Writes)
		}
		if end, err := h.resolve(row.core, a.Handle, wire.Stored); err != nil || end.Code != codeInternal {
			t.Errorf("%s: got code %d, %v, want 500", row.name, end.Code, err)
		}
		if a := h.rewrap(row.core, 2, row.ref); a.Kind != wire.Final || a.Code != codeInternal || len(a.Writes) != 0 || a.Audit.Count != 1 {
			t.Errorf("%s alone: got kind %d, code %d", row.name, a.Kind, a.Code)
		}
	}
}

func TestRewrapMessages(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	c.createKey()
	refs := h.all()
	wanted := []uint32{}
	h.cores[0].rotation.wanted = func(v uint32) { wanted = append(wanted, v) }
	if a := h.rewrap(0, 2, refs...); a.Kind != wire.Need || a.NeedVersion != 2 || !slices.Equal(wanted, []uint32{2}) {
		t.Errorf("a version that is not held: got %+v, wanted %v", a, wanted)
	}
	h.reachVersion(d, 2)
	if a := h.rewrap(0, 1, refs...); a.Kind != wire.Final || a.Code != codeInternal || len(a.Writes) != 0 {
		t.Errorf("back to the version before: got %+v", a)
	}
	twice := h.rewrap(0, 2, refs[0], refs[0])
	if end, err := h.resolve(0, twice.Handle, wire.Stored); len(twice.Writes) != 1 || err != nil || end.Code != codeInternal {
		t.Errorf("one record twice: got %d writes, %v", len(twice.Writes), err)
	}
	if _, err := h.cores[0].Rewrap(context.Background(), &wire.Rewrap{Version: 2, Records: make([]wire.Ref, wire.RewrapStep+1)}); !errors.Is(err, ErrLimit) {
		t.Errorf("too many records: got %v", err)
	}
	// A record under a version that this core lacks.
	other := d.twin(t)
	a := h.rewrap(0, 2, refs...)
	behind := other.start(t, h, Limits{})
	h.cores = append(h.cores, behind)
	other.grow(t) // another version 2: only the number counts here
	for _, w := range a.Writes {
		h.rows[w.ID] = wire.Write{ID: w.ID, Revision: w.Revision, Sealed: w.Sealed}
	}
	if b := h.rewrap(1, 2, h.all()...); b.Kind != wire.Final || b.Code != codeInternal {
		t.Errorf("records under another key of the same number: got %+v", b)
	}
}

// rewraps have records wrapped anew that should not help anybody.
var rewraps = []attack{
	{"a disabled key as it was before, wrapped anew", func(a *attacker) bool {
		key, before := a.disabled(0)
		a.reachVersion(a.domain, 2)
		a.bring(before)
		a.anew(2, before.ID)
		return a.usable(0, a.alice, key)
	}},
	{"a disabled key as it was before, lifted by many rotations", func(a *attacker) bool {
		key, before := a.disabled(0)
		a.bring(before)
		for version := uint32(2); version < 8; version++ {
			a.reachVersion(a.domain, version)
			a.anew(version, before.ID)
		}
		return a.usable(0, a.alice, key) || a.usable(a.start(), a.alice, key)
	}},
	{"a state that was never stored, wrapped anew beside the one that was", func(a *attacker) bool {
		key := a.alice.createKey()
		a.must(0, a.alice, "DisableKey", named(key))
		a.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
		a.gets(0, "EnableKey", a.alice.body(named(key)))
		a.outcome = nil
		enabled := a.captured(a.alice.keyRecord(key))
		a.must(0, a.alice, "DisableKey", named(key)) // the same revision as the one that was lost
		a.reachVersion(a.domain, 2)
		a.bring(enabled)
		a.anew(2, enabled.ID)
		return a.usable(0, a.alice, key) || a.usable(a.start(), a.alice, key)
	}},
	{"a key of another tenant", func(a *attacker) bool {
		key := a.alice.createKey()
		w := a.rows[a.alice.keyRecord(key)]
		v := a.rows[wire.RecordID{Type: wire.KeyVersion, Tenant: a.alice.id(), ID: w.ID.ID, Version: 1}]
		w.ID.Tenant, v.ID.Tenant = a.bob.id(), a.bob.id()
		a.bring(w)
		a.bring(v)
		a.reachVersion(a.domain, 2)
		a.anew(2, w.ID, v.ID)
		return a.usable(0, a.bob, key)
	}},
	{"the tag of the state altered, to pass for the one that was seen", func(a *attacker) bool {
		key, before := a.disabled(0)
		now := a.rows[before.ID]
		a.reachVersion(a.domain, 2)
		a.bring(before)
		a.anew(2, before.ID)
		w := a.rows[before.ID]
		tag := now.Tag()
		w.Sealed = bytes.Clone(w.Sealed)
		copy(w.Sealed[114:], tag[:])
		w.Revision = now.Revision
		a.bring(w)
		return a.usable(0, a.alice, key) || a.usable(a.start(), a.alice, key)
	}},
}

// anew has a core that has just started, and has seen nothing, wrap rows.
func (a *attacker) anew(version uint32, ids ...wire.RecordID) {
	fresh := a.domain.start(a.t, &host{t: a.t, now: a.now, rows: map[wire.RecordID]wire.Write{}}, Limits{})
	var refs []wire.Ref
	for _, id := range ids {
		refs = append(refs, a.ref(id, true))
	}
	answer, err := fresh.Rewrap(context.Background(), &wire.Rewrap{Version: version, Records: refs})
	if err != nil {
		a.t.Fatal(err)
	}
	for _, w := range answer.Writes {
		row := a.rows[w.ID]
		row.Sealed = w.Sealed
		a.rows[w.ID] = row
	}
}

func TestRewrapAttacks(t *testing.T) {
	for _, a := range rewraps {
		t.Run(a.name, func(t *testing.T) {
			if a.run(newAttacker(t, newDomain(t))) {
				t.Error("the attacker succeeded")
			}
		})
	}
}

// FuzzRewrapRecord offers a core what nobody has sealed.
func FuzzRewrapRecord(f *testing.F) {
	h, d := newHost(f)
	h.enroll()
	genuine := map[string]bool{}
	for _, r := range h.all() {
		f.Add(r.Sealed)
		genuine[string(r.Sealed)] = true
	}
	refs := h.all()
	h.reachVersion(d, 2)
	f.Fuzz(func(t *testing.T, sealed []byte) {
		for _, r := range refs {
			r.Sealed = sealed
			a, err := h.cores[0].Rewrap(context.Background(), &wire.Rewrap{Version: 2, Records: []wire.Ref{r}})
			if err != nil {
				t.Fatal(err)
			}
			if len(a.Writes) > 0 && !genuine[string(sealed)] {
				t.Error("wraps what was never sealed")
			}
			if a.Handle != 0 {
				h.cores[0].Resolve(context.Background(), wire.Resolve{Handle: a.Handle, Outcome: wire.Conflict})
			}
		}
	})
}

// BenchmarkRewrap is a step of 500 keys.
func BenchmarkRewrap(b *testing.B) {
	h, d := newHost(b)
	c := h.enroll()
	for range wire.RewrapStep {
		c.createKey()
	}
	refs := h.all()[:wire.RewrapStep]
	h.reachVersion(d, 2)
	b.ReportMetric(0, "ns/op")
	began := time.Now()
	for b.Loop() {
		a := h.rewrap(0, 2, refs...)
		h.cores[0].Resolve(context.Background(), wire.Resolve{Handle: a.Handle, Outcome: wire.Stored})
	}
	b.ReportMetric(float64(b.N)*float64(len(refs))/time.Since(began).Seconds(), "records/s")
}
