//go:build !tsm

package channel_test

import (
	"context"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// prover is an attester by a function.
type prover func([64]byte) (attest.Evidence, error)

func (f prover) Evidence(_ context.Context, d [64]byte) (attest.Evidence, error) { return f(d) }

// TestGuestsNeedTheirVerifier has evidence of each kind of guest come to a program
// that was built without their verifiers.
func TestGuestsNeedTheirVerifier(t *testing.T) {
	w := newWorld(t)
	for _, kind := range []attest.Kind{attest.TDXQuote4, attest.TDXQuote5, attest.SNPReport} {
		cc, _ := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
		sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
		cc.Attester = prover(func([64]byte) (attest.Evidence, error) {
			return attest.Evidence{Kind: kind, Quote: []byte("quote")}, nil
		})
		c, s := handshake(t.Context(), cc, sc)
		if c.err == nil || !errors.Is(s.err, attest.ErrNoVerifier) || !errors.Is(s.err, channel.ErrEvidence) {
			t.Errorf("%v: got %v, the guest %v", kind, s.err, c.err)
		}
	}
}
