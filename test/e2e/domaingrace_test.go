package e2e

import (
	"context"
	"fmt"
	"regexp"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A load has clients encrypt and decrypt at nodes until it is stopped.
type load struct {
	cancel context.CancelFunc
	done   sync.WaitGroup

	mu    sync.Mutex
	count int
	wrong []string
}

// work starts a load of a tenant's key.
func work(t testing.TB, c *tenant, key string, nodes ...*node) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{cancel: cancel}
	for _, n := range nodes {
		at := c.on(n.g)
		l.done.Go(func() {
			for ctx.Err() == nil {
				l.one(ctx, at, key)
				<-time.After(3 * time.Millisecond) // leaves time for others
			}
		})
	}
	t.Cleanup(func() { l.stop() })
	return l
}

func (l *load) one(ctx context.Context, c *tenant, key string) {
	r, err := c.try(context.WithoutCancel(ctx), "Encrypt", fields{"keyid": key, "plaintext": "AAAA"})
	if err == nil && r.Code == 200 {
		sealed, _ := r.Result["ciphertext"].(string)
		r, err = c.try(context.WithoutCancel(ctx), "Decrypt", fields{"keyid": key, "ciphertext": sealed})
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.count++
	if err != nil || r.Code != 200 || r.Result["plaintext"] != "AAAA" {
		l.wrong = append(l.wrong, fmt.Sprint(r.body, err))
	}
}

// stop ends the load and returns how many requests there were, and what was wrong.
func (l *load) stop() (int, []string) {
	l.cancel()
	l.done.Wait()
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.count, l.wrong
}

// flawless ends the load, of which nothing must have failed.
func (l *load) flawless(t testing.TB) {
	t.Helper()
	n, wrong := l.stop()
	if len(wrong) > 0 || n == 0 {
		t.Errorf("%d of %d requests failed, the first: %.1s", len(wrong), n, wrong)
	}
	t.Logf("%d requests, none failed: %v", n, len(wrong) == 0)
}

// TestTCBRecovery has a whole fleet fall behind at once, as on the day on which the
// manufacturer mends a flaw. Admitted machines have a grace period, also in the eyes
// of programs that start in it; a new one is judged as it is; and when the grace
// ends, nobody joins any more. No request fails.
func TestTCBRecovery(t *testing.T) {
	t.Parallel()
	s := newSite(t, 3, func(m *manifest.Settings) { m.Platforms = m.Platforms[:2] })
	one, two, three := s.machines[0], s.machines[1], s.machines[2]
	s.machines = s.machines[:2]
	links := []*link{one.behind(t), two.behind(t)}
	s.up(t)
	first := one.g.enroll(t)
	key := first.createAES(t)
	sealed := sealedBy(t, first, key)
	running := work(t, first, key, one, two)
	all := []*node{one, two, three}
	fleet := func(edit func(*issue.Terms)) (printed []int) {
		for _, n := range all {
			n.collate(t, edit)
			printed = append(printed, n.g.out.size())
		}
		for _, l := range links { // all meet again, with what is known now
			l.cut()
			l.mend()
		}
		return printed
	}

	// The grace of 30 days began 30 days ago, but for some seconds.
	recovery := time.Now().Add(7*time.Second - 30*24*time.Hour).UTC().Truncate(time.Second)
	printed := fleet(func(x *issue.Terms) { x.Status, x.NewerDate = verify.OutOfDate, recovery })
	until := recovery.Add(30 * 24 * time.Hour).Format(time.RFC3339)
	for i, n := range s.machines {
		n.said(t, printed[i], `platform is out of date and has a grace period.*until=`+regexp.QuoteMeta(until))
	}
	one.said(t, printed[0], `has a grace period.* role=dkeycache.* until=`+regexp.QuoteMeta(until))
	two.said(t, printed[1], `has a grace period.* role=dkeyserver.* until=`+regexp.QuoteMeta(until))
	<-time.After(time.Until(recovery.Add(30*24*time.Hour + time.Second)))
	for i, n := range s.machines {
		n.said(t, printed[i], `grace period has ended`)
	}
	running.flawless(t) // nodes go on for their lease

	// Machines are mended, and all is well.
	printed = fleet(func(*issue.Terms) {})
	for i, n := range s.machines {
		n.said(t, printed[i], `peer joined role=dkeycache|joined server`)
	}

	// Another recovery, and the power fails: programs that have just started have
	// nobody in their memory.
	recovery = time.Now().UTC().Truncate(time.Second)
	for recovery.Before(s.last.Date) {
		recovery = recovery.Add(time.Second)
	}
	for _, n := range s.machines {
		n.g.kill()
		n.parts[partCache].kill()
		n.parts[partServer].kill()
	}
	fleet(func(x *issue.Terms) { x.Status, x.NewerDate = verify.OutOfDate, recovery })
	for _, n := range s.machines {
		n.start(t, partServer)
		n.start(t, partCache)
		n.g.start(t)
		opens(t, first.on(n.g), key, sealed)
	}

	// A machine that is admitted now has had no time to fall behind.
	<-time.After(time.Until(recovery.Add(time.Second)))
	s.change(t, one, func(m *manifest.Settings) {
		m.Platforms = append(m.Platforms[:2:2], manifest.Platform{Name: "machine 2", PPID: three.ppid})
	})
	for _, n := range s.machines {
		n.said(t, 0, `ehsm-core: serves domain [0-9a-f]+ under manifest 2`)
	}
	from := three.g.out.size()
	three.start(t, partCache)
	three.said(t, from, `channel refused by the peer`)
	one.said(t, 0, `peer refused.*TCB status is not accepted: OutOfDate`)
	three.collate(t, func(*issue.Terms) {})
	three.said(t, from, `has the DomainKey`)
}
