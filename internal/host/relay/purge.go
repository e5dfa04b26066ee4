package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// purgePage is how many records are looked up at once.
const purgePage = 500

// purgeDue has done what is due to secrets and keys: secrets are purged, keys
// destroyed or rotated. One to which it cannot be done does not keep others; it is
// offered again the next time.
func (r *Relay) purgeDue(ctx context.Context, st Sweeps) error {
	for {
		due, err := st.Due(ctx, time.Now().UnixMilli(), purgePage)
		if err != nil {
			return fmt.Errorf("list what is due: %w", err)
		}
		purged, failed := 0, error(nil)
		for _, id := range due {
			if ctx.Err() != nil {
				return nil
			}
			done, err := r.purge(ctx, id)
			if done {
				purged++
			} else if err != nil && failed == nil {
				failed = fmt.Errorf("purge %s of tenant %s: %w", id, id.Tenant, err)
			}
		}
		if purged > 0 {
			r.opts.Log.InfoContext(ctx, "did what was due to secrets and keys", "number", purged)
		}
		if purged == 0 || len(due) < purgePage {
			return failed
		}
	}
}

// purge has done what is due to one record. It is not done if there is nothing.
func (r *Relay) purge(ctx context.Context, id wire.RecordID) (done bool, err error) {
	for attempt := 1; ; attempt++ {
		ids := []wire.RecordID{id, {Type: wire.App, Tenant: id.Tenant, ID: id.Tenant}}
		rows, err := r.read(ctx, ids)
		if err != nil || rows[0].Revision == 0 {
			return false, err
		}
		s := &wire.Sweep{RequestID: "purge", Secret: sealedRef(&rows[0]), Floor: r.rotation.floor.Load()}
		if id.Type == wire.Key {
			s.App = sealedRef(&rows[1])
		}
		changed, again, err := r.sweepStep(ctx, s, attempt == maxAttempts)
		if err != nil || !again {
			return changed > 0, err
		}
		pause(attempt)
	}
}
