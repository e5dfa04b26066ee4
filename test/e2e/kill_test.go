package e2e

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestKill kills the programs at random moments while clients change things.
// What a client was told is there after the restart, and is in the trail.
func TestKill(t *testing.T) {
	eachTarget(t, func(t *testing.T, g *target) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		k := &killer{target: g, t: t, rng: rand.New(rand.NewPCG(seed, 0)), open: map[string]bool{}}
		n := rounds(20, 200)
		for i := 0; i < n && !t.Failed(); i++ {
			k.round(i)
		}
		var all []promise
		for _, name := range k.journals {
			all = append(all, readJournal(t, name)...)
		}
		k.check(all)
		for i := len(g.names()) - 1; i >= 0; i-- {
			if err := g.stop(g.names()[i]); err != nil {
				t.Errorf("stop: %v", err)
			}
		}
		g.verifyTrail(t, k.alone)
		entries := k.checkTrail(all)
		t.Logf("%d rounds, %d promises kept, %d audit entries", n, len(all), entries)
		g.start(t)
	})
}

const writers = 4 // clients at a time

// A promise is something a client was told has been done.
type promise struct{ appid, apikey, action, key, sealed string }

// killer is a target under fire.
type killer struct {
	*target
	t        *testing.T
	rng      *rand.Rand
	journals []string
	open     map[string]bool // keys with a change that nobody got an answer to
	alone    int             // times that the manager was killed and the core was not
}

// round lets clients work for a while, kills, restarts, and checks what they
// were told.
func (k *killer) round(i int) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	killed := make(chan struct{})
	workers := make([]*writer, writers)
	var wg sync.WaitGroup
	for n := range workers {
		w := &writer{target: k.target, journal: filepath.Join(k.dir, fmt.Sprintf("journal-%d-%d", i, n))}
		workers[n] = w
		wg.Go(func() { w.err = w.run(ctx, killed) })
	}
	<-time.After(time.Duration(10+k.rng.IntN(200)) * time.Millisecond)
	close(killed)
	k.kill(k.victims()...)
	cancel()
	wg.Wait()
	k.start(k.t)
	var promises []promise
	for _, w := range workers {
		if w.err != nil {
			k.t.Errorf("round %d: %v", i, w.err)
		}
		if w.busy != "" {
			k.open[w.busy] = true
		}
		k.journals = append(k.journals, w.journal)
		promises = append(promises, readJournal(k.t, w.journal)...)
	}
	k.check(promises)
}

// victims draws what to kill.
func (k *killer) victims() []string {
	names := k.names()
	n := k.rng.IntN(len(names) + 1)
	if n == len(names) {
		return names
	}
	if names[n] == partKMS {
		k.alone++
	}
	return names[n : n+1]
}

// A writer is a client that writes down each success after it was told.
type writer struct {
	*target
	journal string
	busy    string // the key with a change under way
	err     error  // what should not have happened
}

