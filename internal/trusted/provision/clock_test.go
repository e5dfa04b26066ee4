package provision

import (
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// A wallClock is a host's clock, which somebody sets.
type wallClock struct{ offset atomic.Int64 }

func (d *wallClock) now() time.Time           { return start.Add(time.Duration(d.offset.Load())) }
func (d *wallClock) set(offset time.Duration) { d.offset.Store(int64(offset)) }

// on is a Known of a realm whose clock is d.
func (d *wallClock) on(t *testing.T, a *realm) *Known {
	t.Helper()
	k := NewKnown(a.last.Domain, d.now)
	if _, err := k.Learn(a.files); err != nil {
		t.Fatal(err)
	}
	return k
}

const year = 365 * 24 * time.Hour

// TestWrongClocks has machines with wrong clocks come together. Collateral is in
// force or it is not, by the clock of who judges; no side is harmed by the other's.
func TestWrongClocks(t *testing.T) {
	a := newRealm(t)
	for name, row := range map[string]struct {
		client, server time.Duration
		want           error // of the client
	}{
		"both right":                  {0, 0, nil},
		"hours apart":                 {20 * time.Hour, 0, nil},
		"the client is behind":        {-time.Hour, 0, verify.ErrCRLNotYetValid},
		"the client is far behind":    {-20 * year, 0, verify.ErrCRLNotYetValid},
		"the client is a year ahead":  {year, 0, verify.ErrCRLExpired},
		"the server is behind":        {0, -20 * year, channel.ErrRefused},
		"the server is a year ahead":  {0, year, channel.ErrRefused},
		"both are behind":             {-20 * year, -20 * year, channel.ErrRefused},
		"both are a year ahead":       {year, year, channel.ErrRefused},
		"one is behind and one ahead": {-year, year, channel.ErrRefused},
	} {
		t.Run(name, func(t *testing.T) {
			var here, there wallClock
			server := newProgram(t, 0, channel.DKeyServer, there.on(t, a), a.rooted(t))
			cache := newProgram(t, 1, channel.DKeyCache, here.on(t, a), NewHolder(heap))
			c := cache.client(t, server.serve(t))
			here.set(row.client)
			there.set(row.server)
			err := c.joins(t)
			if row.want == nil && err != nil || row.want != nil && !errors.Is(err, row.want) && !errors.Is(err, channel.ErrRefused) {
				t.Fatalf("got %v, want %v", err, row.want)
			}
			if row.want == nil {
				return
			}
			if cache.holder.version() != 0 {
				t.Error("it has the DomainKey")
			}
			// A clock that ran ahead is not turned back within a process; the other
			// side has not taken it over.
			if row.client <= 0 && row.server <= 0 {
				here.set(0)
				there.set(0)
				if err := c.joins(t); err != nil {
					t.Errorf("with clocks set right: %v", err)
				}
			}
			if now := cache.known.Get().Now(); row.client <= 0 && now.After(start) {
				t.Errorf("the client's time is %v", now)
			}
			if now := server.known.Get().Now(); row.server <= 0 && now.After(start) {
				t.Errorf("the server's time is %v", now)
			}
		})
	}
}

// joins makes one channel and has one heartbeat on it.
func (c *Client) joins(t *testing.T) error {
	t.Helper()
	conn, err := c.Dial(t.Context(), c.Servers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	d, err := c.meet(conn)
	if err != nil {
		return err
	}
	cfg := c.Channel
	cfg.Role, cfg.PeerRoles, cfg.Domain, cfg.Policy = c.Role, servers(c.Role), d.State().Domain, d
	ch, err := channel.Client(t.Context(), conn, &cfg)
	if err != nil {
		return err
	}
	defer ch.Close()
	_, err = (&session{Client: c, domain: d, ch: ch}).beat(t.Context())
	return err
}

// TestClocksThatAreSet sets the clock of either side of a channel back and forth. No
// lease gets longer or shorter, and no time runs back.
func TestClocksThatAreSet(t *testing.T) {
	a := newRealm(t)
	var here, there wallClock
	server := newProgram(t, 0, channel.DKeyServer, there.on(t, a), a.rooted(t))
	cache := newProgram(t, 1, channel.DKeyCache, here.on(t, a), NewHolder(heap))
	c := cache.client(t, server.serve(t))
	conn, err := c.Dial(t.Context(), c.Servers[0])
	if err != nil {
		t.Fatal(err)
	}
	d, err := c.meet(conn)
	if err != nil {
		t.Fatal(err)
	}
	cfg := c.Channel
	cfg.Role, cfg.PeerRoles, cfg.Domain, cfg.Policy = c.Role, servers(c.Role), d.State().Domain, d
	ch, err := channel.Client(t.Context(), conn, &cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ch.Close() })
	s := &session{Client: c, domain: d, ch: ch}
	lease := time.Duration(a.last.Settings.Lease) * time.Hour
	floor := d.Floor()
	var last time.Time
	for i, offsets := range [][2]time.Duration{
		{0, 0}, {-time.Hour, 0}, {0, -time.Hour}, {-20 * year, 20 * time.Hour}, {time.Hour, -20 * year}, {20 * time.Hour, -20 * year}, {-20 * year, -20 * year}, {0, 0},
	} {
		here.set(offsets[0])
		there.set(offsets[1])
		if missing, err := s.beat(t.Context()); err != nil || missing {
			t.Fatalf("step %d: %v, %v", i, missing, err)
		}
		if left := cache.holder.left(10 * lease); left > lease || left < lease-time.Minute {
			t.Errorf("step %d: the lease is %v, want %v", i, left, lease)
		}
		now := d.Now()
		if now.Before(last) || now.Before(d.Floor()) || d.Floor().Before(floor) {
			t.Errorf("step %d: it is %v after %v, floor %v", i, now, last, d.Floor())
		}
		last, floor = now, d.Floor()
	}
	// A clock beyond the end of the peer's collateral ends the channel, and to set it
	// back does not help.
	here.set(year)
	if now := d.Now(); !now.Equal(start.Add(year)) {
		t.Fatalf("it is %v", now)
	}
	here.set(0)
	if _, err := s.beat(t.Context()); err == nil {
		t.Error("the channel outlives the collateral that it was accepted with")
	}
	if err := use(cache.holder); err != nil {
		t.Errorf("the DomainKey is gone before the lease: %v", err)
	}
	if err := c.joins(t); err == nil {
		t.Error("a new channel begins with collateral that has ended")
	}
}
