package core

import (
	"fmt"
	"runtime"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// maxWaiting is how many requests may wait for their turn to generate an RSA
// key; further ones are refused. A turn takes up to seconds.
const maxWaiting = 64

// generators make key material. RSA keys take tenths of a second to seconds of a
// processor each, so no more are made at once than leave a thread of Go code for all
// other requests.
type generators struct {
	generate func(primitive.Spec) (secret.Bytes, error)
	turns    chan struct{}
	inside   atomic.Int64 // requests that wait or generate
}

// newGenerators lets one RSA key less be made at once than Go code runs on threads, but
// at least one.
func newGenerators() *generators {
	n := max(1, runtime.GOMAXPROCS(0)-1)
	return &generators{generate: primitive.NewMaterial, turns: make(chan struct{}, n)}
}

// material makes the material of a new key. It returns a refusal if too many are
// waiting; any other error is one of the machine.
func (g *generators) material(spec primitive.Spec) (secret.Bytes, error) {
	if spec.RSA() {
		defer g.inside.Add(-1)
		if g.inside.Add(1) > int64(cap(g.turns)+maxWaiting) {
			return secret.Bytes{}, errTooMany()
		}
		g.turns <- struct{}{}
		defer func() { <-g.turns }()
	}
	m, err := g.generate(spec)
	if err != nil {
		return secret.Bytes{}, fmt.Errorf("generate %s: %w", spec, err)
	}
	return m, nil
}
