package relay

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// under is a record as the host sees it: format, DomainKey version, tag of the state.
func under(version uint32, state byte) []byte {
	b := make([]byte, 200)
	b[0], b[114] = 2, state
	binary.BigEndian.PutUint32(b[78:], version)
	return b
}

// rotatingStore is a memStore with a floor and slices.
type rotatingStore struct {
	*memStore
	at      store.Rotation
	raised  []uint32
	alone   map[string]bool // work of another node
	rewraps int
	fail    error // of the next Rewrap
	since   int64 // date of the floor
}

func (s *rotatingStore) Apply(ctx context.Context, c store.Change) error {
	s.mu.Lock()
	floor := s.at.Floor
	s.mu.Unlock()
	for i := range c.Writes {
		if err := store.CheckFloor(&c.Writes[i], floor); err != nil {
			return err
		}
	}
	return s.memStore.Apply(ctx, c)
}

func (s *rotatingStore) Rotation(context.Context) (store.Rotation, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at, nil
}

func (s *rotatingStore) RaiseFloor(_ context.Context, version uint32) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.raised = append(s.raised, version)
	s.at.Floor = max(s.at.Floor, version)
	return nil
}

func (s *rotatingStore) Scan(_ context.Context, slice int, after wire.RecordID, limit int) (page []store.Row, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	order := func(a, b wire.RecordID) int {
		return cmp.Or(bytes.Compare(a.Tenant[:], b.Tenant[:]), bytes.Compare(a.ID[:], b.ID[:]), cmp.Compare(a.Type, b.Type), cmp.Compare(a.Version, b.Version))
	}
	first, last := store.SliceOf(slice)
	for id, row := range s.rows {
		if bytes.Compare(id.Tenant[:], first[:]) >= 0 && bytes.Compare(id.Tenant[:], last[:]) <= 0 && order(id, after) > 0 {
			page = append(page, row)
		}
	}
	slices.SortFunc(page, func(a, b store.Row) int { return order(a.ID, b.ID) })
	return page[:min(len(page), limit)], nil
}

func (s *rotatingStore) Count(ctx context.Context, slice int) (int64, error) {
	page, err := s.Scan(ctx, slice, wire.RecordID{}, 1<<30)
	return int64(len(page)), err
}

func (s *rotatingStore) Rewrap(_ context.Context, writes []wire.Write) (n int, err error) {
	if err := store.CheckRewraps(writes); err != nil {
		return 0, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rewraps++
	if s.fail != nil {
		err, s.fail = s.fail, nil
		return 0, err
	}
	for _, w := range writes {
		if row := s.rows[w.ID]; row.Revision == w.Expected {
			row.Sealed = bytes.Clone(w.Sealed)
			s.rows[w.ID], n = row, n+1
		}
	}
	return n, nil
}

func (s *rotatingStore) Report(_ context.Context, slice int, r store.Slice) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	r.Done, r.Left = max(r.Done, s.at.Slices[slice].Done), s.at.Slices[slice].Left
	s.at.Slices[slice] = r
	return nil
}

func (s *rotatingStore) ReportLeft(_ context.Context, slice int, l store.Left) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.at.Slices[slice].Left = l
	return nil
}

func (s *rotatingStore) FloorSince(_ context.Context, version uint32) (int64, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.at.Floor <= version {
		return 0, nil
	}
	return s.since, nil
}

func (s *rotatingStore) Alone(ctx context.Context, name string, work func(context.Context) error) (bool, error) {
	s.mu.Lock()
	taken := s.alone[name]
	s.mu.Unlock()
	if taken {
		return false, nil
	}
	return true, work(ctx)
}

// rotatingCore is a fakeCore whose records name a version of the DomainKey.
type rotatingCore struct {
	*fakeCore
	version  uint32 // current one
	leaked   uint32
	overtake int   // at this step another version comes
	lacks    int   // questions until it has that
	steps    []int // records of each step
	heard    []wire.Progress
}

func (c *rotatingCore) Hear(_ context.Context, p wire.Progress) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.heard = append(c.heard, p)
	return nil
}

