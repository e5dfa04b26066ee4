package core

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func TestClock(t *testing.T) {
	floor := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	now := floor.Add(-time.Hour)
	c := newClock(func() time.Time { return now }, floor)
	for _, tt := range []struct {
		name       string
		host, want time.Duration // after the floor
	}{
		{"before the floor", -time.Hour, 0},
		{"long before the epoch", -100 * 365 * 24 * time.Hour, 0},
		{"at the floor", 0, 0},
		{"later", time.Minute, time.Minute},
		{"back", time.Second, time.Minute},
		{"a microsecond later", time.Minute + time.Microsecond, time.Minute + time.Microsecond},
		{"a nanosecond later", time.Minute + time.Microsecond + 1, time.Minute + time.Microsecond},
		{"far ahead", 1000 * time.Hour, 1000 * time.Hour},
		{"back for good", time.Hour, 1000 * time.Hour},
	} {
		now = floor.Add(tt.host)
		if got := c.micros(); got != floor.Add(tt.want).UnixMicro() {
			t.Errorf("%s: got %v after the floor, want %v", tt.name, time.UnixMicro(got).Sub(floor), tt.want)
		}
	}
}

func TestClockOfManyReaders(t *testing.T) {
	var host atomic.Int64
	c := newClock(func() time.Time { return time.UnixMicro(host.Add(1) ^ 3) }, time.UnixMicro(0)) // goes back half the time
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			last := int64(0)
			for range 5000 {
				now := c.micros()
				if now < last {
					t.Errorf("%d follows %d", now, last)
					return
				}
				last = now
			}
		})
	}
	wg.Wait()
}

// record names for tests of the tables.
func recordOf(n int) wire.RecordID {
	return wire.RecordID{Type: wire.Key, ID: wire.UUID{byte(n), byte(n >> 8), byte(n >> 16)}}
}

