package collateral

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// Errors of Own, for those who ask a node for its collateral.
var (
	// ErrNoEvidence says that the platform makes no SGX quotes. What makes the
	// quote for Own returns it, wrapped or not.
	ErrNoEvidence = errors.New("the platform of this service makes no SGX quotes")
	// ErrNoSource says that the operator has named no source.
	ErrNoSource = errors.New("no source of collateral is configured for this service")
	// ErrNotYet says that the collateral is still being fetched, or could not be.
	ErrNotYet = errors.New("the collateral of this service has not been fetched yet")
)

// When Own looks at the platform's evidence.
const (
	ownFirstRetry = 2 * time.Second // after a failure, doubled each time
	ownLastRetry  = 10 * time.Minute
	ownInterval   = 24 * time.Hour // after a success, as a platform may get another PCK CA
	quoteTimeout  = 30 * time.Second
)

// Own is the collateral for the quotes of this node's own platform, for clients
// that have no way to Intel. It is safe for concurrent use.
type Own struct {
	fetcher *Fetcher // nil: no source
	quote   func(context.Context) ([]byte, error)
	log     *slog.Logger

	mu    sync.Mutex
	query Query // what the platform needs, if err is nil
	err   error
	last  *holding // that body was made of
	body  []byte
}

// NewOwn returns the collateral that f has for the platform that makes quotes
// with the function. f is nil where no source is configured.
func NewOwn(f *Fetcher, quote func(context.Context) ([]byte, error), log *slog.Logger) *Own {
	o := &Own{fetcher: f, quote: quote, log: log, err: ErrNotYet}
	if f == nil {
		o.err = ErrNoSource
	}
	return o
}

// Run finds out what the platform needs, and fetches it, until ctx ends.
func (o *Own) Run(ctx context.Context) {
	if o.fetcher == nil {
		return
	}
	for retry := ownFirstRetry; ; {
		wait := ownInterval
		if err := o.look(ctx); err != nil && !errors.Is(err, ErrNoEvidence) {
			wait, retry = retry, min(2*retry, ownLastRetry)
		} else {
			retry = ownFirstRetry
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
	}
}

// look asks the platform for a quote, and the fetcher for what verifies it.
func (o *Own) look(ctx context.Context) error {
	q, err := o.ask(ctx)
	changed := o.note(q, err)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, ErrNoEvidence):
		if changed {
			o.log.Info("this platform makes no SGX quotes: clients are offered no collateral")
		}
		return err
	case err != nil:
		o.log.Warn("the platform's quote could not be read: clients are offered no collateral", "err", err)
		return err
	}
	o.fetcher.Pin(q)
	if _, err = o.fetcher.Collateral(ctx, q); err != nil {
		o.log.Warn("the collateral of this platform could not be fetched", "platform", Format(q), "err", err)
	}
	return err
}

func (o *Own) ask(ctx context.Context) (Query, error) {
	ctx, cancel := context.WithTimeout(ctx, quoteTimeout)
	defer cancel()
	quote, err := o.quote(ctx)
	if err != nil {
		return Query{}, err
	}
	return verify.QueryOf(quote)
}

// note keeps what was learned. A failure does not displace a success: the core
// may be restarting.
func (o *Own) note(q Query, err error) (changed bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	known := o.err == nil
	switch {
	case err == nil:
		changed, o.query, o.err = !known || o.query != q, q, nil
	case errors.Is(err, ErrNoEvidence):
		changed, o.err = !errors.Is(o.err, ErrNoEvidence), ErrNoEvidence
	}
	return changed
}

// JSON returns the collateral as verify.DecodeCollateralJSON reads it, and until
// when all of it is in force. The caller must not write to it. Errors wrap
// ErrNoEvidence, ErrNoSource or ErrNotYet, and their text is for everybody.
func (o *Own) JSON(ctx context.Context) (body []byte, expires time.Time, err error) {
	o.mu.Lock()
	q, err := o.query, o.err
	o.mu.Unlock()
	if err != nil {
		return nil, expires, err
	}
	h, err := o.fetcher.hold(ctx, q)
	if err != nil {
		return nil, expires, ErrNotYet // the cause is in the log
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.last != h {
		if body, err = h.collateral.EncodeJSON(); err != nil {
			return nil, expires, fmt.Errorf("%w: %w", ErrNotYet, err)
		}
		o.last, o.body = h, body
	}
	return o.body, h.contents.Expires(), nil
}
