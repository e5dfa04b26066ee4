package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	groups   = 4  // of clients; each group works on one tenant at a time
	perGroup = 3  // clients
	perRound = 25 // operations of each before the group takes a new tenant
)

// TestClusterLinearizable breaks nodes, the database and the network while
// clients make, change, list and use keys at all nodes. Afterwards everything
// they were told must fit together: changes and lists in one order, a use at most
// the grace behind, and nothing that was acknowledged lost.
func TestClusterLinearizable(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	c := newLinked(t, "EHSM_KMS_STORE_TIMEOUT=2s")
	s := &scene{linked: c, began: time.Now(), stop: make(chan struct{})}
	var clients sync.WaitGroup
	for i := range groups {
		clients.Go(func() { s.group(rand.New(rand.NewPCG(seed, uint64(i)))) })
	}
	rng := rand.New(rand.NewPCG(seed, groups))
	for range rounds(1, 20) {
		faults := c.mishaps()
		rng.Shuffle(len(faults), func(i, j int) { faults[i], faults[j] = faults[j], faults[i] })
		for _, f := range faults {
			from := time.Since(s.began)
			f.inflict(t, rng.IntN(nodes))
			t.Logf("%v to %v: %s", from.Round(time.Millisecond), time.Since(s.began).Round(time.Millisecond), f.name)
			<-time.After(300 * time.Millisecond)
		}
	}
	close(s.stop)
	clients.Wait()
	s.judge(t)
}

// A mishap is something that breaks and is mended again.
type mishap struct {
	name    string
	inflict func(t *testing.T, node int)
}

func (c *linked) mishaps() []mishap {
	restart := func(parts ...string) func(*testing.T, int) {
		return func(t *testing.T, node int) {
			c.nodes[node].kill(parts...)
			<-time.After(100 * time.Millisecond)
			c.nodes[node].start(t)
		}
	}
	network := func(harm func(*link), hold time.Duration) func(*testing.T, int) {
		return func(t *testing.T, node int) {
			harm(c.links[node])
			<-time.After(hold)
			c.links[node].mend()
		}
	}
	return []mishap{
		{"a node is killed", restart()},
		{"a manager is killed", restart(partKMS)},
		{"a core is killed", restart(partCore)},
		{"PostgreSQL is killed", func(t *testing.T, _ int) { c.server.Kill(); c.serverStarts(t) }},
		{"PostgreSQL is restarted", func(t *testing.T, _ int) { c.server.Stop(); c.serverStarts(t) }},
		{"a node is cut off", network((*link).cut, 700*time.Millisecond)},
		{"a node loses all packets for a moment", network((*link).mute, 300*time.Millisecond)},
		{"a node loses all packets for longer than the grace", network((*link).mute, 1500*time.Millisecond)},
		{"a node has a slow link", network(func(l *link) { l.slow(60 * time.Millisecond) }, 900*time.Millisecond)},
	}
}

func (c *linked) serverStarts(t *testing.T) {
	t.Helper()
	if err := c.server.Start(); err != nil {
		t.Fatal(err)
	}
}

// A scene is what clients do while things break.
type scene struct {
	*linked
	began time.Time
	stop  chan struct{} // closed when the clients shall end

	mu    sync.Mutex
	tales []*tale
	wrong []error // replies that no fault explains
}

// A tale is a tenant with its history.
type tale struct {
	appid, apikey string

	mu      sync.Mutex
	keys    []string
	history history
	unsure  int // operations of unknown outcome
}

func (s *scene) stopped() bool {
	select {
	case <-s.stop:
		return true
	default:
		return false
	}
}

func (s *scene) blame(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.wrong = append(s.wrong, err)
}

// group has clients work on one tenant after the other.
func (s *scene) group(rng *rand.Rand) {
	for !s.stopped() {
		g := s.nodes[rng.IntN(nodes)]
		r, err := g.send(context.Background(), "GET", "/ehsm?Action=Enroll", nil)
		if err != nil || r.Code != 200 {
			<-time.After(20 * time.Millisecond)
			continue
		}
		story := &tale{appid: r.Result["appid"].(string), apikey: r.Result["apikey"].(string)}
		s.mu.Lock()
		s.tales = append(s.tales, story)
		s.mu.Unlock()
		var wg sync.WaitGroup
		for range perGroup {
			own := rand.New(rand.NewPCG(rng.Uint64(), 0))
			wg.Go(func() {
				for i := 0; i < perRound && !s.stopped() && s.step(story, own); i++ {
				}
			})
		}
		wg.Wait()
	}
}

// maxUnsure bounds the outcomes that the checker has to try.
const maxUnsure = 6