func TestSeen(t *testing.T) {
	s := newSeen(1024, facts.NewLog(nil, 0))
	a, b, c := wire.Tag{1}, wire.Tag{2}, wire.Tag{3}
	id := recordOf(1)
	steps := []struct {
		name     string
		revision uint64
		tag      wire.Tag
		want     standing
	}{
		{"first", 1, a, newest},
		{"another first: they take no room", 1, b, newest},
		{"second", 2, a, newest},
		{"second again", 2, a, newest},
		{"its rival", 2, b, rival},
		{"first now", 1, a, superseded},
		{"fifth", 5, b, newest},
		{"second now", 2, a, superseded},
		{"fourth", 4, a, superseded},
		{"the fifth's rival", 5, c, rival},
		{"fifth again", 5, b, newest},
	}
	for _, tt := range steps {
		if got := s.accept(id, tt.revision, tt.tag); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
	if !s.exists(id) || s.exists(recordOf(2)) {
		t.Error("exists is wrong")
	}
	s.bury(id)
	s.bury(recordOf(3))
	for _, buried := range []wire.RecordID{id, recordOf(3)} {
		if s.exists(buried) || s.accept(buried, 6, a) != superseded || s.accept(buried, 1, a) != superseded {
			t.Errorf("%s is not buried", buried)
		}
	}
	other := id
	other.Version = 1
	if s.accept(other, 1, a) != newest {
		t.Error("a version of the record is buried too")
	}
}

func TestSeenIsBounded(t *testing.T) {
	const limit = 1024
	s := newSeen(limit, facts.NewLog(nil, 0))
	for i := range 10 * limit {
		if s.accept(recordOf(i), 2, wire.Tag{1}) != newest {
			t.Fatalf("record %d is refused", i)
		}
		s.accept(recordOf(i-limit/2), 3, wire.Tag{1}) // a change moves nothing up
		if len(s.states) > limit || len(s.order) > limit {
			t.Fatalf("%d states, %d in order", len(s.states), len(s.order))
		}
	}
	for i := range 10 * limit {
		want := newest
		if i >= 9*limit { // the oldest entries are forgotten, and no others
			want = superseded
		}
		if got := s.accept(recordOf(i), 1, wire.Tag{1}); got != want {
			t.Fatalf("record %d: got %d, want %d", i, got, want)
		}
	}
}

func newTestCache(limit int) *cache[int] {
	return newCache[int](limit, newSeen(1024, facts.NewLog(nil, 0)))
}

func TestCachePut(t *testing.T) {
	c := newTestCache(16)
	id, a, b := recordOf(1), wire.Tag{1}, wire.Tag{2}
	steps := []struct {
		name     string
		revision uint64
		tag      wire.Tag
		want     bool
	}{
		{"first", 1, a, true},
		{"first again", 1, a, true},
		{"its rival", 1, b, false},
		{"third", 3, a, true},
		{"second", 2, a, false},
		{"first", 1, a, false},
		{"the third's rival", 3, b, false},
		{"third again", 3, a, true},
	}
	for i, tt := range steps {
		if got := c.put(id, tt.revision, tt.tag, i); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	if e := c.get(id); e == nil || e.revision != 3 || e.tag != a || e.value != 7 {
		t.Errorf("cached: %+v", e)
	}
	if e := c.get(recordOf(2)); e != nil {
		t.Errorf("an absent record is cached as %+v", e)
	}
	c.seen.accept(id, 9, a)
	if c.put(id, 8, a, 0) || c.get(id).revision != 3 {
		t.Error("a state older than one that was seen is cached")
	}
	// What is cached counts even where the table of seen revisions has lost it.
	for i := range 2000 {
		c.seen.accept(recordOf(100+i), 2, a)
	}
	if c.put(id, 2, a, 0) || c.put(id, 3, b, 0) {
		t.Error("a state older than the cached one is cached")
	}
}

// Every entry that was used since the hand last passed gets a second chance.
func TestCacheSecondChance(t *testing.T) {
	const limit = 16
	c := newTestCache(limit)
	hot := recordOf(0)
	c.put(hot, 1, wire.Tag{}, 0)
	for i := 1; i < 100*limit; i++ {
		c.put(recordOf(i), 1, wire.Tag{}, i)
		if c.get(hot) == nil {
			t.Fatalf("a record in constant use is dropped after %d others", i)
		}
		if len(c.entries) > limit || len(c.ring) > limit {
			t.Fatalf("%d entries, %d in the ring", len(c.entries), len(c.ring))
		}
	}
	for slot, e := range c.ring {
		if e.slot != slot || c.entries[e.id] != e {
			t.Errorf("slot %d has %+v", slot, e)
		}
	}
	for _, e := range c.ring { // all used: one of them must go all the same
		c.get(e.id)
	}
	c.put(recordOf(9999), 1, wire.Tag{}, 0)
	if c.get(recordOf(9999)) == nil || len(c.entries) != limit {
		t.Errorf("%d entries", len(c.entries))
	}
}

// Old and new states are put by many at once, while others fill the cache. What
// is read never goes back behind a state whose put has returned.
func TestCacheRace(t *testing.T) {
	c := newTestCache(16)
	var confirmed [8]atomic.Uint64
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for n := range 3000 {
				k := r.IntN(len(confirmed))
				least := confirmed[k].Load()
				if e := c.get(recordOf(k)); e != nil && e.revision < least {
					t.Errorf("read revision %d, after %d", e.revision, least)
					return
				}
				next := least + 1 - uint64(r.IntN(3))
				if next > 0 && next < 1<<60 && c.put(recordOf(k), next, wire.Tag{byte(w)}, 0) {
					for have := confirmed[k].Load(); have < next && !confirmed[k].CompareAndSwap(have, next); {
						have = confirmed[k].Load()
					}
				}
				if n%3 == 0 {
					c.put(recordOf(1000+r.IntN(100)), 1, wire.Tag{}, 0)
				}
			}
		})
	}
	wg.Wait()
	if len(c.entries) > 16 {
		t.Errorf("%d entries", len(c.entries))
	}
}

// The set against a map, with tags that crowd in few places.
func TestTagSet(t *testing.T) {
	for seed := range uint64(12) {
		r := rand.New(rand.NewPCG(seed, 9))
		crowd := seed%2 == 0
		draw := func() (t wire.Tag) {
			n := r.IntN(150) + 1
			t = tagOf(n)
			if crowd { // all at home in the last or the first slots
				t[6], t[7] = byte(n%3-1), byte(n%2-1)
			}
			return t
		}
		var s tagSet
		model := map[wire.Tag]bool{}
		for step := range 4000 {
			tag := draw()
			if has := s.has(tag); has != model[tag] {
				t.Fatalf("seed %d, step %d: has is %v", seed, step, has)
			}
			switch grow := r.IntN(1000) < 1000-step/4; {
			case grow && !model[tag]:
				s.add(tag)
				model[tag] = true
			case !grow:
				if removed := s.remove(tag); removed != model[tag] {
					t.Fatalf("seed %d, step %d: remove is %v", seed, step, removed)
				}
				delete(model, tag)
			}
			if s.count != len(model) {
				t.Fatalf("seed %d, step %d: count is %d, want %d", seed, step, s.count, len(model))
			}
		}
		for n := range 151 {
			if tag := tagOf(n); !crowd && s.has(tag) != model[tag] {
				t.Fatalf("seed %d: tag %d: has is %v", seed, n, s.has(tag))
			}
		}
	}
}

