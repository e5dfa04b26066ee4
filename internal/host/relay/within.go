package relay

import (
	"context"
	"errors"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

var (
	// errBusy says that too many requests are at the store already, or wait for the
	// core's processors.
	errBusy = errors.New("too many requests wait")
	// errUnread marks that no core has seen the request, as its records could not
	// be read.
	errUnread = errors.New("records not read")
)

// cutOff is how long a request may wait for a store whose feed fails: it is
// probably not there, and the client can go to another node.
const cutOff = 2 * time.Second

// lookShare is the part of the time for a change that is kept for finding out
// what has become of it.
const lookShare = 4

// atStore returns the context for the exchange's calls of the store, which have
// StoreTimeout all together. Half of the requests that may be inside may be there;
// for more it is errBusy, so that a slow store leaves room for those that do not
// need it.
func (x *exchange) atStore(ctx context.Context) (context.Context, error) {
	if x.storing != nil {
		return x.storing, nil
	}
	r := x.relay
	if r.atStore.Add(1) > max(int64(r.opts.Concurrent)/2, 1) {
		r.atStore.Add(-1)
		return nil, errBusy
	}
	limit := r.opts.StoreTimeout
	if r.follower.failing.Load() {
		limit = min(limit, max(cutOff, r.follower.grace))
	}
	x.storing, x.leaveStore = context.WithTimeout(ctx, limit)
	return x.storing, nil
}

// outOfStore gives back the place of atStore, if the exchange has one, and its time.
func (x *exchange) outOfStore() {
	if x.storing == nil {
		return
	}
	x.leaveStore()
	x.storing = nil
	x.relay.atStore.Add(-1)
}

// abandon gives up the writes of a pending answer before they were tried.
func (r *Relay) abandon(ctx context.Context, a *wire.Answer) (*wire.Answer, error) {
	end, err := r.core.Resolve(ctx, wire.Resolve{Handle: a.Handle, Outcome: wire.Failed})
	if err != nil {
		return nil, errors.Join(err, r.record(ctx, &a.Audit))
	}
	return nil, errors.Join(errBusy, r.record(ctx, &a.Audit), r.record(ctx, &end.Audit))
}

// refuse is the reply to a request that has none of a core.
func refuse(action string, err error) (Reply, error) {
	switch {
	case errors.Is(err, errBusy):
		return Busy(), nil
	case errors.Is(err, errUnread) && !mayLag(action):
		return noDatabase(), err
	}
	return Internal(), err
}

// mayLag reports whether an action may go by what other nodes have changed within
// the grace. All others read what is in the store now: nothing that a client
// changes is changed on the ground of an earlier state, and ListKey reads in any
// case.
func mayLag(action string) bool {
	switch action {
	case api.Encrypt, api.Decrypt, api.AsymmetricEncrypt, api.AsymmetricDecrypt, api.Sign, api.Verify,
		api.GenerateDataKey, api.GenerateDataKeyWithoutPlaintext, api.ExportDataKey, api.GetPublicKey,
		api.GetSecretValue, api.DescribeSecret, api.ListSecrets, api.ListSecretVersionIds, api.ListKey,
		api.GenerateQuote, api.VerifyQuote, api.GetQuotePolicy:
		return true
	}
	return false
}
