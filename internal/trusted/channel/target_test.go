package channel

import (
	"context"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest"
)

// anyQuote makes evidence without looking at what it is for.
type anyQuote struct{}

func (anyQuote) Evidence(context.Context, [64]byte) (attest.Evidence, error) {
	return attest.Evidence{Kind: attest.SGXQuote3, Quote: []byte{1}}, nil
}

// TestTargetOfAQuote asks for a quote for one peer, which there is not.
func TestTargetOfAQuote(t *testing.T) {
	q := quotes{&Config{Attester: anyQuote{}}}
	if _, err := q.Prove(t.Context(), []byte{1}, [64]byte{}); !errors.Is(err, ErrProtocol) {
		t.Errorf("got %v, want ErrProtocol", err)
	}
	if _, err := q.Prove(t.Context(), nil, [64]byte{}); err != nil {
		t.Error(err)
	}
}