func TestPending(t *testing.T) {
	p := newPending(16)
	handles := map[uint64]bool{}
	for i := range 16 {
		h, ok := p.add(&request{now: int64(i)})
		if !ok || h == 0 || handles[h] {
			t.Fatalf("add %d: got %d, %v", i, h, ok)
		}
		handles[h] = true
	}
	if _, ok := p.add(&request{}); ok {
		t.Error("one more than the limit is taken")
	}
	if x, ok := p.take(3); !ok || x.now != 2 {
		t.Errorf("take: got %+v, %v", x, ok)
	}
	for _, handle := range []uint64{0, 3, 17, 1 << 40} {
		if _, ok := p.take(handle); ok {
			t.Errorf("handle %d is taken", handle)
		}
	}
	if h, ok := p.add(&request{now: 100}); !ok || h != 17 {
		t.Errorf("add: got %d, %v: handles are not used again", h, ok)
	}
	dropped := 0
	p.expire(pendingMicros+7, func(x *request) {
		if dropped++; x.now >= 7 {
			t.Errorf("what came at %d is dropped", x.now)
		}
	})
	if dropped != 6 || len(p.open) != 10 {
		t.Errorf("%d dropped, %d left", dropped, len(p.open))
	}
}

// An answer that the host does not resolve in time is forgotten, and the request
// may come again.
func TestPendingExpires(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	body := c.body(named(c.createKey()))
	h.outcome = func(*wire.Answer) wire.Outcome { return unresolved }
	h.call(0, &wire.Call{Action: "DisableKey", Body: body})
	h.outcome = nil
	h.now = h.now.Add(time.Minute)
	checkpoint := func() {
		if _, err := h.cores[0].Checkpoint(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	checkpoint()
	want(t, "after a minute", c.send(0, "DisableKey", body), 400, textReplay)
	h.now = h.now.Add(time.Microsecond)
	checkpoint()
	want(t, "after more", c.send(0, "DisableKey", body), 200, "successful")
	if _, err := h.resolve(0, h.handles[0], wire.Stored); err == nil {
		t.Error("an expired answer resolves")
	}
}

func TestTooManyPending(t *testing.T) {
	d := newDomain(t)
	h := d.host(t, Limits{Pending: 1})
	c := h.enroll()
	h.outcome = func(*wire.Answer) wire.Outcome { return unresolved }
	for range 16 {
		h.call(0, &wire.Call{Action: "CreateKey", Body: c.body(newKey)})
	}
	body := c.body(newKey)
	want(t, "one more", c.send(0, "CreateKey", body), 429, "Too many requests.")
	want(t, "reading goes on", c.send(0, "ListKey", c.body(map[string]any{"action": "ListKey"})), 200, "successful")
	h.outcome = nil
	if _, err := h.resolve(0, h.handles[5], wire.Failed); err != nil {
		t.Fatal(err)
	}
	want(t, "the same request, when there is room", c.send(0, "CreateKey", body), 200, "success!")
}

func TestLimits(t *testing.T) {
	for _, n := range []int{0, 1, -1} {
		l := Limits{Apps: n, Keys: n, ReplaysPerTenant: n, Replays: n, Seen: n, Pending: n}.withDefaults()
		if l.Apps < 16 || l.Keys < 16 || l.ReplaysPerTenant < 1024 || l.Replays < 1024 || l.Seen < 1024 || l.Pending < 16 {
			t.Errorf("all %d: got %+v", n, l)
		}
	}
	if l := (Limits{Apps: 17, Seen: 5000}).withDefaults(); l.Apps != 17 || l.Seen != 5000 {
		t.Errorf("got %+v", l)
	}
}

// Many clients at once, some of whom change what others use.
func TestConcurrentRequests(t *testing.T) {
	h, _ := newHost(t)
	owner := h.enroll()
	id := owner.createKey()
	var wg sync.WaitGroup
	for w := range 8 {
		c := &tenant{h: h, appid: owner.appid, apikey: owner.apikey}
		wg.Go(func() {
			for i := range 50 {
				action := "Encrypt"
				if w < 2 {
					action = [...]string{"DisableKey", "EnableKey", "ListKey", "CreateKey"}[i%4]
				}
				payload := map[string]map[string]any{"Encrypt": encrypts(id), "CreateKey": newKey, "ListKey": nil}[action]
				if action == "DisableKey" || action == "EnableKey" {
					payload = named(id)
				}
				a, err := h.try(0, &wire.Call{Action: action, Body: c.sign(payload, h.now, fmt.Sprintf("w%d-%d", w, i))})
				switch {
				case err != nil:
					t.Errorf("%s: %v", action, err)
				case a.Kind == wire.Final && a.Reply == nil:
					// lost against others five times
				case a.Code != 200 && string(a.Reply) != `{"code":400,"message":"keyid is disabled","result":{}}`:
					t.Errorf("%s: %s", action, a.Reply)
				}
			}
		})
	}
	wg.Wait()
}
