package e2e

import (
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestBlackStartInAnyOrder starts all programs of a site after a power failure, in
// orders drawn at random and with pauses between them. It serves without a human.
func TestBlackStartInAnyOrder(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	s := newSite(t, 2, nil)
	s.up(t)
	first := s.machines[0].g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	type program struct {
		n    *node
		name string
	}
	var all []program
	for _, n := range s.machines {
		for _, name := range []string{partServer, partCache, partCore, partKMS} {
			all = append(all, program{n, name})
		}
	}
	var longest time.Duration
	for range rounds(3, 60) {
		for _, n := range s.machines {
			n.g.kill()
			n.parts[partCache].kill()
			n.parts[partServer].kill()
		}
		rng.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
		var order []string
		printed := map[*node]int{}
		begin := time.Now()
		for _, p := range all {
			order = append(order, strings.TrimPrefix(p.name, "ehsm-")+map[bool]string{true: " 1", false: " 2"}[p.n == s.machines[0]])
			if p.name == partKMS {
				printed[p.n] = p.n.g.out.size()
			}
			p.n.powersUp(t, p.name)
			<-time.After(time.Duration(rng.IntN(400)) * time.Millisecond)
		}
		for _, n := range s.machines {
			n.g.awaitAddress(t, partKMS, printed[n])
			if err := n.g.awaitReady(); err != nil {
				t.Fatalf("%v: %v", order, err)
			}
			opens(t, first.on(n.g), key, sealed)
		}
		took := time.Since(begin)
		if took > time.Minute {
			t.Errorf("%v: black start took %s", order, took)
		}
		longest = max(longest, took)
	}
	t.Logf("the site serves at most %s after its start", longest)
}

// powersUp starts a program and does not wait for others.
func (n *node) powersUp(t *testing.T, name string) {
	t.Helper()
	switch name {
	case partKMS:
		n.g.startManager(t)
	case partCore:
		n.startCore(t)
	case partServer:
		n.launchServer(t)
	default:
		n.start(t, name)
	}
}
