package core

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func (h *host) info(core int) wire.Info {
	h.t.Helper()
	i, err := h.cores[core].Info(context.Background())
	if err != nil {
		h.t.Fatal(err)
	}
	return i
}

func (h *host) update(core int, s *manifest.State) {
	h.t.Helper()
	if err := h.cores[core].Update(s, s.Date); err != nil {
		h.t.Fatal(err)
	}
}

// TestUpdate puts a manifest into force on a running core: what it decides counts at
// once, and what the core remembers stays.
func TestUpdate(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	key := c.createKey()
	before := h.rows[c.keyRecord(key)]
	used := c.body(encrypts(key))
	want(t, "Encrypt", c.send(0, "Encrypt", used), 200, "success!")
	c.mustDo("DisableKey", named(key))
	c.mustDo("EnableKey", named(key))
	was := h.info(0)
	h.update(0, d.manifest(2, func(s *manifest.Settings) {
		s.Enrollment, s.RequestWindow, s.DisabledKeySpecs = manifest.EnrollmentClosed, 300, []api.KeySpec{api.AESGCM256}
		s.Audit = manifest.Sync
	}))
	now := h.info(0)
	if now.Manifest != 2 || now.OpenEnrollment || !was.OpenEnrollment || now.Instance != was.Instance || now.HPKEKey != was.HPKEKey || now.AuditKey != was.AuditKey {
		t.Errorf("Info before: %+v, after: %+v", was, now)
	}
	want(t, "the same request again", c.send(0, "Encrypt", used), 400, errReplay().message)
	want(t, "CreateKey of a spec that is off", c.do(0, "CreateKey", newKey), 500, "Server exception.")
	old := c.sign(encrypts(key), h.now.Add(-400*time.Second), "o")
	want(t, "a request that is too old now", c.send(0, "Encrypt", old), 400, "Timestamp error")
	if r := c.do(0, "Encrypt", encrypts(key)); r.Code != 200 || !r.answer.Audit.Durable {
		t.Errorf("Encrypt: %d, durable %v", r.Code, r.answer.Audit.Durable)
	}
	if r := parseReply(t, h.call(0, &wire.Call{Action: "Enroll", Get: true})); r.Code == 200 {
		t.Error("enrollment is still open")
	}
	h.rows[before.ID] = before
	if r := c.do(0, "Encrypt", encrypts(key)); r.Code != 200 {
		t.Errorf("with the state from before in the store: %d %s", r.Code, r.Message) // the core has the newer one
	}
}

func TestUpdateRefused(t *testing.T) {
	h, d := newHost(t)
	h.update(0, d.manifest(3, func(s *manifest.Settings) { s.RequestWindow = 300 }))
	foreign := d.manifest(4, func(*manifest.Settings) {})
	foreign.Domain = genesis.ID{1}
	for _, row := range []struct {
		name string
		s    *manifest.State
		want error
	}{
		{"another domain", foreign, ErrManifest},
		{"the same", d.manifest(3, func(*manifest.Settings) {}), ErrManifest},
		{"an older one", d.manifest(2, func(*manifest.Settings) {}), ErrManifest},
		{"without simulation", d.manifest(4, func(s *manifest.Settings) { s.AllowSim, s.SimRoot = false, nil }), domainkey.ErrSimulated},
		{"with a root that does not parse", d.manifest(4, func(s *manifest.Settings) { s.SimRoot = []byte{1} }), ErrManifest},
	} {
		if err := h.cores[0].Update(row.s, d.state.Date); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
		if i := h.info(0); i.Manifest != 3 || h.cores[0].terms.Load().settings.RequestWindow != 300 {
			t.Errorf("%s: manifest %d is in force", row.name, i.Manifest)
		}
	}
}

// TestUpdateRaisesTheClock has the date of what was verified count for the present.
func TestUpdateRaisesTheClock(t *testing.T) {
	h, d := newHost(t)
	date := h.now.Add(time.Hour)
	if err := h.cores[0].Update(d.manifest(2, func(*manifest.Settings) {}), date); err != nil {
		t.Fatal(err)
	}
	if now := h.cores[0].clock.micros(); now < date.UnixMicro() {
		t.Errorf("the time is %s, want %s", time.UnixMicro(now), date)
	}
}

