package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

var secretRecord = wire.RecordID{Type: wire.Secret, Tenant: tenant, ID: wire.SecretID(tenant, "a b\n")}

func valueRecord(version uint32) wire.RecordID {
	return wire.RecordID{Type: wire.SecretVersion, Tenant: tenant, ID: wire.UUID{9}, Version: version}
}

// secretCore needs, for each request on a secret, the version that is current,
// the key and its version, as the real core does.
type secretCore struct {
	*fakeCore
	current uint32
}

func (c *secretCore) Call(ctx context.Context, call *wire.Call) (*wire.Answer, error) {
	c.mu.Lock()
	var missing []wire.RecordID
	wants := []wire.RecordID{valueRecord(c.current), keyRecord}
	if c.has(call, keyRecord) {
		wants = append(wants, versionRecord) // which only the key names
	}
	for _, id := range wants {
		if !c.has(call, id) {
			missing = append(missing, id)
		}
	}
	if missing != nil {
		kept := *call
		kept.Records = slices.Clone(call.Records)
		c.calls = append(c.calls, kept)
		for _, f := range call.Records {
			missing = append(missing, f.ID)
		}
		c.mu.Unlock()
		return &wire.Answer{Kind: wire.Need, NeedRecords: missing}, nil
	}
	c.mu.Unlock()
	return c.fakeCore.Call(ctx, call)
}

func (c *secretCore) has(call *wire.Call, id wire.RecordID) bool {
	return slices.ContainsFunc(call.Records, func(f wire.Ref) bool { return f.ID == id })
}

func newSecretRig(t *testing.T) (*rig, *secretCore) {
	g := newRig(t, Options{})
	core := &secretCore{g.core, 1}
	g.Relay.core = core
	for _, id := range []wire.RecordID{secretRecord, valueRecord(1), valueRecord(2), valueRecord(3)} {
		g.store.put(id, 0, 0)
	}
	return g, core
}

// calls sends a request on the secret and returns what the core was called with.
func (g *rig) calls(t *testing.T, action string, n int) (sent []string) {
	t.Helper()
	g.core.calls = nil
	body := fmt.Appendf(nil, `{"appid":"%s","nonce":"%d","payload":{"secretName":"a b\n"}}`, tenant, n)
	r, err := g.Do(context.Background(), Request{ID: "r", Action: action, Body: body})
	if err != nil || r.Code != 200 {
		t.Fatalf("%s: got %s, %v", action, r.Body, err)
	}
	for _, c := range g.core.calls {
		var parts []string
		for _, f := range c.Records {
			parts = append(parts, fmt.Sprintf("%s/%d:%v", f.ID.Type, f.ID.Version, f.Sealed != nil))
		}
		sent = append(sent, strings.Join(parts, " "))
	}
	return sent
}

func TestSecretInOneRoundTrip(t *testing.T) {
	g, core := newSecretRig(t)
	first := g.calls(t, "Read", 1)
	if len(first) != 2 || !strings.HasPrefix(first[0], "app/0:true secret/0:true") {
		t.Errorf("first use: got %q, want two calls, the first with app and secret", first)
	}
	const known = "app/0:false secret/0:false key/0:false secret version/1:false key version/1:false"
	reads := g.store.reads
	if got := g.calls(t, "Read", 2); !slices.Equal(got, []string{known}) {
		t.Errorf("second use: got %q, want %q", got, known)
	}
	if g.store.reads != reads {
		t.Errorf("a request on a known secret reads the store %d times", g.store.reads-reads)
	}
	// Another version is asked for once, and the older one stays known.
	core.current = 2
	if got := g.calls(t, "Read", 3); len(got) != 2 {
		t.Errorf("new version: got %q, want two calls", got)
	}
	for n, version := range []uint32{2, 1, 2, 1} {
		core.current = version
		if got := g.calls(t, "Read", 10+n); len(got) != 1 {
			t.Errorf("version %d: got %q, want one call", version, got)
		}
	}
	// A third one takes the place of the older one, not that of the key.
	core.current = 3
	g.calls(t, "Read", 20)
	if got := g.calls(t, "Read", 21); len(got) != 1 || strings.Contains(got[0], "secret version/1") || !strings.Contains(got[0], "key version/1") {
		t.Errorf("third version: got %q, want one call without version 1", got)
	}
	// A version that is gone is no longer sent, and costs no reads.
	g.store.remove(wire.Write{ID: valueRecord(2), Remove: true})
	delete(g.core.held, valueRecord(2))
	g.rows.clear()
	g.calls(t, "Read", 22)
	reads = g.store.reads
	if got := g.calls(t, "Read", 23); g.store.reads != reads || len(got) != 1 || strings.Contains(got[0], "secret version/2") {
		t.Errorf("removed version: got %q and %d reads, want one call without it and none", got, g.store.reads-reads)
	}
}

