package sqlite

import (
	"context"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// pruneStep is how many replay entries are dropped at once. Changes get their
// turn between two steps.
const pruneStep = 1000

// Apply stores c as a whole or not at all; it is durable when Apply returns nil.
// A write with Expected 0 creates its record, any other replaces the record of
// that revision. A removal deletes what there is, if anything.
//
// Nothing is stored if it returns store.ErrConflict (another revision is there),
// store.ErrReplayed (the replay entry is there), store.ErrFloor (see RaiseFloor),
// store.ErrInvalid (see store.Change.Check), store.ErrClosed, or the error of ctx, which counts only
// until the writer takes the change: after that the outcome is awaited. Any
// other error is one of the disk or the file; the changes that shared its
// transaction fail with it, and nothing of them is stored. Only if it says that
// the log could not be emptied and the process then ends before another change
// is stored, the change may be there at the next start.
//
// c is not changed and not kept.
func (s *Store) Apply(ctx context.Context, c store.Change) error {
	if err := c.Check(); err != nil {
		return err
	}
	size := 0
	for i := range c.Writes {
		size += len(c.Writes[i].Sealed)
	}
	return s.hand(ctx, size, c.Placed, func(w *writer) (refusal, err error) { return w.apply(&c) })
}

func (w *writer) apply(c *store.Change) (refusal, err error) {
	// Everything is checked before anything is written, so that a refusal
	// leaves the transaction as it was.
	if refusal, err = w.check(c); refusal != nil || err != nil {
		return refusal, err
	}
	for i := range c.Writes {
		if err := w.put(&c.Writes[i]); err != nil {
			return nil, fmt.Errorf("write %s: %w", c.Writes[i].ID, err)
		}
	}
	if r := c.Replay; r != nil {
		if _, err := w.addReplay.exec(r.Tenant[:], r.Tag[:], r.Until); err != nil {
			return nil, fmt.Errorf("write replay entry: %w", err)
		}
	}
	return nil, w.addFacts(c.Facts)
}

func (w *writer) check(c *store.Change) (refusal, err error) {
	if r := c.Replay; r != nil {
		_, found, err := w.replayed.number(r.Tenant[:], r.Tag[:])
		if err != nil {
			return nil, fmt.Errorf("look for replay entry: %w", err)
		}
		if found {
			return store.ErrReplayed, nil
		}
	}
	clear(w.seen)
	for i := range c.Writes {
		wr := &c.Writes[i]
		if wr.Remove {
			continue
		}
		if err := store.CheckFloor(wr, w.floor); err != nil {
			return err, nil
		}
		have, ok := w.seen[wr.ID]
		if !ok {
			if have, err = w.stored(&wr.ID); err != nil {
				return nil, fmt.Errorf("look for %s: %w", wr.ID, err)
			}
		}
		if have != wr.Expected {
			return fmt.Errorf("%w: %s has revision %d, want %d", store.ErrConflict, wr.ID, have, wr.Expected), nil
		}
		w.seen[wr.ID] = wr.Revision
	}
	return w.checkFacts(c.Facts)
}

// stored returns the revision of a record, 0 if there is none.
func (w *writer) stored(id *wire.RecordID) (uint64, error) {
	n, _, err := w.revision.number(id.Tenant[:], id.ID[:], int64(id.Type), int64(id.Version))
	return uint64(n), err
}

func (w *writer) put(wr *wire.Write) error {
	if wr.Remove {
		return w.take(wr)
	}
	put := &w.update
	if wr.Expected == 0 {
		put = &w.insert
	}
	hidden := int64(0)
	if wr.Hidden {
		hidden = 1
	}
	n, err := put.exec(wr.ID.Tenant[:], wr.ID.ID[:], int64(wr.ID.Type), int64(wr.ID.Version),
		int64(wr.Revision), int64(wr.Primary), hidden, wr.Due, wr.Sealed)
	if err != nil {
		return err
	}
	if n != 1 {
		return fmt.Errorf("%d rows changed, want 1", n)
	}
	if wr.Sweep {
		_, err = w.addSweep.exec(wr.ID.Tenant[:], int64(wr.Revision))
	}
	return err
}

// take deletes what a removal names.
func (w *writer) take(wr *wire.Write) (err error) {
	if store.RemovesAll(*wr) {
		_, err = w.removeAll.exec(wr.ID.Tenant[:], wr.ID.ID[:], int64(wr.ID.Type))
	} else {
		_, err = w.remove.exec(wr.ID.Tenant[:], wr.ID.ID[:], int64(wr.ID.Type), int64(wr.ID.Version))
	}
	return err
}

// EndSweep forgets a sweep that Sweeps has returned, unless a write has made
// another one due since. It is no error if none is due.
func (s *Store) EndSweep(ctx context.Context, sweep store.Sweep) error {
	return s.do(ctx, 0, func(w *writer) (refusal, err error) {
		_, err = w.endSweep.exec(sweep.Tenant[:], int64(sweep.Revision))
		return nil, err
	})
}

// PruneReplays drops the replay entries whose Until is below before, Unix
// milliseconds, in steps of which each is a transaction. It returns how many it
// has dropped, also beside an error.
func (s *Store) PruneReplays(ctx context.Context, before int64) (int, error) {
	for total := 0; ; {
		var n int64
		err := s.do(ctx, 0, func(w *writer) (refusal, err error) {
			n, err = w.expireReplays.exec(before, int64(pruneStep))
			return nil, err
		})
		if err != nil {
			return total, err
		}
		total += int(n)
		if n < pruneStep {
			return total, nil
		}
	}
}
