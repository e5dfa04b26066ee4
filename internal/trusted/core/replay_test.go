package core

import (
	"context"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

func TestWindow(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	const window = 10 * time.Minute
	for _, tt := range []struct {
		name string
		off  time.Duration
		want string
	}{
		{"22 minutes ahead", 22 * time.Minute, textStamp},
		{"22 minutes behind", -22 * time.Minute, textStamp},
		{"10 minutes ahead", window, textStamp},
		{"10 minutes behind", -window, textStamp},
		{"just under 10 minutes ahead", window - time.Millisecond, "successful"},
		{"just under 10 minutes behind", -window + time.Millisecond, "successful"},
		{"now", 0, "successful"},
	} {
		body := c.sign(nil, h.now.Add(tt.off), "n")
		if r := c.send(0, "ListKey", body); r.Message != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, r.Message, tt.want)
		}
	}
	for _, stamp := range []string{"0000000000000", "9999999999999"} {
		text := strings.Replace(c.request(""), fmt.Sprint(h.now.UnixMilli()), stamp, 1)
		want(t, stamp, c.send(0, "ListKey", c.signText(text, 0)), 400, textStamp)
	}
}

func TestReplay(t *testing.T) {
	h, _ := newHost(t)
	c, other := h.enroll(), h.enroll()
	id := c.createKey()
	body := c.body(named(id))

	spoilt := []byte(strings.Replace(string(body), signOf(body), strings.ToLower(signOf(body)), 1))
	want(t, "bad signature", c.send(0, "EnableKey", spoilt), 400, textSign)
	want(t, "a bad signature leaves no entry", c.send(0, "EnableKey", body), 200, "successful")
	want(t, "again", c.send(0, "EnableKey", body), 400, textReplay)
	for _, action := range []string{"DisableKey", "DeleteKey", "Nothing", ""} {
		want(t, "as "+action, c.send(0, action, body), 400, textReplay)
	}
	want(t, "the key is as it was", c.do(0, "Encrypt", encrypts(id)), 200, "success!")

	for i := range 50 {
		payload := encrypts(id)
		payload["aad"] = fmt.Sprintf("%04d", i)
		want(t, "another payload in the same millisecond", c.send(0, "Encrypt", c.sign(payload, h.now, "")), 200, "success!")
	}
	want(t, "another nonce", c.send(0, "ListKey", c.sign(nil, h.now, "1")), 200, "successful")
	want(t, "and another", c.send(0, "ListKey", c.sign(nil, h.now, "2")), 200, "successful")
	want(t, "another tenant", other.send(0, "ListKey", other.sign(nil, h.now, "2")), 200, "successful")
	refused := c.body(map[string]any{"keyid": "x"})
	want(t, "a refused request", c.send(0, "EnableKey", refused), 400, "Parameter invalid, The keyid length error.")
	want(t, "is used up", c.send(0, "EnableKey", refused), 400, textReplay)
}

// 1000 identical requests, each sent when the reply to the one before has been
// released.
func TestFastClient(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.createKey()
	start := h.now
	for i := range 1000 {
		r := c.send(0, "Encrypt", c.sign(encrypts(id), h.now, ""))
		if r.Code != 200 {
			t.Fatalf("request %d: %d %s", i, r.Code, r.Message)
		}
		if r.answer.Release > h.now.UnixMicro() {
			h.now = time.UnixMicro(r.answer.Release)
		}
	}
	if took := h.now.Sub(start); took > time.Second {
		t.Errorf("1000 requests take %v", took)
	}
}

func TestHold(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	base := h.now
	for _, tt := range []struct {
		name  string
		now   time.Duration // of the core, after a full millisecond
		ahead time.Duration // of the client's clock
		nonce string
		want  time.Duration // after base; 0: at once
	}{
		{"with a nonce", 0, 0, "n", 0},
		{"with a nonce, ahead", 0, time.Minute, "n", 0},
		{"at the start of the millisecond", 0, 0, "", time.Millisecond},
		{"in the middle of it", 400 * time.Microsecond, 0, "", time.Millisecond},
		{"at its end", 999 * time.Microsecond, 0, "", time.Millisecond},
		{"of the millisecond before", 0, -time.Millisecond, "", 0},
		{"a minute behind", 0, -time.Minute, "", 0},
		{"a millisecond ahead", 0, time.Millisecond, "", 2 * time.Millisecond},
		{"two milliseconds ahead", 300 * time.Microsecond, 2 * time.Millisecond, "", 2300 * time.Microsecond},
		{"nine minutes ahead", 0, 9 * time.Minute, "", 2 * time.Millisecond},
	} {
		t.Run(tt.name, func(t *testing.T) {
			base = base.Add(time.Hour)
			h.now = base.Add(tt.now)
			a := h.call(0, &wire.Call{Action: "Encrypt", Body: c.sign(encrypts(wire.NewUUID().String()), base.Add(tt.ahead), tt.nonce)})
			want := int64(0)
			if tt.want != 0 {
				want = base.Add(tt.want).UnixMicro()
			}
			if a.Release != want {
				t.Errorf("Release: got %d µs after the millisecond, want %d", a.Release-base.UnixMicro(), want-base.UnixMicro())
			}
		})
	}
	h.now = base.Add(time.Hour)
	if a := h.call(0, &wire.Call{Action: "DeleteAllKey", Body: c.sign(nil, h.now, "")}); a.Release != h.now.Add(time.Millisecond).UnixMicro() {
		t.Errorf("a stored change is released at %d", a.Release)
	}
	if a := h.call(0, &wire.Call{Action: "ListKey", Body: withSign(c.request(""), "AAAA")}); a.Release != 0 {
		t.Errorf("an unauthenticated request is held until %d", a.Release)
	}
}

