// Package collateral fetches and keeps what Intel states about SGX platforms:
// TCB info, QE identity and revocation lists, from Intel's Provisioning
// Certification Service (PCS), from an operator's caching service (PCCS), or from
// an offline file.
//
// It is host code and nothing rests on it: all of collateral is signed, and
// package verify judges it inside the TEE. The host can withhold collateral or
// serve old ones; what stops the latter is in docs/threat-model.md#rollback.
// Sources: Intel's PCS API v4, and Intel's design guide for the PCCS.
package collateral

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"math/big"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// Errors of sources and of the Fetcher.
var (
	// ErrUnknownPlatform says that the source has been asked and knows no such FMSPC.
	ErrUnknownPlatform = errors.New("no collateral is known for this kind of platform")
	// ErrAnswer says that what was served is not the collateral that was asked for.
	ErrAnswer = errors.New("not the collateral that was asked for")
	// ErrQuery says that no platform can be meant.
	ErrQuery = errors.New("not a kind of platform")
)

// A Query names the collateral of one kind of platform; see verify.QueryOf.
type Query = verify.Query

// A Source is where collateral comes from.
type Source interface {
	// Fetch returns collateral for q that parses and is for q. Errors wrap
	// ErrUnknownPlatform or ErrAnswer where that is the cause, and may wrap a
	// *StatusError.
	Fetch(ctx context.Context, q Query) (verify.Collateral, error)
}

// A SourceFunc is a function as a Source, for simulated platforms.
type SourceFunc func(ctx context.Context, q Query) (verify.Collateral, error)

// Fetch implements Source.
func (f SourceFunc) Fetch(ctx context.Context, q Query) (verify.Collateral, error) { return f(ctx, q) }

// Format names a query in logs and file names, such as 00606a000000-platform.
func Format(q Query) string { return hex.EncodeToString(q.FMSPC[:]) + "-" + q.CA }

func checkQuery(q Query) error {
	if q.CA != verify.CAProcessor && q.CA != verify.CAPlatform {
		return fmt.Errorf("%w: CA %q", ErrQuery, q.CA[:min(len(q.CA), 32)])
	}
	return nil
}

// contentsFor reads collateral and checks that it is for q.
func contentsFor(c *verify.Collateral, q Query) (verify.Contents, error) {
	contents, err := c.Contents()
	switch {
	case err != nil:
		return contents, fmt.Errorf("%w: %w", ErrAnswer, err)
	case contents.Query != q:
		return contents, fmt.Errorf("%w: it is for %s, want %s", ErrAnswer, Format(contents.Query), Format(q))
	}
	return contents, nil
}

// maxAhead is how far clocks may differ: what is dated later in the future is
// refused, as it could not be displaced by what Intel issues until then.
const maxAhead = 24 * time.Hour

// notAhead refuses collateral from the future.
func notAhead(c *verify.Contents, now time.Time) error {
	for _, e := range []verify.Edition{c.TCBInfo, c.QEIdentity, c.RootCRL, c.PCKCRL} {
		if e.Issued.After(now.Add(maxAhead)) {
			return fmt.Errorf("%w: it is dated %s, and this machine's clock says %s", ErrAnswer, e.Issued.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
		}
	}
	return nil
}

// newest takes each part from fresh, unless that of held is newer and still in
// force. It names the parts that were kept from held.
func newest(held, fresh *holding, now time.Time) (c verify.Collateral, kept []string) {
	c = fresh.collateral
	old, was, is := &held.collateral, &held.contents, &fresh.contents
	keep := func(name string, was, is verify.Edition, take func()) {
		if older(is, was) && now.Before(was.Next) {
			take()
			kept = append(kept, name)
		}
	}
	keep("TCB info", was.TCBInfo, is.TCBInfo, func() {
		c.TCBInfoIssuerChain, c.TCBInfo, c.TCBInfoSignature = old.TCBInfoIssuerChain, old.TCBInfo, old.TCBInfoSignature
	})
	keep("QE identity", was.QEIdentity, is.QEIdentity, func() {
		c.QEIdentityIssuerChain, c.QEIdentity, c.QEIdentitySignature = old.QEIdentityIssuerChain, old.QEIdentity, old.QEIdentitySignature
	})
	keep("root CRL", was.RootCRL, is.RootCRL, func() { c.RootCRL = old.RootCRL })
	keep("PCK CRL", was.PCKCRL, is.PCKCRL, func() { c.PCKCRLIssuerChain, c.PCKCRL = old.PCKCRLIssuerChain, old.PCKCRL })
	return c, kept
}

// older reports that Intel published a before b.
func older(a, b verify.Edition) bool {
	if a.Evaluation != b.Evaluation {
		return a.Evaluation < b.Evaluation
	}
	if n := number(a).Cmp(number(b)); n != 0 {
		return n < 0
	}
	return a.Issued.Before(b.Issued)
}

// number is that of a CRL, and zero for documents.
func number(e verify.Edition) *big.Int {
	if e.Number == nil {
		return new(big.Int)
	}
	return e.Number
}
