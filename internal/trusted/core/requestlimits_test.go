package core

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// limitedHost starts a host whose apps have limits.
func limitedHost(t testing.TB, l manifest.Limits) (*host, domain) {
	d := newDomain(t)
	d.settings.Limits = l
	return d.host(t, Limits{}), d
}

func TestLimiter(t *testing.T) {
	const rate, burst = 10, 3
	l := newLimiter(100)
	app, other := wire.UUID{1}, wire.UUID{2}
	now := int64(1_780_000_000_000_000)
	for _, step := range []struct {
		name  string
		later int64 // microseconds
		app   wire.UUID
		want  bool
	}{
		{"first", 0, app, true}, {"second", 0, app, true}, {"third", 0, app, true},
		{"over the burst", 0, app, false},
		{"another app", 0, other, true},
		{"just before the next", 99_999, app, false},
		{"the next", 1, app, true},
		{"no other at once", 0, app, false},
		{"after a long pause", 3_600_000_000, app, true}, {"second of a burst", 0, app, true}, {"third of a burst", 0, app, true},
		{"a pause adds no more than a burst", 0, app, false},
	} {
		now += step.later
		if got := l.take(step.app, now, rate, burst); got != step.want {
			t.Errorf("%s: got %v, want %v", step.name, got, step.want)
		}
	}
	l.giveBack(app, rate)
	if !l.take(app, now, rate, burst) || l.take(app, now, rate, burst) {
		t.Error("what is given back can be taken once")
	}
}

// TestLimiterBound has more apps than the limiter remembers.
func TestLimiterBound(t *testing.T) {
	const most = 16
	l, now := newLimiter(most), int64(1_780_000_000_000_000)
	for i := range 1000 {
		if !l.take(wire.UUID{byte(i), byte(i >> 8)}, now, 1, 1) {
			t.Fatalf("app %d: refused its first request", i)
		}
		if len(l.apps) > most {
			t.Fatalf("%d apps, limit %d", len(l.apps), most)
		}
	}
}

func TestRequestLimit(t *testing.T) {
	h, _ := limitedHost(t, manifest.Limits{RequestsPerSecond: 2, Burst: 4})
	c, other := h.enroll(), h.enroll()
	for range 4 {
		want(t, "within", c.do(0, "ListKey", nil), 200, "successful")
	}
	over := c.body(nil)
	r := parseReply(t, h.call(0, &wire.Call{Action: "ListKey", Body: over}))
	want(t, "over", r, 429, "Too many requests.")
	if r.answer.Sign == "" {
		t.Error("the refusal of an authentic request is not signed")
	}
	want(t, "over, an unknown action", c.do(0, "Nothing", nil), 429, "Too many requests.")
	want(t, "another app", other.do(0, "ListKey", nil), 200, "successful")
	forged := &tenant{h: h, appid: c.appid, apikey: "wrong"}
	want(t, "a forged request", forged.do(0, "ListKey", nil), 400, "sign error")

	h.now = h.now.Add(500 * time.Millisecond)
	forged = &tenant{h: h, appid: c.appid, apikey: "wrong"}
	for range 10 {
		want(t, "a forged request", forged.do(0, "ListKey", nil), 400, "sign error")
	}
	// What was refused can be sent again, and forgeries have not used the share up.
	want(t, "again", parseReply(t, h.call(0, &wire.Call{Action: "ListKey", Body: over})), 200, "successful")
	h.now = h.now.Add(500 * time.Millisecond)
	for range 10 {
		want(t, "a replay", parseReply(t, h.call(0, &wire.Call{Action: "ListKey", Body: over})), 400, "Timestamp can't be repeated in 20 minutes")
	}
	want(t, "after replays", c.do(0, "ListKey", nil), 200, "successful")
	want(t, "over once more", c.do(0, "ListKey", nil), 429, "Too many requests.")
	if s, err := h.cores[0].Stats(context.Background()); err != nil || s.Limited != 3 {
		t.Errorf("Stats: got %d limited, %v, want 3", s.Limited, err)
	}
}

// TestLimitInForce has a manifest take the limit away.
func TestLimitInForce(t *testing.T) {
	h, d := limitedHost(t, manifest.Limits{RequestsPerSecond: 1, Burst: 1})
	c := h.enroll()
	want(t, "within", c.do(0, "ListKey", nil), 200, "successful")
	want(t, "over", c.do(0, "ListKey", nil), 429, "Too many requests.")
	next := *d.state
	next.Version++
	next.Settings.Limits = manifest.Limits{}
	if err := h.cores[0].Update(&next, d.state.Date); err != nil {
		t.Fatal(err)
	}
	want(t, "without limits", c.do(0, "ListKey", nil), 200, "successful")
}