// tagOf makes distinct tags that look like those of MACs.
func tagOf(n int) (t wire.Tag) {
	r := rand.NewPCG(uint64(n), 7)
	binary.LittleEndian.PutUint64(t[:], r.Uint64())
	binary.LittleEndian.PutUint64(t[8:], r.Uint64())
	return t
}

const (
	minutes = int64(60_000)
	noon    = int64(1_780_000_000_000) // Unix milliseconds
)

func admits(t *testing.T, r *replays, what string, tenant byte, tag int, at, now int64, want admission) {
	t.Helper()
	if got := r.admit(wire.UUID{tenant}, tagOf(tag), at, now); got != want {
		t.Errorf("%s: got %d, want %d", what, got, want)
	}
}

func TestReplayEntries(t *testing.T) {
	r := newReplays(1024, 4096, 10*minutes)
	admits(t, r, "first", 1, 1, noon, noon, admitted)
	admits(t, r, "same", 1, 1, noon, noon, replayed)
	admits(t, r, "other tenant", 2, 1, noon, noon, admitted)
	admits(t, r, "other tag", 1, 2, noon, noon, admitted)
	r.forget(wire.UUID{1}, tagOf(1), noon)
	r.forget(wire.UUID{1}, tagOf(1), noon)
	r.forget(wire.UUID{3}, tagOf(1), noon)
	admits(t, r, "forgotten", 1, 1, noon, noon, admitted)
	admits(t, r, "just inside the window", 1, 1, noon, noon+10*minutes-1, replayed)
	admits(t, r, "outside the window", 1, 1, noon, noon+10*minutes, tooOld)
	admits(t, r, "future", 1, 3, noon+19*minutes, noon+10*minutes, admitted)
	for now := noon + 10*minutes; now < noon+29*minutes; now += 1000 {
		r.expire(now)
		admits(t, r, "future again", 1, 3, noon+19*minutes, now, replayed)
	}
	r.expire(noon + 40*minutes)
	if len(r.tenants) != 0 || r.count != 0 {
		t.Errorf("%d entries of %d tenants are left", r.count, len(r.tenants))
	}
}

// A call that slept since it looked at the clock must not find its entry gone.
func TestReplayAfterASleep(t *testing.T) {
	for name, forget := range map[string]func(*replays){
		"expire":                      func(r *replays) { r.expire(noon + 30*minutes) },
		"a request of the tenant":     func(r *replays) { r.admit(wire.UUID{1}, tagOf(2), noon+30*minutes, noon+30*minutes) },
		"a request of another tenant": func(r *replays) { r.admit(wire.UUID{2}, tagOf(2), noon+30*minutes, noon+30*minutes) },
	} {
		r := newReplays(1024, 4096, 10*minutes)
		admits(t, r, name, 1, 1, noon, noon, admitted)
		forget(r)
		admits(t, r, name+", after it", 1, 1, noon, noon+minutes, tooOld)
	}
}

func TestReplayBoundOfATenant(t *testing.T) {
	r := newReplays(1024, 1<<20, 10*minutes)
	for i := range 1024 {
		admits(t, r, "filling", 1, i, noon, noon, admitted)
	}
	admits(t, r, "full with young entries", 1, 2000, noon, noon, overflow)
	admits(t, r, "still full", 1, 2001, noon+minutes, noon+29_000, overflow)
	admits(t, r, "another tenant", 2, 2000, noon, noon+29_000, admitted)
	admits(t, r, "no entry was dropped", 1, 5, noon, noon+29_000, replayed)

	now := noon + 40_000 // the entries are old enough to pay
	admits(t, r, "full with old entries", 1, 2002, now, now, admitted)
	admits(t, r, "a dropped entry", 1, 5, noon, now, tooOld)
	admits(t, r, "below the floor", 1, 2003, noon+1, now, tooOld)
	admits(t, r, "above the floor", 1, 2004, now-minSpan, now, admitted)
	admits(t, r, "another tenant has its own floor", 2, 2003, noon+1, now, admitted)
	for i := range 1022 {
		admits(t, r, "filling again", 1, 3000+i, now, now, admitted)
	}
	admits(t, r, "full again", 1, 5000, now, now, overflow)
	r.expire(noon + 20*minutes)
	admits(t, r, "the floor is forgotten with the entries", 1, 5001, noon+20*minutes, noon+20*minutes, admitted)
}