// TestLargerWindow sends a request again that left the window while that was
// small: a larger one does not let it in.
func TestLargerWindow(t *testing.T) {
	d := newDomain(t)
	d.settings.RequestWindow = 60
	h := d.host(t, Limits{})
	c := h.enroll()
	key := c.createKey()
	used := c.body(encrypts(key))
	want(t, "Encrypt", c.send(0, "Encrypt", used), 200, "success!")
	missed := c.body(encrypts(key))
	h.now = h.now.Add(90 * time.Second)
	want(t, "another request makes room", c.do(0, "Encrypt", encrypts(key)), 200, "success!")
	recent := c.sign(encrypts(key), h.now.Add(-30*time.Second), "r")
	h.update(0, d.manifest(2, func(s *manifest.Settings) { s.RequestWindow = 600 }))
	want(t, "the same request again", c.send(0, "Encrypt", used), 400, "Timestamp error")
	want(t, "one as old that was never used", c.send(0, "Encrypt", missed), 400, "Timestamp error")
	want(t, "a recent one", c.send(0, "Encrypt", recent), 200, "success!")
	h.now = h.now.Add(9 * time.Minute)
	want(t, "one that is old by the new window only", c.send(0, "Encrypt", c.sign(encrypts(key), h.now.Add(-8*time.Minute), "n")), 200, "success!")
	h.update(0, d.manifest(3, func(s *manifest.Settings) { s.RequestWindow = 60 }))
	want(t, "and by the smaller one", c.send(0, "Encrypt", c.sign(encrypts(key), h.now.Add(-7*time.Minute), "s")), 400, "Timestamp error")
}

// TestSpread has a core go on with the version before until the others have the
// new one.
func TestSpread(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	wanted := []uint32{}
	h.cores[0].rotation.wanted = func(v uint32) { wanted = append(wanted, v) }
	under := func() uint32 {
		version, _ := wire.SealedVersions(h.rows[c.keyRecord(c.createKey())].Sealed)
		return version
	}
	h.update(0, d.manifest(2, current(2)))
	if got := under(); got != 1 || !slices.Contains(wanted, 2) {
		t.Errorf("without the key: wrapped under %d, wanted %v", got, wanted)
	}
	d.grow(t)
	if got := under(); got != 1 {
		t.Errorf("with a key that has just come: wrapped under %d", got)
	}
	h.now = h.now.Add(14 * time.Second)
	if got := under(); got != 1 || h.info(0).DomainKey != 1 {
		t.Errorf("after 14 s: wrapped under %d", got)
	}
	h.now = h.now.Add(time.Second)
	if got := under(); got != 2 || h.info(0).DomainKey != 2 {
		t.Errorf("after 15 s: wrapped under %d", got)
	}
	// Two in a row: the time of the second counts from when it is there.
	h.update(0, d.manifest(3, current(3)))
	d.grow(t)
	under()
	h.now = h.now.Add(10 * time.Second)
	h.update(0, d.manifest(4, current(4)))
	d.grow(t)
	under()
	h.now = h.now.Add(10 * time.Second)
	if got := under(); got != 2 {
		t.Errorf("10 s after the second of two: wrapped under %d", got)
	}
	h.now = h.now.Add(5 * time.Second)
	if _, err := h.cores[0].Checkpoint(t.Context()); err != nil || h.info(0).DomainKey != 4 {
		t.Errorf("15 s after it: wrapped under %d, %v", h.info(0).DomainKey, err)
	}
}

