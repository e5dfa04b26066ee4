package bench

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// FillOptions say how much to put into a service.
type FillOptions struct {
	Service ehsm.Config // without credentials
	Tenants int         // to enroll
	Keys    int         // to create, shared out evenly
	Conns   int         // tenants at work at a time, each on a connection of its own
	// Progress is told now and then how many keys there are.
	Progress func(keys int)
}

// A FillReport says what was put there.
type FillReport struct {
	Tenants int     `json:"tenants"`
	Keys    int     `json:"keys"`
	Seconds float64 `json:"seconds"`
	Rate    float64 `json:"keysPerSecond"`
}

// Fill enrolls tenants and has them create AES keys. The credentials are thrown
// away: what it makes can only be in the way, which is what it is for. It stops
// at the first error.
func Fill(ctx context.Context, o FillOptions) (FillReport, error) {
	if o.Tenants < 1 || o.Keys < o.Tenants || o.Conns < 1 {
		return FillReport{}, fmt.Errorf("%w: want at least one tenant, a key for each, and one connection", ErrOptions)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var tenants, keys atomic.Int64
	var wg sync.WaitGroup
	began := time.Now()
	for range min(o.Conns, o.Tenants) {
		wg.Go(func() {
			for {
				n := int(tenants.Add(1)) - 1
				if n >= o.Tenants || ctx.Err() != nil {
					return
				}
				// The first o.Keys % o.Tenants have one more than the others.
				share := o.Keys / o.Tenants
				if n < o.Keys%o.Tenants {
					share++
				}
				if err := fillTenant(ctx, o, share, &keys); err != nil {
					cancel(fmt.Errorf("tenant %d: %w", n+1, err))
					return
				}
			}
		})
	}
	wg.Wait()
	r := FillReport{Tenants: min(int(tenants.Load()), o.Tenants), Keys: int(keys.Load()), Seconds: time.Since(began).Seconds()}
	r.Rate = float64(r.Keys) / r.Seconds
	return r, context.Cause(ctx)
}

// fillTenant enrolls one tenant and creates its keys.
func fillTenant(ctx context.Context, o FillOptions, share int, keys *atomic.Int64) error {
	stranger, err := ehsm.New(o.Service)
	if err != nil {
		return err
	}
	defer stranger.Close()
	cred, err := stranger.Enroll(ctx)
	if err != nil {
		return err
	}
	cfg := o.Service
	cfg.AppID, cfg.APIKey = cred.AppID, cred.APIKey
	client, err := ehsm.New(cfg)
	if err != nil {
		return err
	}
	defer client.Close()
	for range share {
		for {
			_, err := client.CreateKey(ctx, api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
			if err == nil {
				break
			}
			if !ehsm.IsOverloaded(err) {
				return err
			}
			select { // the service asks for patience
			case <-ctx.Done():
				return errors.Join(err, ctx.Err())
			case <-time.After(50 * time.Millisecond):
			}
		}
		n := keys.Add(1)
		if o.Progress != nil {
			o.Progress(int(n))
		}
	}
	return nil
}
