package relay

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Errors of a core that does not keep to the protocol.
var (
	errNeeds   = errors.New("core asks for records again and again")
	errRecords = errors.New("core asks for more records than a call may name")
	errAnswer  = errors.New("core gave an answer that does not fit")
)

// An exchange is the talk with the core about one request.
type exchange struct {
	relay *Relay
	call  wire.Call
	names names
	named bool            // names is set
	extra []wire.RecordID // records that the core asked for or has met others at
	hints int             // how many of extra were asked for by earlier requests

	written  *wire.RecordID // version of the secret that the request has made
	factTurn *turn          // it is alone at the end of the log of negative facts
	narrows  bool           // it adds to that log, and takes a turn for it
	turn     *turn          // it is alone among those that have met at a record
	listing  bool           // it has one of the relay's places for listings
	collated bool           // it has one of the relay's places for collateral
	trouble  error          // of the source of collateral, for the log

	versionBy time.Time // when a version of the DomainKey must have come, zero: none is awaited

	storing    context.Context // of its calls of the store; nil: there were none
	leaveStore context.CancelFunc
}

// run asks the core until there is a reply. An error beside an answer is for
// the log only.
func (x *exchange) run(ctx context.Context) (*wire.Answer, error) {
	if len(x.call.Body) > 0 {
		x.names, x.named = peek(x.call.Action, x.call.Body)
	}
	defer x.leave()
	if err := x.refs(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", errUnread, err)
	}
	if err := x.inFactTurn(ctx); err != nil {
		return nil, err
	}
	needs, attempts := 0, 1
	for {
		a, err := x.ask(ctx)
		if err != nil {
			return nil, fmt.Errorf("call core: %w", err)
		}
		switch a.Kind {
		case wire.Final:
			if err = x.relay.record(ctx, &a.Audit); err != nil {
				return nil, err
			}
			a, err := x.done(a)
			return a, errors.Join(err, x.trouble)
		case wire.Need:
			if a.NeedVersion != 0 {
				if err := errors.Join(x.relay.record(ctx, &a.Audit), x.awaitVersion(ctx)); err != nil {
					return nil, err
				}
				continue
			}
			if needs++; needs > maxNeeds {
				return nil, errors.Join(errNeeds, x.relay.record(ctx, &a.Audit))
			}
			if needs > 2 {
				pause(needs)
				if err := x.inTurnAtSecret(ctx); err != nil {
					return nil, errors.Join(err, x.relay.record(ctx, &a.Audit))
				}
			}
			x.call.Again = uint8(needs)
			if a.NeedFacts {
				if err := errors.Join(x.relay.record(ctx, &a.Audit), x.showFacts(ctx)); err != nil {
					return nil, err
				}
				continue
			}
			if err = x.supply(ctx, a); err != nil {
				return nil, err
			}
		case wire.Pending:
			within, err := x.atStore(ctx)
			if err != nil {
				return x.relay.abandon(ctx, a)
			}
			last, outcome, err := x.relay.settle(within, a, attempts == x.mostAttempts(), x.inTurn, x.passFactTurn)
			if last == nil {
				return nil, err
			}
			if outcome != wire.Conflict {
				x.note(a.Writes)
				last, wrong := x.done(last)
				return last, errors.Join(err, wrong)
			}
			needs, attempts = 0, attempts+1
			x.call.Again = 0
			if a.Facts != nil { // others have perhaps added to the log
				if err = x.relay.ShowFacts(within); err != nil {
					return nil, err
				}
			}
			if err = x.inFactTurn(ctx); err != nil {
				return nil, err
			}
			if err = x.again(ctx, a, attempts); err != nil {
				return nil, err
			}
		default:
			return nil, fmt.Errorf("%w: kind %d", errAnswer, a.Kind)
		}
	}
}

// mostAttempts is how often the change may be tried.
func (x *exchange) mostAttempts() int {
	if x.narrows {
		return maxFactAttempts
	}
	return maxAttempts
}

// leave gives back what the exchange holds.
func (x *exchange) leave() {
	x.outOfStore()
	if x.listing {
		x.relay.listings.Leave(x.names.tenant)
	}
	if x.collated {
		<-x.relay.collaterals
	}
	x.leaveTurn()
	x.passFactTurn()
}

// done takes the answer that carries the reply. A refused request may have been
// refused before the core looked at all records, so only a success tells that
// the core has opened them.
func (x *exchange) done(a *wire.Answer) (*wire.Answer, error) {
	if a.Kind != wire.Final || a.Reply == nil {
		return nil, fmt.Errorf("%w: no reply", errAnswer)
	}
	if a.Code == 200 {
		x.relay.rows.opened(x.call.Records)
		x.remember()
	}
	return a, nil
}

// supply prepares the repetition of a call with what the core asks for.
func (x *exchange) supply(ctx context.Context, a *wire.Answer) error {
	if err := x.relay.record(ctx, &a.Audit); err != nil {
		return err
	}
	if a.NeedCollateral != nil {
		x.collate(ctx, a.NeedCollateral)
		if a.NeedList == nil && len(a.NeedRecords) == 0 {
			return nil
		}
	}
	for _, id := range a.NeedRecords {
		x.want(id)
	}
	if a.NeedList != nil {
		if err := x.list(ctx, *a.NeedList); err != nil {
			return err
		}
	}
	// After the listing: if all keys are deleted in between, the app record that is
	// read now says so. The other way round keys that were deleted would be listed
	// beside keys that were made later.
	return x.fresh(ctx, true)
}