func (c *rotatingCore) Info(context.Context) (wire.Info, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return wire.Info{DomainKey: c.version, Compromised: c.leaked}, nil
}

// Call writes under its version, or a higher one that the call names.
func (c *rotatingCore) Call(ctx context.Context, call *wire.Call) (*wire.Answer, error) {
	if call.Action != "Write" {
		return c.fakeCore.Call(ctx, call)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, *call)
	if call.Floor > c.version {
		if c.lacks--; c.lacks >= 0 {
			return &wire.Answer{Kind: wire.Need, NeedVersion: call.Floor, Audit: c.audit(false)}, nil
		}
		c.version = call.Floor
	}
	f := call.Records[len(call.Records)-1]
	c.handle++
	w := wire.Write{ID: f.ID, Expected: f.Revision, Revision: f.Revision + 1, Sealed: under(c.version, byte(f.Revision+1))}
	c.pending[c.handle] = []wire.Write{w}
	return &wire.Answer{Kind: wire.Pending, Handle: c.handle, Writes: []wire.Write{w}, Audit: c.audit(true)}, nil
}

// Rewrap refuses records whose state is odd above 100.
func (c *rotatingCore) Rewrap(_ context.Context, r *wire.Rewrap) (*wire.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.steps = append(c.steps, len(r.Records))
	if c.lacks--; c.lacks >= 0 {
		return &wire.Answer{Kind: wire.Need, NeedVersion: r.Version, Audit: c.audit(false)}, nil
	}
	if len(c.steps) == c.overtake {
		c.version++
	}
	if c.overtake > 0 && r.Version != c.version {
		return c.final(500, ""), nil
	}
	if r.Version != c.version {
		return nil, fmt.Errorf("version %d is not the current one", r.Version)
	}
	var writes []wire.Write
	for _, f := range r.Records {
		if old, _ := wire.SealedVersions(f.Sealed); old >= r.Version {
			c.t.Errorf("record %v under version %d is wrapped anew", f.ID, old)
		}
		if state := f.Sealed[114]; state <= 100 || state%2 == 0 {
			writes = append(writes, wire.Write{ID: f.ID, Expected: f.Revision, Revision: f.Revision, Rewrapped: true, Sealed: under(r.Version, state)})
		}
	}
	if len(writes) == 0 {
		return c.final(500, ""), nil
	}
	c.handle++
	c.pending[c.handle] = nil
	return &wire.Answer{Kind: wire.Pending, Handle: c.handle, Writes: writes, Audit: c.audit(true)}, nil
}

func (c *rotatingCore) Resolve(ctx context.Context, r wire.Resolve) (*wire.Answer, error) {
	c.mu.Lock()
	writes := c.pending[r.Handle]
	if len(writes) == 0 || len(writes[0].Sealed) == 200 {
		defer c.mu.Unlock()
		delete(c.pending, r.Handle)
		c.resolved = append(c.resolved, r.Outcome)
		if r.Outcome == wire.Conflict {
			return &wire.Answer{Kind: wire.Final, Audit: c.audit(false)}, nil
		}
		return c.final(200, outcomeName(r.Outcome)), nil
	}
	c.mu.Unlock()
	return c.fakeCore.Resolve(ctx, r)
}

// A lockedLog is a log that tests read while it is written.
type lockedLog struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *lockedLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// A turned is a rig whose DomainKey is rotated.
type turned struct {
	*rig
	core  *rotatingCore
	store *rotatingStore
	log   *lockedLog
}

// rotating calls f in a bubble, while Run is at work on records of n tenants under
// version 1.
func rotating(t *testing.T, n int, prepare func(*turned), f func(*turned)) {
	synctest.Test(t, func(t *testing.T) {
		g := &turned{rig: newRig(t, Options{}), log: &lockedLog{}}
		g.core = &rotatingCore{fakeCore: g.rig.core, version: 2}
		g.store = &rotatingStore{memStore: g.rig.store, alone: map[string]bool{}}
		g.Relay = New(g.core, g.store, g.sink, Options{Log: slog.New(slog.NewTextHandler(g.log, nil))})
		clear(g.store.rows)
		for i := range n {
			id := wire.RecordID{Type: wire.Key, Tenant: wire.UUID{byte(i * 16), 1: byte(i >> 4)}, ID: wire.UUID{14: byte(i >> 8), 15: byte(i)}}
			g.store.rows[id] = store.Row{ID: id, Revision: 1, Sealed: under(1, byte(i%100))}
		}
		prepare(g)
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { g.Run(ctx, g.store); close(done) }()
		f(g)
		cancel()
		<-done
	})
}