func TestReplayBoundInTotal(t *testing.T) {
	r := newReplays(1<<20, 1024, 10*minutes)
	for i := range 1024 {
		admits(t, r, "filling", 1, i, noon, noon, admitted)
	}
	admits(t, r, "the largest tenant is refused", 1, 2000, noon, noon, overflow)
	for i := range 256 {
		admits(t, r, "a quarter more for others", byte(2+i%4), i, noon, noon, admitted)
	}
	admits(t, r, "then all are refused", 2, 3000, noon, noon, overflow)

	now := noon + 40_000
	admits(t, r, "the largest tenant pays", 2, 3000, now, now, admitted)
	admits(t, r, "its entries are dropped", 1, 5, noon, now, tooOld)
	admits(t, r, "those of others are not", 2, 0, noon, now, replayed)
	if r.count >= 1024 {
		t.Errorf("%d entries are left", r.count)
	}
}

// Whatever the load, no request is admitted twice, the bound holds, and what is
// younger than the least span is only refused for lack of room.
func TestReplayProperties(t *testing.T) {
	const perTenant, total = 40, 100
	random := rand.New(rand.NewPCG(1, 2))
	r := newReplays(perTenant, total, minutes)
	type entry struct {
		tenant byte
		tag    int
		at     int64
	}
	done := map[entry]bool{}
	var past []entry
	now, counts := int64(noon), map[admission]int{}
	for n := range 60_000 {
		now += random.Int64N(100)
		e := entry{byte(random.IntN(4)), n, now - minutes + 1 + random.Int64N(2*minutes-2)}
		if len(past) > 0 && random.IntN(3) == 0 {
			e = past[max(0, len(past)-1-random.IntN(200))]
		}
		if random.IntN(50) == 0 {
			r.expire(now)
		}
		verdict := r.admit(wire.UUID{e.tenant}, tagOf(e.tag), e.at, now)
		counts[verdict]++
		switch {
		case verdict == admitted && done[e]:
			t.Fatalf("step %d: %+v is admitted twice", n, e)
		case verdict == replayed && !done[e]:
			t.Fatalf("step %d: %+v is taken for a replay", n, e)
		case verdict == tooOld && e.at > now-minSpan:
			t.Fatalf("step %d: %+v is %d ms old and too old", n, e, now-e.at)
		case r.count > total+total/4:
			t.Fatalf("step %d: %d entries", n, r.count)
		}
		if verdict == admitted {
			if random.IntN(20) == 0 {
				r.forget(wire.UUID{e.tenant}, tagOf(e.tag), e.at)
			} else {
				done[e] = true
			}
			past = append(past, e)
		}
	}
	for _, v := range []admission{admitted, replayed, tooOld, overflow} {
		if counts[v] < 500 {
			t.Errorf("verdict %d came %d times", v, counts[v])
		}
	}
}

// The bounds as clients see them.
func TestTooManyRequests(t *testing.T) {
	d := newDomain(t)
	h := d.host(t, Limits{ReplaysPerTenant: 1024})
	c, other := h.enroll(), h.enroll()
	for range 1024 {
		c.mustDo("ListKey", nil)
	}
	refused := c.body(nil)
	want(t, "full", c.send(0, "ListKey", refused), 429, "Too many requests.")
	want(t, "another tenant", other.do(0, "ListKey", nil), 200, "successful")
	earlier := c.sign(nil, h.now.Add(-time.Second), "n")
	h.now = h.now.Add(35 * time.Second)
	want(t, "later", c.do(0, "ListKey", nil), 200, "successful")
	want(t, "the refused one", c.send(0, "ListKey", refused), 400, textStamp)
	want(t, "one from before", c.send(0, "ListKey", earlier), 400, textStamp)
	h.now = h.now.Add(10 * time.Minute)
	if _, err := h.cores[0].Checkpoint(context.Background()); err != nil {
		t.Fatal(err)
	}
	want(t, "much later", c.do(0, "ListKey", nil), 200, "successful")
}

// A request that needed records, or was not stored, may come again.
func TestTakenBack(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	body := c.body(named(c.createKey()))
	call := &wire.Call{Action: "DisableKey", Body: body, Records: []wire.Ref{h.ref(appID(c.id()), true)}}
	for range 3 {
		if a, err := h.cores[0].Call(context.Background(), call); err != nil || a.Kind != wire.Need {
			t.Fatalf("got %+v, %v, want a need", a, err)
		}
	}
	h.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
	want(t, "store fails", c.send(0, "DisableKey", body), 400, "disableKey failed")
	h.outcome = func(*wire.Answer) wire.Outcome { return wire.Conflict }
	if a := h.call(0, call); a.Reply != nil || a.Sign != "" || a.Code != 0 || a.Release != 0 {
		t.Errorf("a conflict has the reply %q", a.Reply)
	}
	h.outcome = func(*wire.Answer) wire.Outcome { return wire.Replayed }
	want(t, "used elsewhere", c.send(0, "DisableKey", body), 400, textReplay)
	h.outcome = nil
	want(t, "used elsewhere, again", c.send(0, "DisableKey", body), 400, textReplay)
}
