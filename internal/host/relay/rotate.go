package relay

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A Rotator is a store whose records can be wrapped under another version of the
// DomainKey. It is the part of a store that Run needs for that.
type Rotator interface {
	Rotation(ctx context.Context) (store.Rotation, error)
	// RaiseFloor has the store take no record under a version below one, and waits
	// for changes that may still store some.
	RaiseFloor(ctx context.Context, version uint32) error
	// FloorSince returns when the store began to take no record under a version or an
	// earlier one, in Unix milliseconds; 0: it takes them still.
	FloorSince(ctx context.Context, version uint32) (int64, error)
	Slicer
}

// A Slicer has the records of a store in store.Slices parts.
type Slicer interface {
	// Scan returns records of a slice in a fixed order, after a given one.
	Scan(ctx context.Context, slice int, after wire.RecordID, limit int) ([]store.Row, error)
	Count(ctx context.Context, slice int) (int64, error)
	// Rewrap replaces records by what they are when wrapped anew, but for those that
	// have changed since, and returns how many.
	Rewrap(ctx context.Context, writes []wire.Write) (int, error)
	// Report notes how far a slice is.
	Report(ctx context.Context, slice int, s store.Slice) error
	// ReportLeft notes what is to be replaced after a leak.
	ReportLeft(ctx context.Context, slice int, l store.Left) error
}

// Periods and bounds of a rotation of the DomainKey.
const (
	rotatePeriod = time.Second // between two looks at the versions of core and store
	// versionWait is how long a request waits for its core to get a version of the
	// DomainKey that other nodes write under already.
	versionWait = 10 * time.Second
	rewrapBytes = 4 << 20 // of records in one step, about
	reportPages = 20      // pages without work between two reports
)

// errVersion says that a core does not get the version of the DomainKey that the
// store's records need.
var errVersion = errors.New("the core does not have the DomainKey version that the database is at; is its dkeycache connected?")

// A rotation is what a relay knows of the versions of the DomainKey.
type rotation struct {
	floor     atomic.Uint32                  // least version that the store takes records under
	core      atomic.Uint32                  // version that the core wraps new records under
	last      atomic.Pointer[store.Rotation] // as last read
	rewrapped atomic.Uint64                  // records that this process had wrapped anew
	told      telling
}

// A telling is what the core was told of the store last.
type telling struct {
	mu   sync.Mutex
	what wire.Progress
	when time.Time
}

// tellPeriod is how often a core is told what it was told before: another one may
// have taken over.
const tellPeriod = 10 * time.Second

// tell tells the core how far the records are, where that is news or it is time.
func (r *Relay) tell(ctx context.Context) error {
	l, ok := r.core.(wire.Listener)
	at := r.rotation.last.Load()
	if !ok || at == nil {
		return nil
	}
	p := wire.Progress{Floor: at.Floor, Done: at.Done(), Total: uint64(at.Total()), Looked: uint64(at.Looked()), Refused: uint64(at.Refused())}
	if l := at.Left(); l.Compromised != 0 {
		p.Compromised, p.Keys, p.Secrets, p.APIKeys, p.Tenants = l.Compromised, uint64(l.Keys), uint64(l.Secrets), uint64(l.APIKeys), uint64(l.Tenants)
	}
	t := &r.rotation.told
	t.mu.Lock()
	defer t.mu.Unlock()
	if p == t.what && time.Since(t.when) < tellPeriod {
		return nil
	}
	if err := l.Hear(ctx, p); err != nil {
		return fmt.Errorf("tell the core how far the store is: %w", err)
	}
	t.what, t.when = p, time.Now()
	return nil
}

// note takes what the store says.
func (n *rotation) note(at *store.Rotation) {
	n.last.Store(at)
	n.raise(at.Floor)
}

func (n *rotation) raise(floor uint32) {
	for {
		have := n.floor.Load()
		if floor <= have || n.floor.CompareAndSwap(have, floor) {
			return
		}
	}
}

// runRotation has the records follow the DomainKey's current version until ctx
// ends: the store takes none under older ones, and those it has are wrapped anew.
func (r *Relay) runRotation(ctx context.Context, st Rotator) {
	r.every(ctx, 0, rotatePeriod, "records not wrapped under the DomainKey's current version", func(ctx context.Context) error {
		return r.rotate(ctx, st)
	})
}

// rotate looks once at what there is to do, and does it.
func (r *Relay) rotate(ctx context.Context, st Rotator) error {
	at, err := st.Rotation(ctx)
	if err != nil {
		return err
	}
	r.rotation.note(&at)
	info, err := r.core.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask core for its DomainKey version: %w", err)
	}
	r.rotation.core.Store(info.DomainKey)
	if err := r.tell(ctx); err != nil {
		return err
	}
	version := info.DomainKey
	// No record was ever wrapped under less than version 1. Below the floor this
	// core is behind others, which do the work.
	if version < 2 || version < at.Floor {
		return nil
	}
	if at.Done() < version {
		if err := r.follows(ctx, st, version, &at); err != nil {
			return err
		}
	}
	last := r.rotation.last.Load()
	if info.Compromised == 0 || last.Done() < version {
		return nil
	}
	return r.count(ctx, st, info.Compromised, last)
}

