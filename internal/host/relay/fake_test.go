package relay

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

var errDisk = errors.New("disk is on fire")

// memStore is a store in memory with the rules of a real one.
type memStore struct {
	mu      sync.Mutex
	rows    map[wire.RecordID]store.Row
	replays map[wire.Replay]bool
	sweeps  map[wire.UUID]uint64 // revision of the app
	due     map[wire.RecordID]int64
	reads   int // calls of Get and List

	// Hooks, nil or called without the lock.
	beforeGet   func(ids []wire.RecordID) error
	beforeApply func(context.Context, store.Change) error
	afterApply  func() error // its error makes the outcome unknown to the caller
	beforeEnd   func() error
	pruned      []int64
}

func newMemStore() *memStore {
	return &memStore{
		rows: map[wire.RecordID]store.Row{}, replays: map[wire.Replay]bool{}, sweeps: map[wire.UUID]uint64{},
		due: map[wire.RecordID]int64{},
	}
}

func (s *memStore) Get(_ context.Context, ids []wire.RecordID) ([]store.Row, error) {
	if s.beforeGet != nil {
		if err := s.beforeGet(ids); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	rows := make([]store.Row, len(ids))
	for i, id := range ids {
		rows[i] = s.rows[id]
		rows[i].Sealed = bytes.Clone(rows[i].Sealed)
	}
	return rows, nil
}

func (s *memStore) List(_ context.Context, q wire.Query, after wire.UUID) ([]store.Row, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reads++
	if err := store.CheckQuery(q); err != nil {
		return nil, err
	}
	var rows []store.Row
	for id, row := range s.rows {
		if id.Type != q.Type || id.Tenant != q.Tenant || row.Hidden {
			continue
		}
		if q.ID != (wire.UUID{}) && id.ID == q.ID && id.Version > q.After || q.ID == (wire.UUID{}) && bytes.Compare(id.ID[:], after[:]) > 0 {
			rows = append(rows, row)
		}
	}
	slices.SortFunc(rows, func(a, b store.Row) int {
		return cmp.Or(bytes.Compare(a.ID.ID[:], b.ID.ID[:]), cmp.Compare(a.ID.Version, b.ID.Version))
	})
	return rows[:min(len(rows), q.Limit)], nil
}

func (s *memStore) Apply(ctx context.Context, c store.Change) error {
	if s.beforeApply != nil {
		if err := s.beforeApply(ctx, c); err != nil {
			return err
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	err := s.apply(c)
	if err == nil && s.afterApply != nil {
		err = s.afterApply()
	}
	return err
}

func (s *memStore) apply(c store.Change) error {
	if err := c.Check(); err != nil {
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.Replay != nil && s.replays[*c.Replay] {
		return store.ErrReplayed
	}
	for _, w := range c.Writes {
		if !w.Remove && s.rows[w.ID].Revision != w.Expected {
			return store.ErrConflict
		}
	}
	for _, w := range c.Writes {
		if w.Remove {
			s.remove(w)
			continue
		}
		if delete(s.due, w.ID); w.Due != 0 {
			s.due[w.ID] = w.Due
		}
		s.rows[w.ID] = store.Row{
			ID: w.ID, Revision: w.Revision, Tag: w.Tag(), Primary: w.Primary, Hidden: w.Hidden,
			Sealed: bytes.Clone(w.Sealed),
		}
		if w.Sweep {
			s.sweeps[w.ID.Tenant] = w.Revision
		}
	}
	if c.Replay != nil {
		s.replays[*c.Replay] = true
	}
	return nil
}

// remove carries out a removal. The caller must hold s.mu.
func (s *memStore) remove(w wire.Write) {
	for id := range s.rows {
		all := store.RemovesAll(w) && id.Type == w.ID.Type && id.Tenant == w.ID.Tenant && id.ID == w.ID.ID
		if id == w.ID || all {
			delete(s.rows, id)
		}
	}
}

func (s *memStore) Due(_ context.Context, now int64, limit int) (ids []wire.RecordID, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for id, at := range s.due {
		if at <= now && len(ids) < limit {
			ids = append(ids, id)
		}
	}
	return ids, nil
}

func (s *memStore) Sweeps(context.Context) ([]store.Sweep, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var due []store.Sweep
	for t, revision := range s.sweeps {
		due = append(due, store.Sweep{Tenant: t, Revision: revision})
	}
	return due, nil
}

func (s *memStore) EndSweep(_ context.Context, sweep store.Sweep) error {
	if s.beforeEnd != nil {
		if err := s.beforeEnd(); err != nil {
			return err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweeps[sweep.Tenant] == sweep.Revision {
		delete(s.sweeps, sweep.Tenant)
	}
	return nil
}

func (s *memStore) PruneReplays(_ context.Context, before int64) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pruned = append(s.pruned, before)
	return 0, nil
}

// put stores a record with a value in its first eight bytes.
func (s *memStore) put(id wire.RecordID, value uint64, primary uint32) {
	s.mu.Lock()
	defer s.mu.Unlock()
	row := s.rows[id]
	sealed := seal(id, row.Revision+1, value)
	s.rows[id] = store.Row{ID: id, Revision: row.Revision + 1, Tag: wire.SealedTag(sealed), Primary: primary, Sealed: sealed}
}

func (s *memStore) row(id wire.RecordID) store.Row {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rows[id]
}

// seal and unseal stand for the cryptography of the core.
func seal(id wire.RecordID, revision, value uint64) []byte {
	b := binary.BigEndian.AppendUint64(nil, value)
	tag := sha256.Sum256(fmt.Appendf(nil, "%v %d %d", id, revision, value))
	return append(b, tag[:16]...)
}

func unseal(f *wire.Ref) (uint64, bool) {
	if len(f.Sealed) != 24 {
		return 0, false
	}
	value := binary.BigEndian.Uint64(f.Sealed)
	return value, bytes.Equal(seal(f.ID, f.Revision, value), f.Sealed)
}

// memSink takes audit entries and notices what is missing.
type memSink struct {
	mu      sync.Mutex
	seen    map[uint64]bool
	durable int
	fail    error
	lossy   bool // it has failed once
}

// set makes the sink fail, or work again.
func (s *memSink) set(err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.fail, s.lossy = err, true
}

// has reports whether n durable entries have come.
func (s *memSink) has(n int) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.durable >= n
}

func (s *memSink) Put(ctx context.Context, a wire.Audit) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := cmp.Or(s.fail, ctx.Err()); err != nil {
		return err
	}
	for i := range uint64(a.Count) {
		if s.seen[a.First+i] {
			return fmt.Errorf("entry %d comes twice", a.First+i)
		}
		s.seen[a.First+i] = true
	}
	if a.Durable {
		s.durable++
	}
	return nil
}

// opened is a record as the fake core holds it.
type opened struct{ revision, value uint64 }

// fakeCore keeps the protocol as the real one does and refuses what breaks it.
type fakeCore struct {
	t  testing.TB
	mu sync.Mutex

	held    map[wire.RecordID]opened
	pending map[uint64][]wire.Write
	handle  uint64
	audited uint64 // entries made

	calls    []wire.Call // as received, with what the slices shared
	resolved []wire.Outcome
	before   func(*wire.Call) error // called without the lock
	sweeps   int
	checks   int
}

func newFakeCore(t testing.TB) *fakeCore {
	return &fakeCore{t: t, held: map[wire.RecordID]opened{}, pending: map[uint64][]wire.Write{}}
}

func (c *fakeCore) audit(durable bool) wire.Audit {
	c.audited++
	return wire.Audit{First: c.audited, Count: 1, Durable: durable, Frames: []byte{1}}
}

func (c *fakeCore) Info(context.Context) (wire.Info, error) { return wire.Info{}, nil }

func (c *fakeCore) Call(ctx context.Context, call *wire.Call) (*wire.Answer, error) {
	if c.before != nil {
		if err := c.before(call); err != nil {
			return nil, err
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	kept := *call
	kept.Records = slices.Clone(call.Records)
	c.calls = append(c.calls, kept)
	switch call.Action {
	case "Refuse":
		return c.final(400, "refused"), nil
	case "Greedy":
		return &wire.Answer{Kind: wire.Need, Audit: c.audit(false)}, nil
	case "Odd":
		return &wire.Answer{Kind: 9}, nil
	case "Silent":
		return &wire.Answer{Kind: wire.Final}, nil
	case "ListKey":
		if !call.Listed {
			return &wire.Answer{Kind: wire.Need, NeedList: &wire.Query{Type: wire.Key, Tenant: tenant, Limit: 3}}, nil
		}
		return c.final(200, fmt.Sprint(len(call.Listing), call.Listing[0].Sealed != nil)), nil
	}
	if need := c.open(call); need != nil {
		return need, nil
	}
	switch call.Action {
	case "VerifyQuote":
		if !call.Collated {
			return &wire.Answer{Kind: wire.Need, NeedCollateral: &wire.CollateralQuery{FMSPC: fmspc, CA: wire.PlatformCA}}, nil
		}
		if len(call.Collateral) == 0 {
			return c.final(500, "no collateral"), nil
		}
		return c.final(200, string(call.Collateral)), nil
	case "Add", "DeleteAllKey":
		return c.change(call), nil
	}
	return c.final(200, fmt.Sprint(c.held[call.Records[0].ID].value)), nil
}

// open opens the records of a call, or asks for them.
func (c *fakeCore) open(call *wire.Call) *wire.Answer {
	if len(call.Records) == 0 {
		return nil
	}
	for i := range call.Records {
		f := &call.Records[i]
		held, ok := c.held[f.ID]
		switch {
		case ok && held.revision == f.Revision:
			continue
		case f.Revision == 0 && !ok:
			continue
		case f.Sealed != nil && f.Revision > held.revision:
			value, good := unseal(f)
			if !good || f.Tag != wire.SealedTag(f.Sealed) {
				c.t.Errorf("record %v does not open", f.ID)
			}
			c.held[f.ID] = opened{f.Revision, value}
			continue
		}
		need := &wire.Answer{Kind: wire.Need}
		for _, f := range call.Records {
			need.NeedRecords = append(need.NeedRecords, f.ID)
		}
		return need
	}
	return nil
}

// change adds one to the last record, and for DeleteAllKey to the app.
func (c *fakeCore) change(call *wire.Call) *wire.Answer {
	f := call.Records[len(call.Records)-1]
	if call.Action == "DeleteAllKey" {
		f = call.Records[0]
	}
	sealed := seal(f.ID, f.Revision+1, c.held[f.ID].value+1)
	c.handle++
	w := wire.Write{ID: f.ID, Expected: f.Revision, Revision: f.Revision + 1, Sealed: sealed, Primary: 1, Sweep: f.ID.Type == wire.App}
	c.pending[c.handle] = []wire.Write{w}
	sum := sha256.Sum256(call.Body)
	return &wire.Answer{
		Kind: wire.Pending, Handle: c.handle, Writes: []wire.Write{w},
		Replay: &wire.Replay{Tenant: tenant, Tag: wire.Tag(sum[:16])}, Audit: c.audit(true),
	}
}

func (c *fakeCore) final(code int, message string) *wire.Answer {
	return &wire.Answer{Kind: wire.Final, Code: code, Reply: []byte(message), Sign: "signed", Release: 7, Audit: c.audit(false)}
}

func (c *fakeCore) Resolve(ctx context.Context, r wire.Resolve) (*wire.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if ctx.Err() != nil {
		c.t.Error("Resolve is called with a context that has ended")
	}
	writes, ok := c.pending[r.Handle]
	if !ok {
		return nil, fmt.Errorf("no pending answer %d", r.Handle)
	}
	delete(c.pending, r.Handle)
	c.resolved = append(c.resolved, r.Outcome)
	switch r.Outcome {
	case wire.Stored:
		for _, w := range writes {
			if !w.Remove && w.Revision > c.held[w.ID].revision {
				c.held[w.ID] = opened{w.Revision, binary.BigEndian.Uint64(w.Sealed)}
			}
		}
		return c.final(200, fmt.Sprint(binary.BigEndian.Uint64(writes[len(writes)-1].Sealed))), nil
	case wire.Conflict:
		return &wire.Answer{Kind: wire.Final, Audit: c.audit(false)}, nil
	case wire.Replayed:
		return c.final(400, "replayed"), nil
	}
	return c.final(400, "storage error"), nil
}

// Sweep hides every key that has no value yet.
func (c *fakeCore) Sweep(_ context.Context, s *wire.Sweep) (*wire.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sweeps++
	if s.Secret.ID.Type != 0 {
		return c.purge(&s.Secret), nil
	}
	if s.App.Sealed == nil || len(s.Keys) > wire.SweepStep {
		c.t.Errorf("sweep of %d keys, app with bytes: %v", len(s.Keys), s.App.Sealed != nil)
	}
	a := &wire.Answer{Kind: wire.Final, Audit: c.audit(false)}
	for i := range s.Keys {
		f := &s.Keys[i]
		if value, ok := unseal(f); !ok {
			c.t.Errorf("key %v does not open", f.ID)
		} else if value == 0 {
			a.Writes = append(a.Writes, wire.Write{
				ID: f.ID, Expected: f.Revision, Revision: f.Revision + 1, Hidden: true, Sealed: seal(f.ID, f.Revision+1, 1),
			})
		}
	}
	if len(a.Writes) > 0 {
		c.handle++
		a.Kind, a.Handle, a.Audit.Durable = wire.Pending, c.handle, true
		c.pending[c.handle] = a.Writes
	}
	return a, nil
}

// purge takes a secret away, unless its value is odd.
func (c *fakeCore) purge(f *wire.Ref) *wire.Answer {
	value, ok := unseal(f)
	if !ok {
		c.t.Errorf("secret %v does not open", f.ID)
	}
	if value%2 == 1 {
		a := c.final(500, "not due")
		return a
	}
	c.handle++
	versions := wire.RecordID{Type: wire.SecretVersion, Tenant: f.ID.Tenant, ID: f.ID.ID}
	a := &wire.Answer{Kind: wire.Pending, Handle: c.handle, Audit: c.audit(true), Writes: []wire.Write{
		{ID: versions, Remove: true},
		{ID: f.ID, Expected: f.Revision, Revision: f.Revision + 1, Hidden: true, Sealed: seal(f.ID, f.Revision+1, value)},
	}}
	c.pending[c.handle] = a.Writes
	return a
}

func (c *fakeCore) Checkpoint(context.Context) (*wire.Answer, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.checks++
	return &wire.Answer{Kind: wire.Final, Audit: c.audit(false)}, nil
}

// lastCall returns the newest call.
func (c *fakeCore) lastCall() wire.Call {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.calls[len(c.calls)-1]
}

var tenant = must(wire.ParseUUID("86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c"))
var keyID = must(wire.ParseUUID("aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"))

var (
	appRecord     = wire.RecordID{Type: wire.App, Tenant: tenant, ID: tenant}
	keyRecord     = wire.RecordID{Type: wire.Key, Tenant: tenant, ID: keyID}
	versionRecord = wire.RecordID{Type: wire.KeyVersion, Tenant: tenant, ID: keyID, Version: 1}
)

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// rig is a relay with all that it stands between.
type rig struct {
	*Relay
	core  *fakeCore
	store *memStore
	sink  *memSink
}

func newRig(t testing.TB, opts Options) *rig {
	core, st, sink := newFakeCore(t), newMemStore(), &memSink{seen: map[uint64]bool{}}
	st.put(appRecord, 0, 0)
	st.put(keyRecord, 0, 1)
	st.put(versionRecord, 0, 0)
	g := &rig{Relay: New(core, st, sink, opts), core: core, store: st, sink: sink}
	t.Cleanup(func() {
		core.mu.Lock()
		defer core.mu.Unlock()
		if len(core.pending) != 0 {
			t.Errorf("%d pending answers were never resolved", len(core.pending))
		}
		for n := range core.audited {
			if !sink.lossy && !sink.seen[n+1] {
				t.Errorf("audit entry %d is lost", n+1)
			}
		}
	})
	return g
}

// do sends an action on keyID; n makes bodies differ.
func (g *rig) do(action string, n int) (Reply, error) {
	return g.Do(context.Background(), Request{ID: "r", Action: action, Body: body(n)})
}

func body(n int) []byte {
	return fmt.Appendf(nil, `{"appid":"%s","nonce":"%d","payload":{"keyid":"%s"}}`, tenant, n, keyID)
}