// TestNewVersionIsKnown reads what the same relay has just written.
func TestNewVersionIsKnown(t *testing.T) {
	g, core := newSecretRig(t)
	g.calls(t, "Read", 1)
	x := exchange{relay: g.Relay, call: wire.Call{Fresh: true}, names: names{tenant: tenant, secret: secretRecord.ID}}
	x.extra = g.hints.get(secretRecord)
	x.hints = len(x.extra)
	x.note([]wire.Write{{ID: valueRecord(0), Remove: true}, {ID: valueRecord(2)}, {ID: secretRecord}})
	for _, id := range []wire.RecordID{valueRecord(2), valueRecord(1), keyRecord, versionRecord} {
		x.call.Records = append(x.call.Records, wire.Ref{ID: id, Revision: 1})
	}
	x.remember()
	if got, want := g.hints.get(secretRecord), []wire.RecordID{valueRecord(2), keyRecord, versionRecord}; !slices.Equal(got, want) {
		t.Errorf("hints: got %v, want %v", got, want)
	}
	core.current = 2
	if got := g.calls(t, "Read", 2); len(got) != 1 {
		t.Errorf("read after a write: got %q, want one call", got)
	}
}

func TestHintsAreBounded(t *testing.T) {
	h := newHints(10)
	for n := range 1000 {
		h.put(wire.RecordID{ID: wire.UUID{byte(n), byte(n >> 8)}}, []wire.RecordID{valueRecord(1)})
		if h.get(wire.RecordID{ID: wire.UUID{}}) == nil {
			t.Fatalf("what is used is forgotten after %d others", n)
		}
	}
	if n := len(h.young) + len(h.old); n > 20 {
		t.Errorf("%d secrets are remembered, want at most 20", n)
	}
	ids := h.get(wire.RecordID{})
	_ = append(ids, keyRecord)
	if got := h.get(wire.RecordID{}); len(got) != 1 || cap(got) != 1 {
		t.Errorf("hints can be overwritten by who got them: %v", got)
	}
}

func TestPeekSecret(t *testing.T) {
	for name, row := range map[string]struct {
		payload string
		want    wire.UUID // zero: none
	}{
		"a name":        {`{"secretName":"a b\n"}`, secretRecord.ID},
		"escaped":       {`{"secretName":"\u0061 b\u000a"}`, secretRecord.ID},
		"empty":         {`{"secretName":""}`, wire.UUID{}},
		"a number":      {`{"secretName":5}`, wire.UUID{}},
		"other case":    {`{"SecretName":"a b\n"}`, wire.UUID{}},
		"twice":         {`{"secretName":"x","secretName":"a b\n"}`, secretRecord.ID},
		"payload array": {`["secretName"]`, wire.UUID{}},
	} {
		n, ok := peek("GetSecretValue", fmt.Appendf(nil, `{"appid":"%s","payload":%s}`, tenant, row.payload))
		if !ok || n.secret != row.want || n.hasSecret() != (row.want != wire.UUID{}) {
			t.Errorf("%s: got %v, %v, want %v", name, n.secret, ok, row.want)
		}
	}
}

// TestAllGetThrough has more changes of one record at once than a change has
// attempts.
func TestAllGetThrough(t *testing.T) {
	g := newRig(t, Options{})
	const n = 5 * maxAttempts
	// None is stored before the core has answered all.
	var first sync.Once
	g.store.beforeApply = func(context.Context, store.Change) error {
		first.Do(func() {
			for !g.sink.has(n) {
				runtime.Gosched()
			}
		})
		return nil
	}
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			if r, err := g.do("Add", i); r.Code != 200 {
				t.Errorf("change %d: got code %d, %v", i, r.Code, err)
			}
		})
	}
	wg.Wait()
	if row := g.store.row(versionRecord); row.Revision != n+1 {
		t.Errorf("got revision %d, want %d", row.Revision, n+1)
	}
}

// secretDue stores a secret with versions that is due some time from now.
func (g *rig) secretDue(n byte, value uint64, versions uint32, in time.Duration) wire.RecordID {
	id := wire.RecordID{Type: wire.Secret, Tenant: tenant, ID: wire.UUID{n, 15: 1}}
	g.store.put(id, value, 0)
	for v := range versions {
		g.store.put(wire.RecordID{Type: wire.SecretVersion, Tenant: tenant, ID: id.ID, Version: v + 1}, 0, 0)
	}
	g.store.mu.Lock()
	defer g.store.mu.Unlock()
	g.store.due[id] = time.Now().Add(in).UnixMilli()
	return id
}