// follows has all records wrapped under a version, and no more written under
// earlier ones.
func (r *Relay) follows(ctx context.Context, st Rotator, version uint32, at *store.Rotation) error {
	if err := st.RaiseFloor(ctx, version); err != nil {
		return err
	}
	if version > at.Floor {
		r.opts.Log.InfoContext(ctx, "records are wrapped anew", "version", version)
	}
	r.rotation.raise(version)
	return r.rewrap(ctx, st, version, at)
}

// rewrap goes through the slices that are not done. Each is a node's alone, so that
// several share the work.
func (r *Relay) rewrap(ctx context.Context, st Rotator, version uint32, at *store.Rotation) (err error) {
	core, ok := r.core.(wire.Rewrapper)
	if !ok {
		return errors.New("the core wraps no records anew")
	}
	if ready, err := r.measure(ctx, st, version, at); !ready || err != nil {
		return err
	}
	for n := range store.Slices {
		if at.Slices[n].Done >= version || ctx.Err() != nil {
			continue
		}
		_, e := alone(ctx, st, fmt.Sprintf("rewrap %x", n), func(ctx context.Context) error {
			now, err := st.Rotation(ctx) // another node may have done it meanwhile
			if err != nil || now.Slices[n].Done >= version {
				return err
			}
			w := rewrapping{relay: r, core: core, store: st, slice: n, version: version}
			w.at = store.Slice{Version: version, Total: now.Slices[n].Total}
			return w.run(ctx)
		})
		switch {
		case errors.Is(e, errOvertaken) || errors.Is(e, store.ErrFloor):
			return err // the next look begins with the later version
		case e != nil:
			err = errors.Join(err, fmt.Errorf("slice %x: %w", n, e))
		}
	}
	if now, e := st.Rotation(ctx); e == nil {
		r.rotation.note(&now)
		if now.Done() >= version {
			// What is remembered may be wrapped under a version that cores give up now.
			r.rows.clear()
			r.opts.Log.InfoContext(ctx, "all records are wrapped anew", "version", version)
		}
		err = errors.Join(err, r.tell(ctx))
	}
	return err
}

// measure counts the records of all slices before there is work on one, so that
// operators see how much it will be. false: another node is at it, or has a later
// version.
func (r *Relay) measure(ctx context.Context, st Rotator, version uint32, at *store.Rotation) (ready bool, err error) {
	measured := func(at *store.Rotation) bool {
		for _, s := range at.Slices {
			if s.Version < version {
				return false
			}
		}
		return true
	}
	if measured(at) {
		return true, nil
	}
	return alone(ctx, st, "rewrap", func(ctx context.Context) error {
		now, err := st.Rotation(ctx)
		if err != nil || measured(&now) {
			return err
		}
		for n, s := range now.Slices {
			if s.Version >= version {
				continue
			}
			total, err := st.Count(ctx, n)
			if err != nil {
				return err
			}
			if err := st.Report(ctx, n, store.Slice{Version: version, Total: total}); err != nil {
				return err
			}
		}
		return nil
	})
}

// A rewrapping is the work on one slice.
type rewrapping struct {
	relay   *Relay
	core    wire.Rewrapper
	store   Rotator
	slice   int
	version uint32

	at store.Slice
}

// run wraps the records of the slice anew. What is done already is passed over, so
// that work which was broken off goes on.
func (w *rewrapping) run(ctx context.Context) error {
	told := time.Now()
	pages := 0
	for after := (wire.RecordID{}); ; {
		began := time.Now()
		rows, err := w.store.Scan(ctx, w.slice, after, wire.RewrapStep)
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			break
		}
		after = rows[len(rows)-1].ID
		worked, err := w.page(ctx, rows)
		if err != nil {
			return err
		}
		if pages++; worked || pages%reportPages == 0 {
			if err := w.report(ctx); err != nil {
				return err
			}
		}
		if time.Since(told) > rotatePeriod {
			if err := w.show(ctx); err != nil {
				return err
			}
			told = time.Now()
		}
		if !w.relay.yield(ctx, time.Since(began)) {
			return ctx.Err()
		}
	}
	w.at.Done, w.at.Total = w.version, w.at.Looked
	return w.report(ctx)
}

// show tells operators how far all slices are.
func (w *rewrapping) show(ctx context.Context) error {
	at, err := w.store.Rotation(ctx)
	if err != nil {
		return err
	}
	w.relay.rotation.note(&at)
	return w.relay.tell(ctx)
}