// TestFloor has the store say under which version it takes records at least.
func TestFloor(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	key := c.createKey()
	wanted := []uint32{}
	h.cores[0].rotation.wanted = func(v uint32) { wanted = append(wanted, v) }
	call := func(floor uint32) *wire.Answer {
		a, err := h.cores[0].Call(t.Context(), &wire.Call{Action: "DisableKey", Body: c.body(named(key)), Records: h.all(), Floor: floor})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	if a := call(2); a.Kind != wire.Need || a.NeedVersion != 2 || !slices.Equal(wanted, []uint32{2}) {
		t.Errorf("a floor that is not held: got %+v, wanted %v", a, wanted)
	}
	if a, err := h.cores[0].Sweep(t.Context(), &wire.Sweep{App: h.ref(appID(c.id()), true), Floor: 2}); err != nil || a.NeedVersion != 2 {
		t.Errorf("Sweep: got %+v, %v", a, err)
	}
	d.grow(t)
	if a := call(2); a.Kind != wire.Pending || h.info(0).DomainKey != 2 {
		t.Errorf("a floor that is held: got kind %d, wrapped under %d", a.Kind, h.info(0).DomainKey)
	}
	if a := call(1); a.Kind != wire.Pending || h.info(0).DomainKey != 2 {
		t.Errorf("a lower floor: got kind %d, wrapped under %d", a.Kind, h.info(0).DomainKey)
	}
}

// TestSleeper is a core that has missed a rotation: it asks for the version that a
// record names, and serves when it has it.
func TestSleeper(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	asleep := d.twin(t)
	h.cores = append(h.cores, asleep.start(t, h, Limits{}))
	wanted := []uint32{}
	h.cores[1].rotation.wanted = func(v uint32) { wanted = append(wanted, v) }
	h.cores = h.cores[:1]
	h.reachVersion(d, 2)
	h.reachVersion(d, 3)
	h.cores = h.cores[:2]
	key, external := c.createKey(), c.createExternal("EH_AES_GCM_256")
	i := c.parameters(external, "EH_RSA_2048")
	body := c.body(encrypts(key))
	for _, fresh := range []bool{false, true} {
		a, err := h.cores[1].Call(t.Context(), &wire.Call{Action: "Encrypt", Body: body, Records: h.all(), Fresh: fresh})
		if err != nil || a.Kind != wire.Need || a.NeedVersion != 3 || wanted[len(wanted)-1] != 3 || a.Audit.Count != 0 {
			t.Fatalf("got %+v, %v, wanted %v", a, err, wanted)
		}
	}
	if err := asleep.keys.Adopt(d.keys); err != nil {
		t.Fatal(err)
	}
	want(t, "the same request, with the key", c.send(1, "Encrypt", body), 200, "success!")
	if r := c.do(1, "ImportKeyMaterial", i.payload(t, "EH_RSA_PKCS1_OAEP", make([]byte, 32))); r.Code != 200 {
		t.Errorf("a token of the core that was ahead: got %d %s", r.Code, r.Message)
	}
}

// TestTokenOfTheFuture shows tokens that name versions which are not held.
func TestTokenOfTheFuture(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	key := c.createExternal("EH_AES_GCM_256")
	i := c.parameters(key, "EH_RSA_2048")
	payload := i.payload(t, "EH_RSA_PKCS1_OAEP", make([]byte, 32))
	token, err := parseToken(payload["importToken"].(string))
	if err != nil {
		t.Fatal(err)
	}
	token.dkVersion = 2
	payload["importToken"] = token.text()
	want(t, "of a version that no manifest has", c.do(0, "ImportKeyMaterial", payload), 500, errToken("").message)
	h.update(0, d.manifest(2, current(2)))
	a, err := h.cores[0].Call(t.Context(), &wire.Call{Action: "ImportKeyMaterial", Body: c.body(payload), Records: h.all(), Fresh: true})
	if err != nil || a.Kind != wire.Need || a.NeedVersion != 2 {
		t.Errorf("of the version that is still to come: got %+v, %v", a, err)
	}
}

// TestRotateUnderLoad changes manifests and the DomainKey, and wraps everything anew,
// while tenants work. No request fails.
func TestRotateUnderLoad(t *testing.T) {
	h, d := newHost(t)
	other := d.twin(t)
	h.cores = append(h.cores, other.start(t, h, Limits{}))
	var wg sync.WaitGroup
	stop := make(chan struct{})
	rounds := make([]chan struct{}, 4) // told of when somebody listens
	for n := range rounds {
		c := h.enroll()
		rounds[n] = make(chan struct{})
		wg.Go(func() {
			defer close(rounds[n])
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				case rounds[n] <- struct{}{}:
				default:
				}
				if err := work(c, n%2, i); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for n := uint64(2); n <= 7; n++ {
		d.grow(t)
		if err := other.keys.Adopt(d.keys); err != nil {
			t.Fatal(err)
		}
		s := d.manifest(n, current(uint32(n)))
		s.Settings.RequestWindow = 600 - 10*int(n%2)
		for i := uint32(1); i+2 < uint32(n); i++ {
			s.Settings.DomainKey.Forgotten = append(s.Settings.DomainKey.Forgotten, i)
		}
		for _, c := range h.cores {
			if err := errors.Join(c.Update(s, s.Date), c.reach(uint32(n), c.clock.micros())); err != nil {
				t.Fatal(err)
			}
		}
		h.mu.Lock()
		h.floor = uint32(n) // or a request that has begun before could store after all is wrapped anew
		h.mu.Unlock()
		for _, r := range rounds { // nothing is under way for longer than a rotation
			<-r
			<-r
		}
		for left := 1; left > 0; {
			left = h.rewrapAll(uint32(n))
		}
	}
	close(stop)
	wg.Wait()
	if d.keys.Holds(4) || !d.keys.Holds(5) {
		t.Error("version 4 is not forgotten, or 5 is")
	}
}

// rewrapAll wraps what is due, and returns how many records that were.
func (h *host) rewrapAll(version uint32) (due int) {
	h.mu.Lock()
	var ids []wire.RecordID
	for id, w := range h.rows {
		if wrapped, _ := wire.SealedVersions(w.Sealed); wrapped < version && len(ids) < wire.RewrapStep {
			ids = append(ids, id)
		}
	}
	h.mu.Unlock()
	var refs []wire.Ref
	for _, id := range ids {
		refs = append(refs, h.ref(id, true))
	}
	if len(refs) > 0 {
		h.settle(0, h.rewrap(0, version, refs...))
	}
	return len(ids)
}

// work is what a tenant does once, on one core.
func work(c *tenant, core, i int) error {
	r := c.do(core, "CreateKey", newKey)
	if r.Code != 200 {
		return fmt.Errorf("CreateKey: %d %s", r.Code, r.Message)
	}
	key := r.text("keyid")
	sealed := c.do(core, "Encrypt", encrypts(key))
	for _, step := range []struct {
		action  string
		payload map[string]any
	}{
		{"Decrypt", map[string]any{"keyid": key, "ciphertext": sealed.text("ciphertext")}},
		{"DisableKey", named(key)}, {"EnableKey", named(key)}, {"Encrypt", encrypts(key)},
		{"CreateSecret", map[string]any{"secretName": fmt.Sprint("s", i), "secretData": "d"}},
		{"GetSecretValue", map[string]any{"secretName": fmt.Sprint("s", i)}},
		{"DeleteKey", named(key)},
	} {
		if r := c.do(core, step.action, step.payload); r.Code != 200 {
			return fmt.Errorf("%s: %d %s", step.action, r.Code, r.Message)
		}
	}
	return nil
}

// TestInfoCompromised asks which version of the DomainKey has leaked: the highest one
// that the manifest in force says.
func TestInfoCompromised(t *testing.T) {
	h, d := newHost(t)
	if got := h.info(0).Compromised; got != 0 {
		t.Errorf("before a leak: got version %d", got)
	}
	for i, row := range []struct {
		name string
		key  manifest.DomainKey
		want uint32
	}{
		{"the first", manifest.DomainKey{Version: 2, Compromised: []uint32{1}}, 1},
		{"two", manifest.DomainKey{Version: 4, Compromised: []uint32{1, 3}}, 3},
		{"also when it is forgotten", manifest.DomainKey{Version: 4, Compromised: []uint32{1, 3}, Forgotten: []uint32{1, 3}}, 3},
	} {
		for h.cores[0].keys.Current() < row.key.Version {
			h.reachVersion(d, h.cores[0].keys.Current()+1)
		}
		h.update(0, d.manifest(uint64(i+2), func(s *manifest.Settings) { s.DomainKey = row.key }))
		if got := h.info(0).Compromised; got != row.want {
			t.Errorf("%s: got version %d, want %d", row.name, got, row.want)
		}
	}
}
