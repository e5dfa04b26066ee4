// Package relay carries requests between clients, the core, the store and the
// audit sink. It is the manager without a network: it fetches the sealed
// records a request names, hands both to the core, stores what the core
// returns, and only then lets the reply go.
//
// It decides nothing about a request. What it reads in one is a guess at the
// rows to fetch, which the core checks and corrects; every text a client sees
// is the core's, except for the few in reply.go.
package relay

import (
	"context"
	"fmt"
	"log/slog"
	"runtime"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/internal/fair"
	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A Store keeps sealed records. Its methods are safe for concurrent use.
type Store interface {
	// Get returns the rows in the order asked; a missing one has Revision 0.
	Get(ctx context.Context, ids []wire.RecordID) ([]store.Row, error)
	// List returns the rows that are not hidden, ordered by id, after a given one.
	List(ctx context.Context, q wire.Query, after wire.UUID) ([]store.Row, error)
	// Apply stores all of a change, durably, or nothing. Apart from
	// store.ErrConflict, store.ErrReplayed and store.ErrUnstored an error leaves the
	// outcome unknown.
	Apply(ctx context.Context, c store.Change) error
}

// A Settler is a store whose changes go on when the connection is lost, so that
// what it holds afterwards does not tell what has become of one.
type Settler interface {
	// Settle tries a change again of which Apply could not tell the outcome. It
	// returns nil if the change is stored, store.ErrConflict or store.ErrReplayed if
	// nothing of it is nor will be, and store.ErrUnstored if it has not stored it
	// itself; any other error leaves the outcome unknown.
	Settle(ctx context.Context, c store.Change) error
}

// A Sweeps remembers which tenants have a bulk change to be carried over to
// their keys, and which secrets are to be purged when. It is the part of a store
// that Run needs besides Store.
type Sweeps interface {
	Sweeps(ctx context.Context) ([]store.Sweep, error)
	// EndSweep forgets a sweep unless another one has become due since.
	EndSweep(ctx context.Context, s store.Sweep) error
	// Due returns at most limit secrets that are due at a time in Unix
	// milliseconds, those first that have been due for longest.
	Due(ctx context.Context, now int64, limit int) ([]wire.RecordID, error)
	// PruneReplays drops replay entries that ended before a time in Unix
	// milliseconds, and returns how many.
	PruneReplays(ctx context.Context, before int64) (int, error)
}

// A Shared store serves several nodes.
type Shared interface {
	// Alone runs work if no node runs work of that name now, and reports whether
	// it did.
	Alone(ctx context.Context, name string, work func(context.Context) error) (ran bool, err error)
}

// alone runs work, in a shared store unless another node does it.
func alone(ctx context.Context, st any, name string, work func(context.Context) error) (ran bool, err error) {
	if s, ok := st.(Shared); ok {
		return s.Alone(ctx, name, work)
	}
	return true, work(ctx)
}

// A Sink takes audit entries. Put returns once they are in its hands, or on
// disk if a.Durable; after an error they may be lost.
type Sink interface {
	Put(ctx context.Context, a wire.Audit) error
}

// A Collateral fetches what Intel says of a kind of platform. Its methods are safe
// for concurrent use.
type Collateral interface {
	// Encoded returns collateral as docs/formats.md#collateral-v1 has it, for an
	// FMSPC and the CA, wire.ProcessorCA or wire.PlatformCA, that issued the
	// platform's certificate. Any quote may ask for any of them.
	Encoded(ctx context.Context, fmspc [6]byte, ca string) ([]byte, error)
}

// Options are the bounds of a Relay. The zero value is usable.
type Options struct {
	// Concurrent is how many requests may be inside at once, and twice of how many
	// may be at the store; the next one is answered with code 429. Default 1024.
	Concurrent int
	// Processors are those that the core runs on; the requests that want them take
	// turns, by tenants. Default: as many as Go uses.
	Processors int
	// Ahead is how many expensive calls of one tenant may be at the core for each of
	// the processors, so that none of these waits for the next call while that is on
	// its way. Default 1, as for a core in this process.
	Ahead int
	// CachedRows bounds the row cache, about 200 bytes each. Default 65536.
	CachedRows int
	// StoreTimeout is how long one request may wait for the store, with all that it
	// reads and changes there, and how long the core may then take to answer. Default
	// 10 s. Where Feed fails it is 2 s, or the grace if that is longer.
	StoreTimeout time.Duration
	// Feed tells what other nodes change in the store. Nil: there are none.
	Feed Feed
	// StaleGrace is how long remembered rows count after the store was last
	// asked what others have changed. It bounds how late a change by another
	// node, such as a disabled key, takes effect here. Default 1 s.
	StaleGrace time.Duration
	// Collateral is asked where a quote is to be verified. Default: there is none,
	// so that the core refuses all quotes.
	Collateral Collateral
	// CollateralTimeout is how long one request may wait for it. Default 10 s.
	CollateralTimeout time.Duration
	// RewrapShare is the part of the time that may go into wrapping records under a new
	// version of the DomainKey, above 0 and up to 1. Default 0.2.
	RewrapShare float64
	// Log takes what happens in the background. Default: nothing is logged.
	Log *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.Concurrent <= 0 {
		o.Concurrent = 1024
	}
	if o.Processors <= 0 {
		o.Processors = runtime.GOMAXPROCS(0)
	}
	if o.Ahead <= 0 {
		o.Ahead = 1
	}
	if o.CachedRows <= 0 {
		o.CachedRows = 1 << 16
	}
	if o.StoreTimeout <= 0 {
		o.StoreTimeout = 10 * time.Second
	}
	if o.StaleGrace <= 0 {
		o.StaleGrace = time.Second
	}
	if o.CollateralTimeout <= 0 {
		o.CollateralTimeout = 10 * time.Second
	}
	if !(o.RewrapShare > 0 && o.RewrapShare <= 1) {
		o.RewrapShare = 0.2
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}

// Bounds on what one request may cause.
const (
	// How often the core may ask for records. Once is normal, twice for a key
	// version that only the opened key names. More often happens when a record
	// changes between the reading of it and the call, several times in a row.
	maxNeeds = 8
	// How often a change may be tried. Each time another one of the same record
	// has succeeded, of another node; here such changes take turns. The node that
	// has won reads less before its next change, and so may win many in a row.
	maxAttempts = 24
	// The same of changes that all meet at one place, the end of the log of negative
	// facts.
	maxFactAttempts = 100
)

// maxListings is how many listings may be under way at once, of one tenant one less;
// more wait. One may take 64 MiB here and as much in the core.
const maxListings = 4

// maxCollaterals is how many requests may be at the source of collateral or hold
// some; more wait. Each may take 4 MiB here and as much in the core.
const maxCollaterals = 16

// A Relay is safe for concurrent use.
type Relay struct {
	core  wire.Core
	store Store
	sink  Sink
	opts  Options

	inside  atomic.Int64  // requests being served
	atStore atomic.Int64  // of them, those that have gone to the store
	entries atomic.Uint64 // audit entries since the start, without checkpoints

	remembered, reads atomic.Uint64 // requests by where their rows came from

	rows   *rowCache
	hints  *hints
	sweeps chan struct{} // has room for one signal: something is due
	turns  turns
	lanes  lanes

	chronicle chronicle

	follower *follower
	rotation rotation

	listings    *fair.Gate[wire.UUID] // listings under way, by tenants
	collaterals chan struct{}         // one entry for each request with collateral
}

// New returns a relay between core, st and sink.
func New(core wire.Core, st Store, sink Sink, opts Options) *Relay {
	opts = opts.withDefaults()
	return &Relay{
		core: core, store: st, sink: sink, opts: opts,
		rows: newRowCache(opts.CachedRows), hints: newHints(opts.CachedRows / 16), sweeps: make(chan struct{}, 1),
		chronicle: chronicle{turn: make(chan struct{}, 1)}, lanes: newLanes(opts), follower: newFollower(opts.Feed, opts.StaleGrace),
		listings: fair.New[wire.UUID](fair.Limits{
			Places: maxListings, Each: maxListings - 1, Waiting: opts.Concurrent, Queue: opts.Concurrent,
		}),
		collaterals: make(chan struct{}, maxCollaterals),
	}
}

// ForgetCore is to be called when another core instance has taken over: it
// holds no records opened. A call that comes too early or too late costs the
// core a question, nothing else.
func (r *Relay) ForgetCore() { r.rows.clear() }

// A Request is one request of a client as it arrived.
type Request struct {
	ID     string // unique, at most wire.MaxName bytes; audited
	Action string // as in the URL
	Get    bool   // the method was GET
	Body   []byte // not kept after Do returns
}

// A Reply is what to send to the client.
type Reply struct {
	Code    int    // of the envelope
	Body    []byte // the envelope; must not be changed
	Sign    string // value of the reply signature header, "" for none
	Release int64  // do not send it before, Unix microseconds; 0: at once
}

// Do serves one request. There is always a reply. A non-nil error beside it
// says what went wrong at the host, for the log.
//
// If ctx has ended, nothing is done. Later it makes no difference: what the
// core has done is audited and stored also when the client has gone.
func (r *Relay) Do(ctx context.Context, req Request) (Reply, error) {
	if r.inside.Add(1) > int64(r.opts.Concurrent) {
		r.inside.Add(-1)
		return Busy(), nil
	}
	defer r.inside.Add(-1)
	if err := ctx.Err(); err != nil {
		return Internal(), err
	}
	x := exchange{relay: r, call: wire.Call{
		RequestID: req.ID, Get: req.Get, Body: req.Body,
		// No action has a name this long, so a shorter one is as unknown.
		Action: req.Action[:min(len(req.Action), wire.MaxName)],
		Floor:  r.rotation.floor.Load(),
	}}
	a, err := x.run(context.WithoutCancel(ctx))
	if a == nil {
		return refuse(req.Action, err)
	}
	return Reply{Code: a.Code, Body: a.Reply, Sign: a.Sign, Release: a.Release}, err
}

// record hands audit entries to the sink.
func (r *Relay) record(ctx context.Context, a *wire.Audit) error {
	if a.Count == 0 {
		return nil
	}
	r.entries.Add(uint64(a.Count))
	if err := r.sink.Put(ctx, *a); err != nil {
		return fmt.Errorf("record %d audit entries from %d: %w", a.Count, a.First, err)
	}
	return nil
}