// list has the call carry a listing.
func (x *exchange) list(ctx context.Context, q wire.Query) error {
	if !x.listing {
		if !x.relay.listings.Enter(x.names.tenant) {
			return errBusy
		}
		x.listing = true
	}
	within, err := x.atStore(ctx)
	if err != nil {
		return err
	}
	rows, err := x.relay.store.List(within, q, wire.UUID{})
	if err != nil {
		return fmt.Errorf("list records: %w", err)
	}
	x.call.Listing, x.call.Listed = sealedRefs(rows), true
	return nil
}

// again prepares the repetition of a call whose writes met others. All rows
// are read anew, the written ones included.
func (x *exchange) again(ctx context.Context, a *wire.Answer, attempt int) error {
	for i := range a.Writes {
		if w := &a.Writes[i]; w.Expected != 0 && len(x.extra) < wire.MaxRecords/2 {
			x.want(w.ID)
		}
	}
	if x.named && x.names.hasSecret() && len(x.extra) < wire.MaxRecords/2 {
		for _, id := range x.relay.hints.get(x.names.secretRecord()) {
			x.want(id) // as the one who was before has left it
		}
	}
	if x.narrows {
		attempt = min(attempt, 8) // those whom it meets are few, and all lose some of the time
	}
	if attempt > 2 { // it has its turn, and meets those of other processes
		pause(attempt)
	}
	x.call.Listing, x.call.Listed, x.call.Floor = nil, false, x.relay.rotation.floor.Load()
	return x.fresh(ctx, true)
}

// pause lets others go first: those who met at a record would meet there again
// if all came back at once.
func pause(attempt int) { time.Sleep(rand.N(time.Duration(attempt) * time.Millisecond)) }

// want adds a record to those that the call names.
func (x *exchange) want(id wire.RecordID) {
	if !slices.Contains(x.extra, id) {
		x.extra = append(x.extra, id)
	}
}

// refs fills in the references, from the cache if it has all of them.
func (x *exchange) refs(ctx context.Context) error {
	if !x.named {
		return nil
	}
	n := &x.names
	x.expect()
	if f := x.relay.follower; !f.current() || f.feed != nil && !mayLag(x.call.Action) {
		return x.fresh(ctx, false)
	}
	var room [1 + len(n.keys) + 2]wire.RecordID
	refs := make([]wire.Ref, 0, 1+2*n.n+2+len(x.extra))
	for i, id := range append(n.records(room[:0]), x.extra...) {
		f, primary, ok := x.relay.rows.ref(id)
		if !ok {
			return x.fresh(ctx, false)
		}
		refs = append(refs, f)
		if i == 0 || i > n.n {
			continue
		}
		if id, ok := n.material(i-1, primary); ok {
			if f, _, ok = x.relay.rows.ref(id); !ok {
				return x.fresh(ctx, false)
			}
			refs = append(refs, f)
		}
	}
	x.call.Records = refs
	x.relay.remembered.Add(1)
	return nil
}

// fresh fills in the references from the store. Unless all is set, the bytes of
// records that the core is known to hold are left out.
func (x *exchange) fresh(ctx context.Context, all bool) error {
	var ids []wire.RecordID
	if x.named {
		ids = x.names.records(ids)
	}
	for _, id := range x.extra {
		if !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	ctx, err := x.atStore(ctx)
	if err != nil {
		return err
	}
	x.relay.reads.Add(1)
	since := x.relay.rows.epoch.Load()
	rows, err := x.relay.read(ctx, ids)
	if err != nil {
		return err
	}
	more, err := x.relay.read(ctx, x.versions(ids, rows))
	if err != nil {
		return err
	}
	rows = append(rows, more...)
	if len(rows) > wire.MaxRecords {
		return errRecords
	}
	x.call.Records, x.call.Fresh = x.relay.rows.refs(rows, all, since), true
	return nil
}

// versions names the key versions that go with the keys among rows, which have
// the ids, apart from those that are among them already.
func (x *exchange) versions(ids []wire.RecordID, rows []store.Row) (versions []wire.RecordID) {
	for i := range rows {
		row := &rows[i]
		if row.Revision == 0 || row.ID.Type != wire.Key {
			continue
		}
		id, ok := wire.RecordID{Type: wire.KeyVersion, Tenant: row.ID.Tenant, ID: row.ID.ID, Version: row.Primary}, row.Primary != 0
		if i >= 1 && i <= x.names.n {
			id, ok = x.names.material(i-1, row.Primary)
		} else if len(ids)+len(versions) >= wire.MaxRecords {
			continue // the request itself does not name this key
		}
		if ok && !slices.Contains(ids, id) {
			versions = append(versions, id)
		}
	}
	return versions
}

// read gets rows from the store, in the order asked.
func (r *Relay) read(ctx context.Context, ids []wire.RecordID) ([]store.Row, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	rows, err := r.store.Get(ctx, ids)
	if err != nil {
		return nil, fmt.Errorf("read %s and %d more: %w", ids[0], len(ids)-1, err)
	}
	if len(rows) != len(ids) {
		return nil, fmt.Errorf("read %d records: store gave %d rows", len(ids), len(rows))
	}
	for i := range rows {
		rows[i].ID = ids[i] // that of a missing row may be empty
	}
	return rows, nil
}

// sealedRefs names rows together with their bytes.
func sealedRefs(rows []store.Row) []wire.Ref {
	refs := make([]wire.Ref, len(rows))
	for i := range rows {
		refs[i] = sealedRef(&rows[i])
	}
	return refs
}

func sealedRef(row *store.Row) wire.Ref {
	return wire.Ref{ID: row.ID, Revision: row.Revision, Tag: row.Tag, Sealed: row.Sealed}
}