// limitEntries are the reasons of the audit entries about an app over its limit.
func limitEntries(t *testing.T, frames []byte) (reasons []string) {
	t.Helper()
	for len(frames) > 0 {
		f, rest, err := trail.CutFrame(frames)
		if err != nil {
			t.Fatal(err)
		}
		frames = rest
		if e, err := trail.Parse(f.Entry); err != nil {
			t.Fatal(err)
		} else if strings.HasPrefix(e.Reason, "limit of requests") {
			reasons = append(reasons, e.Action+": "+e.Reason)
		}
	}
	return reasons
}

// A flood gives one entry at once, and one for the rest when its period is over.
func TestLimitIsAuditedInSummary(t *testing.T) {
	h, _ := limitedHost(t, manifest.Limits{RequestsPerSecond: 1, Burst: 1})
	c := h.enroll()
	c.mustDo("ListKey", nil)
	checkpoint := func() {
		a, err := h.cores[0].Checkpoint(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		h.audit(a)
	}
	for range 20 {
		want(t, "over", c.do(0, "ListKey", nil), 429, "Too many requests.")
	}
	checkpoint() // within the period
	h.now = h.now.Add(9 * time.Second)
	checkpoint()
	if got := strings.Join(limitEntries(t, h.frames), "; "); got != "ListKey: limit of requests" {
		t.Errorf("within the period: got %s", got)
	}
	h.now = h.now.Add(time.Second)
	checkpoint()
	checkpoint()
	if got := strings.Join(limitEntries(t, h.frames), "; "); got != "ListKey: limit of requests; Limit: limit of requests, 19 more" {
		t.Errorf("afterwards: got %s", got)
	}
}

func TestQuotas(t *testing.T) {
	h, _ := limitedHost(t, manifest.Limits{Keys: 3, Secrets: 2})
	c, other := h.enroll(), h.enroll()
	aes := map[string]any{"keyspec": "EH_AES_GCM_128", "origin": "EH_INTERNAL_KEY", "keyusage": "EH_KEYUSAGE_ENCRYPT_DECRYPT"}
	secret := func(name string) map[string]any { return map[string]any{"secretName": name, "secretData": "x"} }
	var keys []string
	for range 3 {
		keys = append(keys, c.mustDo("CreateKey", aes).text("keyid"))
	}
	want(t, "a fourth key", c.do(0, "CreateKey", aes), 429, "The limit of keys is reached.")
	want(t, "another app's key", other.do(0, "CreateKey", aes), 200, "success!")
	for _, name := range []string{"one", "two"} {
		want(t, name, c.do(0, "CreateSecret", secret(name)), 200, "The "+name+" create success.")
	}
	want(t, "a third secret", c.do(0, "CreateSecret", secret("three")), 429, "The limit of secrets is reached.")
	want(t, "a name that is taken", c.do(0, "CreateSecret", secret("two")), 400, "Secret name already exists, cannot use the same secret name")
	want(t, "what exists is used", c.do(0, "Encrypt", map[string]any{"keyid": keys[0], "plaintext": "AAAA"}), 200, "success!")

	c.mustDo("DeleteKey", map[string]any{"keyid": keys[0]})
	want(t, "at once after a deletion", c.do(0, "CreateKey", aes), 429, "The limit of keys is reached.")
	h.now = h.now.Add(5 * time.Second)
	want(t, "a little later", c.do(0, "CreateKey", aes), 200, "success!")
	want(t, "full again", c.do(0, "CreateKey", aes), 429, "The limit of keys is reached.")
}

// TestQuotaOfNodes has two cores make keys of one app: each learns of what the other
// has made when its count is a minute old.
func TestQuotaOfNodes(t *testing.T) {
	h, d := limitedHost(t, manifest.Limits{Keys: 3})
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	c := h.enroll()
	aes := map[string]any{"keyspec": "EH_AES_GCM_128", "origin": "EH_INTERNAL_KEY", "keyusage": "EH_KEYUSAGE_ENCRYPT_DECRYPT"}
	for _, core := range []int{0, 1, 1} {
		want(t, "within", c.do(core, "CreateKey", aes), 200, "success!")
	}
	h.now = h.now.Add(time.Minute)
	want(t, "the first core", c.do(0, "CreateKey", aes), 429, "The limit of keys is reached.")
	want(t, "the second core", c.do(1, "CreateKey", aes), 429, "The limit of keys is reached.")
}
