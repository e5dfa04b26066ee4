package fair

import (
	"sync/atomic"
	"time"
)

// A Gate is Turns of goroutines that wait.
type Gate[K comparable] struct{ turns *Turns[K, chan struct{}] }

// New returns a gate with all places free.
func New[K comparable](l Limits) *Gate[K] {
	return &Gate[K]{turns: NewTurns[K, chan struct{}](l)}
}

// Enter takes a place, and waits for one if need be. It reports false, at once, if as
// many wait as may. Each place must be given back by Leave.
func (g *Gate[K]) Enter(key K) bool {
	turn, ok := g.Ask(key)
	if turn != nil {
		<-turn
	}
	return ok
}

// Ask is Enter without the waiting: where there is no place yet, turn is closed when
// there is one, which is then taken. It reports false if there will be none.
func (g *Gate[K]) Ask(key K) (turn <-chan struct{}, ok bool) {
	place, _, ok := g.turns.Ask(key, newPlace)
	return place, ok
}

func newPlace() chan struct{} { return make(chan struct{}) }

// Leave gives a place back.
func (g *Gate[K]) Leave(key K) {
	if _, place, more := g.turns.Leave(key); more {
		close(place)
	}
}

// Stats returns the state at this moment.
func (g *Gate[K]) Stats() Stats { return g.turns.Stats() }

const (
	breathEvery = time.Millisecond
	breathTime  = 20 * time.Microsecond
)

// A Breather lets in what the network has brought. While as many goroutines compute as
// Go has processors, each after the other, Go looks for that every 10 ms only. It looks
// at once where a processor has nothing to do, if only for a moment. The zero value is
// fit for use.
type Breather struct{ last atomic.Int64 } // Unix nanoseconds

// Breathe does nothing for a moment, if the last one is a millisecond ago. It is for
// goroutines that have computed for long, or may have, and that others wait for.
func (b *Breather) Breathe() {
	now, last := time.Now().UnixNano(), b.last.Load()
	if now-last >= int64(breathEvery) && b.last.CompareAndSwap(last, now) {
		time.Sleep(breathTime)
	}
}