// values counts the secret versions in the store.
func (g *rig) values() (n int) {
	g.store.mu.Lock()
	defer g.store.mu.Unlock()
	for id := range g.store.rows {
		if id.Type == wire.SecretVersion {
			n++
		}
	}
	return n
}

func TestPurge(t *testing.T) {
	running(t, Options{}, func(g *rig) {
		soon := g.secretDue(1, 0, 600, 90*time.Second)
		late := g.secretDue(2, 0, 2, time.Hour)
		time.Sleep(purgePeriod + time.Second)
		synctest.Wait()
		if n := g.values(); n != 602 {
			t.Errorf("before the time %d versions are left, want 602", n)
		}
		time.Sleep(purgePeriod)
		synctest.Wait()
		if n := g.values(); n != 2 || !g.store.row(soon).Hidden || g.store.row(late).Hidden {
			t.Errorf("at the time %d versions are left, want 2", n)
		}
		if len(g.store.due) != 1 {
			t.Errorf("%d secrets are due, want 1", len(g.store.due))
		}
	})
}

func TestPurgeAtStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{})
		for n := range byte(40) {
			g.secretDue(n, 0, 1, -time.Second)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go g.Run(ctx, g.store)
		synctest.Wait()
		if n := g.values(); n != 0 {
			t.Errorf("%d versions are left", n)
		}
		cancel()
		synctest.Wait()
	})
}

// TestPurgeGoesOn has a secret that the core refuses to purge, and one that
// changes meanwhile.
func TestPurgeGoesOn(t *testing.T) {
	var log bytes.Buffer
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		refused := g.secretDue(1, 1, 1, time.Second)
		met := g.secretDue(2, 0, 1, time.Second)
		gone := g.secretDue(3, 0, 0, time.Second)
		g.store.mu.Lock()
		delete(g.store.rows, gone)
		g.store.mu.Unlock()
		conflicts := 0
		g.store.beforeApply = func(_ context.Context, c store.Change) error {
			if len(c.Writes) == 2 && c.Writes[1].ID == met && conflicts < 2 {
				conflicts++
				g.store.put(met, 0, 0)
			}
			return nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer synctest.Wait()
		defer cancel()
		go g.Run(ctx, g.store)
		time.Sleep(3*purgePeriod + time.Second)
		synctest.Wait()
		if conflicts != 2 || !g.store.row(met).Hidden || g.store.row(refused).Hidden {
			t.Errorf("%d conflicts, purged %v, refused one purged %v", conflicts, g.store.row(met).Hidden, g.store.row(refused).Hidden)
		}
		if n := strings.Count(log.String(), "secrets not purged"); n != 1 || !strings.Contains(log.String(), "core refuses a step with code 500") {
			t.Errorf("%d complaints in the log, want 1:\n%s", n, &log)
		}
	})
}

// TestUnknownOutcomeOfRemoval asks what became of a change whose first write is a
// removal: that there is no such record says nothing.
func TestUnknownOutcomeOfRemoval(t *testing.T) {
	for name, row := range map[string]struct {
		before, after error
		stored        bool
	}{
		"it was stored":     {nil, errDisk, true},
		"it was not stored": {errDisk, nil, false},
	} {
		g := newRig(t, Options{})
		id := g.secretDue(1, 0, 0, 0)
		g.store.beforeApply = func(context.Context, store.Change) error { return row.before }
		g.store.afterApply = func() error { return row.after }
		done, err := g.purge(context.Background(), id)
		if done != row.stored || !errors.Is(err, errDisk) || g.store.row(id).Hidden != row.stored {
			t.Errorf("%s: got done %v, %v", name, done, err)
		}
		want := wire.Failed
		if row.stored {
			want = wire.Stored
		}
		if !slices.Equal(g.core.resolved, []wire.Outcome{want}) {
			t.Errorf("%s: core is told %v", name, g.core.resolved)
		}
	}
}

// TestListingsWait lets more listings of one tenant in at once than may be under way.
func TestListingsWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := newRig(t, Options{Processors: 2 * maxListings})
		entered, leave := 0, make(chan struct{})
		g.core.before = func(c *wire.Call) error {
			if c.Listed {
				g.core.mu.Lock()
				entered++
				g.core.mu.Unlock()
				<-leave
			}
			return nil
		}
		var wg sync.WaitGroup
		for n := range 3 * maxListings {
			wg.Go(func() { g.do("ListKey", n) })
		}
		synctest.Wait()
		if entered != maxListings-1 {
			t.Errorf("%d listings are under way, want %d", entered, maxListings-1)
		}
		close(leave)
		wg.Wait()
		if entered != 3*maxListings || g.listings.Stats().Taken != 0 {
			t.Errorf("%d listings were answered, %d places are taken", entered, g.listings.Stats().Taken)
		}
	})
}