// look calls f while core and store stand still.
func (g *turned) look(f func()) {
	g.core.mu.Lock()
	defer g.core.mu.Unlock()
	g.store.mu.Lock()
	defer g.store.mu.Unlock()
	f()
}

// old counts the records below a version.
func (g *turned) old(version uint32) (n int) {
	g.store.mu.Lock()
	defer g.store.mu.Unlock()
	for _, row := range g.store.rows {
		if v, _ := wire.SealedVersions(row.Sealed); v < version {
			n++
		}
	}
	return n
}

func TestRotation(t *testing.T) {
	rotating(t, 20000, func(*turned) {}, func(g *turned) {
		time.Sleep(time.Minute)
		if n := g.old(2); n != 0 {
			t.Errorf("%d records are left under version 1", n)
		}
		s := g.Stats()
		if s.Rotation.Done() != 2 || s.Rotation.Floor != 2 || s.DomainKey != 2 || s.Rewrapped != 20000 {
			t.Errorf("got %+v, want all records at version 2", s)
		}
		steps := 0
		g.look(func() {
			for _, n := range g.core.steps {
				if n > wire.RewrapStep {
					t.Errorf("step of %d records, want at most %d", n, wire.RewrapStep)
				}
			}
			want := wire.Progress{Floor: 2, Done: 2, Total: 20000, Looked: 20000}
			if n := len(g.core.heard); n < 5 || g.core.heard[0] != (wire.Progress{}) || g.core.heard[n-1] != want {
				t.Errorf("core heard %v, want it to end with %+v", g.core.heard, want)
			}
			steps = len(g.core.steps)
		})
		time.Sleep(time.Minute)
		g.look(func() {
			if len(g.core.steps) != steps || len(g.store.raised) != 1 {
				t.Errorf("got %d more steps and floors %v after the end", len(g.core.steps)-steps, g.store.raised)
			}
		})
		g.core.mu.Lock()
		g.core.version = 3
		g.core.mu.Unlock()
		time.Sleep(time.Minute)
		if n := g.old(3); n != 0 {
			t.Errorf("%d records are left under version 2", n)
		}
	})
}

func TestRotationRefused(t *testing.T) {
	odd := wire.RecordID{Type: wire.Key, Tenant: wire.UUID{0x30}, ID: wire.UUID{1}}
	rotating(t, 40, func(g *turned) {
		g.store.rows[odd] = store.Row{ID: odd, Revision: 1, Sealed: under(1, 101)}
	}, func(g *turned) {
		time.Sleep(10 * time.Second)
		at := g.Stats().Rotation
		if g.old(2) != 1 || at.Done() != 2 || at.Slices[3].Refused != 1 || at.Slices[2].Refused != 0 {
			t.Errorf("got %d old records and %+v, want one refused", g.old(2), at)
		}
	})
}

// TestRotationBreaksOff has a step fail: the next look goes on.
func TestRotationBreaksOff(t *testing.T) {
	rotating(t, 400, func(g *turned) { g.store.fail = errDisk }, func(g *turned) {
		time.Sleep(10 * time.Second)
		if g.old(2) != 0 || g.Stats().Rotation.Done() != 2 {
			t.Errorf("%d records are left", g.old(2))
		}
		g.look(func() {
			if !slices.Contains(g.core.resolved, wire.Failed) || !strings.Contains(g.log.String(), errDisk.Error()) {
				t.Errorf("core heard %v, log %q; want the failure in both", g.core.resolved, g.log)
			}
		})
	})
}