// step does one operation at a random node. It is false if the tenant has had
// enough of them.
func (s *scene) step(story *tale, rng *rand.Rand) bool {
	story.mu.Lock()
	keys, tired := story.keys, story.unsure >= maxUnsure
	story.mu.Unlock()
	if tired {
		return false
	}
	op := keyOp{action: "CreateKey"}
	if n := rng.IntN(100); len(keys) > 0 && n >= 8 {
		op = keyOp{"use", keys[rng.IntN(len(keys))]}
		switch {
		case n < 10:
			op = keyOp{action: "DeleteAllKey"}
		case n < 25:
			op = keyOp{action: "ListKey"}
		case n < 35:
			op.action = "EnableKey"
		case n < 48:
			op.action = "DisableKey"
		case n < 52:
			op.action = "DeleteKey"
		}
	}
	saw := s.do(story, s.nodes[rng.IntN(nodes)], op)
	if saw.what == sawNothing {
		<-time.After(50 * time.Millisecond)
	}
	return true
}

// do carries out an operation and notes it.
func (s *scene) do(story *tale, g *target, op keyOp) keySaw {
	c := &tenant{target: g, appid: story.appid, apikey: story.apikey}
	action, payload := op.action, fields{"keyid": op.key}
	switch op.action {
	case "CreateKey":
		payload = fields{"keyspec": "EH_AES_GCM_128", "origin": internalKey, "keyusage": encryptDecrypt}
	case "ListKey", "DeleteAllKey":
		payload = nil
	case "use":
		action, payload["plaintext"] = "Encrypt", "AAAA"
	}
	call := time.Since(s.began)
	r, err := c.try(context.Background(), action, payload)
	back := time.Since(s.began)
	var dial *net.OpError
	if errors.As(err, &dial) && dial.Op == "dial" || r.Message == "database error" {
		return keySaw{what: sawNothing} // no node has begun with it
	}
	saw, err := understand(op, r, err)
	if err != nil {
		s.blame(fmt.Errorf("after %v: %w", back, err))
	}
	if took := back - call; took > 5*time.Second {
		s.blame(fmt.Errorf("after %v: %s took %v", back, op.action, took))
	}
	story.mu.Lock()
	defer story.mu.Unlock()
	if saw.what == sawNothing && op.action != "use" && op.action != "ListKey" {
		story.unsure++
	}
	if op.action == "CreateKey" && saw.what == sawDone {
		op.key = r.Result["keyid"].(string)
		story.keys = append(story.keys, op.key)
	}
	story.history.add(op, saw, call, back)
	return saw
}

// understand reads a reply. It is an error if no fault can be the reason of it.
func understand(op keyOp, r reply, err error) (keySaw, error) {
	switch {
	case err != nil && (strings.Contains(err.Error(), "signature") || strings.Contains(err.Error(), "HTTP status")):
		return keySaw{what: sawNothing}, err
	case err != nil, r.Code == 500, r.Code == 429, r.Code == 400 && strings.HasSuffix(r.Message, " failed"):
		return keySaw{what: sawNothing}, nil
	case r.Message == "keyid is disabled" && op.action == "use":
		return keySaw{what: sawDisabled}, nil
	case r.Message == textKeyID && op.action == "use", r.Message == "not find this keyid" && op.action != "use":
		return keySaw{what: sawGone}, nil
	case r.Code != 200:
		return keySaw{what: sawNothing}, fmt.Errorf("%s: got %s", op.action, r.body)
	}
	saw := keySaw{what: sawDone}
	if op.action == "ListKey" {
		saw.list = map[string]bool{}
		for _, item := range r.Result["list"].([]any) {
			k := item.(map[string]any)
			saw.list[k["keyid"].(string)] = k["keyState"] == 1.0
		}
	}
	return saw, nil
}

// judge asks once more about every key, at every node, and has the histories
// checked.
func (s *scene) judge(t *testing.T) {
	t.Helper()
	<-time.After(grace)
	for _, story := range s.tales {
		for _, g := range s.nodes {
			s.do(story, g, keyOp{action: "ListKey"})
			for _, key := range story.keys {
				s.do(story, g, keyOp{"use", key})
			}
		}
	}
	for _, err := range s.wrong {
		t.Error(err)
	}
	ops, unsure, strict := 0, 0, 0
	for _, story := range s.tales {
		ops += len(story.history.ops)
		unsure += story.unsure
		if got, err := story.history.check(grace); got != porcupine.Ok || err != nil {
			t.Errorf("tenant %s: %s, %v\n%s", story.appid, got, err, &story.history)
		}
		if got, _ := story.history.check(0); got != porcupine.Ok {
			strict++
		}
	}
	t.Logf("%d operations in %d histories, %d of unknown outcome; without the grace %d histories would be refused", ops, len(s.tales), unsure, strict)
}

// String lists the operations as they were sent.
func (h *history) String() string {
	var b strings.Builder
	for _, o := range h.ops {
		fmt.Fprintf(&b, "%v to %v: %v: %v\n", time.Duration(o.Call), time.Duration(o.Return), o.Input, o.Output)
	}
	return b.String()
}