func (w *rewrapping) report(ctx context.Context) error { return w.store.Report(ctx, w.slice, w.at) }

// yield leaves the processors and the database to requests for the rest of the
// time of which work took a share.
func (r *Relay) yield(ctx context.Context, took time.Duration) bool {
	return sleep(ctx, time.Duration(float64(took)*(1/r.opts.RewrapShare-1)))
}

// page wraps those of the rows anew that need it, and reports whether there were
// any.
func (w *rewrapping) page(ctx context.Context, rows []store.Row) (worked bool, err error) {
	due := make([]wire.Ref, 0, len(rows))
	for size := 0; len(rows) > 0; {
		if under, _ := wire.SealedVersions(rows[0].Sealed); under < w.version {
			due, size = append(due, sealedRef(&rows[0])), size+len(rows[0].Sealed)
		}
		rows = rows[1:]
		w.at.Looked++
		if len(due) == 0 || size < rewrapBytes && len(rows) > 0 {
			continue
		}
		if err := w.step(ctx, due); err != nil {
			return worked, err
		}
		due, size, worked = due[:0], 0, true
	}
	return worked, nil
}

// step has one message of records wrapped anew and stores them.
func (w *rewrapping) step(ctx context.Context, due []wire.Ref) error {
	// Once the core has been asked, the step is finished even if ctx ends.
	finish := context.WithoutCancel(ctx)
	for until := time.Now().Add(versionWait); ; {
		a, err := w.core.Rewrap(finish, &wire.Rewrap{RequestID: "rewrap", Version: w.version, Records: due})
		if err != nil {
			return fmt.Errorf("ask core to wrap %d records anew: %w", len(due), err)
		}
		switch {
		case a.Kind == wire.Final:
			if err := w.overtaken(finish); err != nil {
				return errors.Join(err, w.relay.record(finish, &a.Audit))
			}
			w.at.Refused += int64(len(due))
			return w.relay.record(finish, &a.Audit)
		case a.Kind == wire.Pending:
			return w.put(finish, a, len(due))
		case a.Kind != wire.Need || a.NeedVersion == 0:
			return fmt.Errorf("%w: kind %d to a rewrap", errAnswer, a.Kind)
		}
		if err := w.relay.record(finish, &a.Audit); err != nil {
			return err
		}
		if !sleep(ctx, versionPoll) {
			return ctx.Err()
		}
		if time.Now().After(until) {
			return errVersion
		}
	}
}

// errOvertaken says that the core wraps under a later version by now: the records
// are not refused, the work begins again with that one.
var errOvertaken = errors.New("another version of the DomainKey has come meanwhile")

func (w *rewrapping) overtaken(ctx context.Context) error {
	info, err := w.relay.core.Info(ctx)
	if err != nil {
		return fmt.Errorf("ask core for its DomainKey version: %w", err)
	}
	if info.DomainKey != w.version {
		return errOvertaken
	}
	return nil
}

// put stores what the core returned, and tells it.
func (w *rewrapping) put(ctx context.Context, a *wire.Answer, asked int) error {
	within, cancel := context.WithTimeout(ctx, w.relay.opts.StoreTimeout)
	defer cancel()
	// As for a change, the entry is on disk before anything comes of it.
	err := w.relay.record(within, &a.Audit)
	done := 0
	if err == nil {
		done, err = w.store.Rewrap(within, a.Writes)
	}
	outcome := wire.Stored
	if err != nil {
		outcome = wire.Failed
	}
	w.relay.rotation.rewrapped.Add(uint64(done))
	w.at.Refused += int64(asked - len(a.Writes))
	within, cancelResolve := context.WithTimeout(ctx, w.relay.opts.StoreTimeout)
	defer cancelResolve()
	end, e := w.relay.core.Resolve(within, wire.Resolve{Handle: a.Handle, Outcome: outcome})
	if e != nil {
		return errors.Join(err, fmt.Errorf("tell core that records are %s: %w", outcomeName(outcome), e))
	}
	return errors.Join(err, w.relay.record(within, &end.Audit))
}

// versionPoll is between two questions to a core that gets a version of the
// DomainKey.
const versionPoll = 20 * time.Millisecond

// awaitVersion waits before a call is repeated for which the core gets a version
// of the DomainKey.
func (x *exchange) awaitVersion(ctx context.Context) error {
	if x.versionBy.IsZero() {
		x.versionBy = time.Now().Add(versionWait)
	}
	if time.Now().After(x.versionBy) {
		return errVersion
	}
	sleep(ctx, versionPoll)
	x.call.Floor = x.relay.rotation.floor.Load()
	return nil
}

// learnFloor asks the store for its floor, which a change was below.
func (r *Relay) learnFloor(ctx context.Context) {
	if st, ok := r.store.(Rotator); ok {
		if at, err := st.Rotation(ctx); err == nil {
			r.rotation.note(&at)
		}
	}
}