// TestRotationShared leaves slices to the node that works on them.
func TestRotationShared(t *testing.T) {
	rotating(t, 64, func(g *turned) { g.store.alone["rewrap 5"] = true }, func(g *turned) {
		time.Sleep(10 * time.Second)
		if n := g.old(2); n != 4 || g.Stats().Rotation.Done() == 2 {
			t.Errorf("%d records are left, want the 4 of the other node's slice", n)
		}
		g.look(func() { delete(g.store.alone, "rewrap 5") })
		time.Sleep(10 * time.Second)
		if n := g.old(2); n != 0 {
			t.Errorf("%d records are left after the other node has ended", n)
		}
	})
}

// TestRotationBehind is a node whose core has not got the version that others are at.
func TestRotationBehind(t *testing.T) {
	rotating(t, 64, func(g *turned) { g.store.at.Floor = 3 }, func(g *turned) {
		time.Sleep(10 * time.Second)
		g.look(func() {
			if len(g.core.steps) != 0 || len(g.store.raised) != 0 {
				t.Errorf("got steps %v and floors %v, want none", g.core.steps, g.store.raised)
			}
		})
	})
}

// TestFirstVersion does nothing where the DomainKey was never rotated.
func TestFirstVersion(t *testing.T) {
	rotating(t, 64, func(g *turned) { g.core.version = 1 }, func(g *turned) {
		time.Sleep(10 * time.Second)
		g.look(func() {
			if len(g.core.steps) != 0 || len(g.store.raised) != 0 {
				t.Errorf("got steps %v and floors %v, want none", g.core.steps, g.store.raised)
			}
		})
	})
}

// TestRewrapWaits has the core fetch the version first.
func TestRewrapWaits(t *testing.T) {
	rotating(t, 64, func(g *turned) { g.core.lacks = 10 }, func(g *turned) {
		time.Sleep(10 * time.Second)
		if n := g.old(2); n != 0 {
			t.Errorf("%d records are left", n)
		}
	})
}

func TestRewrapBytes(t *testing.T) {
	rotating(t, 0, func(g *turned) {
		for i := range 300 {
			id := wire.RecordID{Type: wire.Key, ID: wire.UUID{14: byte(i >> 8), 15: byte(i)}}
			g.store.rows[id] = store.Row{ID: id, Revision: 1, Sealed: append(under(1, 2), make([]byte, 32<<10)...)}
		}
	}, func(g *turned) {
		time.Sleep(10 * time.Second)
		n := g.old(2)
		g.look(func() {
			if n != 0 || len(g.core.steps) != 3 {
				t.Errorf("%d records are left after steps of %v, want 3 steps for 10 MB", n, g.core.steps)
			}
		})
	})
}

// TestBelowFloor has another node raise the floor: the change is made under the new
// version, once the core has that.
func TestBelowFloor(t *testing.T) {
	for _, tt := range []struct {
		name  string
		lacks int
		code  int
		err   error
	}{
		{"at once", 0, 200, nil},
		{"after a while", 20, 200, nil},
		{"never", 1 << 20, 500, errVersion},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rotating(t, 0, func(g *turned) {
				g.core.version = 1
				for _, id := range []wire.RecordID{appRecord, keyRecord, versionRecord} {
					g.store.rows[id] = store.Row{ID: id, Revision: 1, Primary: 1, Sealed: under(1, 1)}
				}
			}, func(g *turned) {
				synctest.Wait()
				g.store.mu.Lock()
				g.store.at.Floor = 2
				g.store.mu.Unlock()
				g.look(func() { g.core.lacks = tt.lacks })
				r, err := g.do("Write", 1)
				if r.Code != tt.code || !errors.Is(err, tt.err) {
					t.Errorf("got code %d, error %v, want %d, %v", r.Code, err, tt.code, tt.err)
				}
				if v, _ := wire.SealedVersions(g.store.row(versionRecord).Sealed); (v == 2) != (tt.code == 200) {
					t.Errorf("record is under version %d", v)
				}
				g.do("Write", 2)
				if c := g.core.lastCall(); c.Floor != 2 {
					t.Errorf("next call names floor %d, want 2", c.Floor)
				}
			})
		})
	}
}
