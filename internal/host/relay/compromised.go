package relay

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Exposed is something that is in use and was made under a version of the DomainKey
// that has leaked, or an earlier one: its owner is to replace it. Nothing of it is
// secret.
type Exposed struct {
	Kind   string // "key", "secret" or "API key"
	Tenant wire.UUID
	// ID of the key; of a secret, that of its values, as its name is encrypted; of an
	// API key, that of the credential.
	ID   wire.UUID
	Made uint32 // version of the DomainKey that this state of the record was made under
}

// Kinds of what is exposed.
const (
	exposedKey    = "key"
	exposedSecret = "secret"
	exposedAPIKey = "API key"
)

// Periods of counting what is exposed. Between, a request for the list counts too.
const (
	leftPeriod = time.Hour      // while something is left
	nonePeriod = 24 * time.Hour // while nothing is: rows of a backup may have been put back
)

// ErrNoLeak says that no version of the DomainKey is marked as compromised.
var ErrNoLeak = errors.New("no version of the DomainKey is marked as compromised")

// Exposed has each tells what is to be replaced after a leak, in the order of
// tenants, and notes the numbers for all operators. Errors: ErrNoLeak, that of each.
func (r *Relay) Exposed(ctx context.Context, each func(Exposed) error) error {
	st, ok := r.store.(Rotator)
	if !ok {
		return errors.New("the store has no versions of the DomainKey")
	}
	info, err := r.core.Info(ctx)
	switch {
	case err != nil:
		return fmt.Errorf("ask core for its DomainKey version: %w", err)
	case info.Compromised == 0:
		return ErrNoLeak
	}
	for n := range store.Slices {
		if err := r.countSlice(ctx, st, n, info.Compromised, each); err != nil {
			return fmt.Errorf("slice %x: %w", n, err)
		}
	}
	at, err := st.Rotation(ctx)
	if err != nil {
		return err
	}
	r.rotation.note(&at)
	return r.tell(ctx)
}

// count counts what is exposed in the slices for which it is time. Each is a
// node's alone.
func (r *Relay) count(ctx context.Context, st Rotator, compromised uint32, at *store.Rotation) (err error) {
	counted := false
	for n := range store.Slices {
		if !dueCount(at.Slices[n].Left, compromised) || ctx.Err() != nil {
			continue
		}
		counted = true
		_, e := alone(ctx, st, fmt.Sprintf("rewrap %x", n), func(ctx context.Context) error {
			now, err := st.Rotation(ctx) // another node may have done it meanwhile
			if err != nil || !dueCount(now.Slices[n].Left, compromised) {
				return err
			}
			return r.countSlice(ctx, st, n, compromised, func(Exposed) error { return nil })
		})
		if e != nil {
			err = errors.Join(err, fmt.Errorf("slice %x: %w", n, e))
		}
	}
	if !counted {
		return err
	}
	now, e := st.Rotation(ctx)
	if e != nil {
		return errors.Join(err, e)
	}
	r.rotation.note(&now)
	return errors.Join(err, r.tell(ctx))
}

// dueCount reports whether a slice is to be counted again.
func dueCount(l store.Left, compromised uint32) bool {
	period := nonePeriod
	if l.Any() {
		period = leftPeriod
	}
	return l.Compromised != compromised || time.Since(time.UnixMilli(l.Counted)).Abs() >= period
}

// countSlice looks at all records of a slice and notes the numbers.
func (r *Relay) countSlice(ctx context.Context, st Rotator, slice int, compromised uint32, each func(Exposed) error) error {
	since, err := st.FloorSince(ctx, compromised)
	if err != nil {
		return err
	}
	began := time.Now()
	c := counting{compromised: compromised, since: since, now: began.UnixMilli(), each: each}
	for after := (wire.RecordID{}); ; {
		from := time.Now()
		rows, err := st.Scan(ctx, slice, after, wire.RewrapStep)
		if err != nil {
			return err
		}
		for i := range rows {
			if err := c.look(&rows[i]); err != nil {
				return err
			}
		}
		if len(rows) == 0 {
			break
		}
		after = rows[len(rows)-1].ID
		if !r.yield(ctx, time.Since(from)) {
			return ctx.Err()
		}
	}
	if err := c.flush(); err != nil {
		return err
	}
	c.left.Compromised, c.left.Counted = compromised, began.UnixMilli()
	return st.ReportLeft(ctx, slice, c.left)
}

// A counting goes through the records of a slice in their order: a key comes before
// its versions, and the values of a secret come one after the other.
type counting struct {
	compromised uint32
	// since is when the store began to take no record under that version, Unix
	// milliseconds; 0: it does.
	since int64
	now   int64 // Unix milliseconds
	each  func(Exposed) error

	left   store.Left
	tenant wire.UUID // the last one that has something
	any    bool      // there is one
	key    store.Row // the last key
	value  store.Row // the last value of a secret; a later one takes its place
}

// look takes the next record.
func (c *counting) look(row *store.Row) error {
	if id := c.value.ID; id != (wire.RecordID{}) && (row.ID.Type != wire.SecretVersion || row.ID.ID != id.ID || row.ID.Tenant != id.Tenant) {
		if err := c.flush(); err != nil {
			return err
		}
	}
	_, made := wire.SealedVersions(row.Sealed)
	switch row.ID.Type {
	case wire.App:
		return c.app(row, made)
	case wire.Key:
		c.key = store.Row{ID: row.ID, Primary: row.Primary, Hidden: row.Hidden}
	case wire.KeyVersion:
		k := &c.key
		// A key that its owner cannot name is deleted, or one of secrets, which
		// protects only what the DomainKey protects too.
		if k.ID.Tenant != row.ID.Tenant || k.ID.ID != row.ID.ID || k.Hidden || k.Primary != row.ID.Version || made > c.compromised {
			return nil
		}
		c.left.Keys++
		return c.found(Exposed{Kind: exposedKey, Tenant: row.ID.Tenant, ID: row.ID.ID, Made: made})
	case wire.SecretVersion:
		c.value = *row
	}
	return nil
}

// flush counts the newest value of the secret that is behind.
func (c *counting) flush() error {
	v := c.value
	c.value = store.Row{}
	_, made := wire.SealedVersions(v.Sealed)
	if v.ID == (wire.RecordID{}) || made > c.compromised {
		return nil
	}
	c.left.Secrets++
	return c.found(Exposed{Kind: exposedSecret, Tenant: v.ID.Tenant, ID: v.ID.ID, Made: made})
}

// app counts API keys. They share a record with attributes that change, so where
// its state was made later their own dates count.
func (c *counting) app(row *store.Row, made uint32) error {
	until := c.since
	if made <= c.compromised {
		until = math.MaxInt64
	}
	for _, k := range wire.SealedAPIKeys(row.Sealed) {
		if k.Created > until || k.Expires != 0 && k.Expires <= c.now {
			continue
		}
		c.left.APIKeys++
		if err := c.found(Exposed{Kind: exposedAPIKey, Tenant: row.ID.Tenant, ID: k.ID, Made: made}); err != nil {
			return err
		}
	}
	return nil
}

func (c *counting) found(e Exposed) error {
	if !c.any || c.tenant != e.Tenant {
		c.left.Tenants, c.tenant, c.any = c.left.Tenants+1, e.Tenant, true
	}
	return c.each(e)
}