// run enrolls, then makes keys, uses, disables and deletes them, until the
// service is gone.
func (w *writer) run(ctx context.Context, killed <-chan struct{}) error {
	f, err := os.OpenFile(w.journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	r, err := w.send(ctx, "GET", "/ehsm?Action=Enroll", nil)
	if err != nil || r.Code != 200 {
		return expected(killed, r, err)
	}
	c := &tenant{target: w.target, appid: r.Result["appid"].(string), apikey: r.Result["apikey"].(string)}
	if err := note(f, promise{c.appid, c.apikey, "Enroll", "-", "-"}); err != nil {
		return err
	}
	for i := 0; ; i++ {
		key, sealed := "-", "-"
		for _, step := range []struct {
			action string
			every  int
		}{{"CreateKey", 1}, {"Encrypt", 1}, {"DisableKey", 3}, {"DeleteKey", 4}} {
			if i%step.every != 0 {
				continue
			}
			payload := fields{"keyid": key}
			switch step.action {
			case "CreateKey":
				payload = fields{"keyspec": "EH_AES_GCM_256", "origin": internalKey, "keyusage": encryptDecrypt}
			case "Encrypt":
				payload["plaintext"] = "AAAA"
			}
			w.busy = key
			r, err := c.try(ctx, step.action, payload)
			if err != nil || r.Code != 200 {
				return expected(killed, r, err)
			}
			w.busy = ""
			switch step.action {
			case "CreateKey":
				key = r.Result["keyid"].(string)
			case "Encrypt":
				sealed = r.Result["ciphertext"].(string)
			}
			if err := note(f, promise{c.appid, c.apikey, step.action, key, sealed}); err != nil {
				return err
			}
		}
	}
}

// expected passes over errors of a service that is being killed: no connection,
// or a manager without its core.
func expected(killed <-chan struct{}, r reply, err error) error {
	select {
	case <-killed:
		if err == nil && r.Code != 500 && r.Code != 400 {
			return fmt.Errorf("while the service was killed: %s", r.body)
		}
		return nil
	default:
		return errors.Join(err, fmt.Errorf("before the service was killed: %d %s", r.Code, r.Message))
	}
}

// note writes a promise down so that it outlives us.
func note(f *os.File, p promise) error {
	if _, err := fmt.Fprintln(f, p.appid, p.apikey, p.action, p.key, p.sealed); err != nil {
		return err
	}
	return f.Sync()
}

func readJournal(t *testing.T, name string) (promises []promise) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for s := bufio.NewScanner(f); s.Scan(); {
		if w := strings.Fields(s.Text()); len(w) == 5 {
			promises = append(promises, promise{w[0], w[1], w[2], w[3], w[4]})
		}
	}
	return promises
}

// check asks the service about every promise.
func (k *killer) check(promises []promise) {
	k.t.Helper()
	last := map[string]promise{} // by key
	listed := map[string]map[string]listed{}
	for _, p := range promises {
		if p.key != "-" {
			last[p.key] = p
		}
		c := &tenant{target: k.target, appid: p.appid, apikey: p.apikey}
		if _, ok := listed[p.appid]; !ok {
			listed[p.appid] = c.list(k.t)
		}
	}
	keys := make([]promise, 0, len(last))
	for p := range maps.Values(last) {
		if !k.open[p.key] {
			keys = append(keys, p)
		}
	}
	replies := inParallel(k.t, len(keys), func(ctx context.Context, i int) (reply, error) { return k.use(ctx, keys[i]) })
	for i, r := range replies {
		p := keys[i]
		_, there := listed[p.appid][p.key]
		switch {
		case p.action == "DeleteKey" && (r.Message != textKeyID || there),
			p.action == "DisableKey" && (r.Message != "keyid is disabled" || !there),
			(p.action == "CreateKey" || p.action == "Encrypt") && (r.Code != 200 || !there):
			k.t.Errorf("after %s the key answers %d %q, listed: %v", p.action, r.Code, r.Message, there)
		}
	}
}

// use decrypts what was encrypted with a key before, or encrypts and decrypts.
func (k *killer) use(ctx context.Context, p promise) (reply, error) {
	c := &tenant{target: k.target, appid: p.appid, apikey: p.apikey}
	sealed := p.sealed
	if sealed == "-" {
		r, err := c.try(ctx, "Encrypt", fields{"keyid": p.key, "plaintext": "AAAA"})
		if err != nil || r.Code != 200 {
			return r, err
		}
		sealed = r.Result["ciphertext"].(string)
	}
	r, err := c.try(ctx, "Decrypt", fields{"keyid": p.key, "ciphertext": sealed})
	if err == nil && r.Code == 200 && r.Result["plaintext"] != "AAAA" {
		return r, fmt.Errorf("key %s decrypts to another plaintext", p.key)
	}
	return r, err
}

// checkTrail looks for every change in the audit trail.
func (k *killer) checkTrail(promises []promise) (entries int) {
	k.t.Helper()
	done, entries := k.trail(k.t)
	missing := 0
	for _, p := range promises {
		key := p.key
		if p.action == "Enroll" {
			key = "00000000-0000-0000-0000-000000000000"
		}
		if p.action != "Encrypt" && done[audited{p.appid, p.action, key}] == 0 {
			missing++
		}
	}
	if missing > 0 {
		k.t.Errorf("%d changes that clients were told of are not in the trail", missing)
	}
	return entries
}
