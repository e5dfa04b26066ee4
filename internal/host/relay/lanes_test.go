package relay

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// crowd has a number of requests of one tenant call the core, which keeps all of an
// action until it is released, and says how many it was reached by.
type crowd struct {
	*rig
	release chan struct{}
	wg      sync.WaitGroup

	mu   sync.Mutex
	here map[string]int // calls at the core by tenant
	code map[string]map[int]int
}

func newCrowd(t *testing.T, o Options) *crowd {
	c := &crowd{rig: newRig(t, o), release: make(chan struct{}), here: map[string]int{}, code: map[string]map[int]int{}}
	c.core.before = func(call *wire.Call) error {
		names, _ := peek(call.Action, call.Body)
		c.mu.Lock()
		c.here[names.tenant.String()]++
		c.mu.Unlock()
		<-c.release
		return nil
	}
	return c
}

// send has so many requests of a tenant come, one after the other.
func (c *crowd) send(n int, tenant wire.UUID, action string) {
	for i := range n {
		c.wg.Go(func() {
			body := fmt.Appendf(nil, `{"appid":"%s","nonce":"%d","payload":{}}`, tenant, i)
			r, _ := c.Do(context.Background(), Request{ID: "r", Action: action, Body: body})
			c.mu.Lock()
			defer c.mu.Unlock()
			if c.code[tenant.String()] == nil {
				c.code[tenant.String()] = map[int]int{}
			}
			c.code[tenant.String()][r.Code]++
		})
		synctest.Wait()
	}
}

func (c *crowd) at(tenant wire.UUID) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.here[tenant.String()]
}

func TestLanes(t *testing.T) {
	noisy, quiet := wire.UUID{1}, wire.UUID{2}
	for _, tt := range []struct {
		name    string
		options Options
		first   string // action of the noisy one
		second  string // of the quiet one
		noisy   int    // calls of it at the core, of 100
	}{
		{"expensive for both", Options{Processors: 2}, "Sign", "Sign", 2},
		{"expensive, then cheap", Options{Processors: 2}, "Sign", "Encrypt", 2},
		{"cheap, then expensive", Options{Processors: 2}, "Encrypt", "Sign", 8},
		{"cheap for both", Options{Processors: 2}, "Encrypt", "Encrypt", 8},
		{"ahead of a core elsewhere", Options{Processors: 2, Ahead: 4}, "CreateKey", "CreateKey", 8},
		{"one processor", Options{Processors: 1}, "Verify", "Verify", 1},
		{"for the platform nobody waits here", Options{Processors: 1}, "GenerateQuote", "GenerateQuote", 100},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := newCrowd(t, tt.options)
				c.send(100, noisy, tt.first)
				c.send(1, quiet, tt.second)
				if c.at(noisy) != tt.noisy || c.at(quiet) != 1 {
					t.Errorf("at the core: %d of the noisy tenant and %d of the quiet one, want %d and 1", c.at(noisy), c.at(quiet), tt.noisy)
				}
				if got := c.Stats().Waiting; got != 100-tt.noisy {
					t.Errorf("waiting: got %d, want %d", got, 100-tt.noisy)
				}
				close(c.release)
				c.wg.Wait()
				if s := c.Stats(); s.Waiting != 0 || s.Crowded != 0 || s.Inside != 0 {
					t.Errorf("at the end: %+v", s)
				}
			})
		})
	}
}

// TestLaneFull has a tenant fill its half of the room; another finds the other half.
func TestLaneFull(t *testing.T) {
	noisy, quiet := wire.UUID{1}, wire.UUID{2}
	synctest.Test(t, func(t *testing.T) {
		c := newCrowd(t, Options{Processors: 1, Concurrent: 20})
		c.send(15, noisy, "Sign") // one is at the core, ten wait
		c.send(3, quiet, "Sign")
		if got := c.code[noisy.String()]; got[429] != 4 || len(got) != 1 {
			t.Errorf("answers to the noisy tenant: %v, want 4 times 429", got)
		}
		if got := c.code[quiet.String()]; len(got) != 0 || c.at(quiet) != 1 {
			t.Errorf("answers to the quiet tenant: %v, %d at the core", got, c.at(quiet))
		}
		if s := c.Stats(); s.Crowded != 4 || s.Waiting != 12 {
			t.Errorf("Stats: %+v", s)
		}
		close(c.release)
		c.wg.Wait()
		if got := c.code[quiet.String()]; got[429] != 0 {
			t.Errorf("answers to the quiet tenant: %v", got)
		}
	})
}
