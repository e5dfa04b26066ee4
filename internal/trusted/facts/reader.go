package facts

import (
	"cmp"
	"slices"
	"sync"
)

// A Reader is what a core says and hears about the log, from before it has its keys,
// and so a Log, on. It is safe for concurrent use.
type Reader struct {
	mu    sync.Mutex
	told  []Head // the highest that it was told
	log   *Log   // nil: there is none yet
	never chan struct{}
}

// NewReader returns a Reader that was told nothing.
func NewReader() *Reader { return &Reader{never: make(chan struct{})} }

// Attach has l be told all that the Reader was told, and will be, until another is
// attached.
func (r *Reader) Attach(l *Log) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.log = l
	for _, h := range r.told {
		l.Hear(Statement{Head: h}) // an error stays with the log
	}
}

// Hear takes the statement of the dkeycache. All of it binds.
func (r *Reader) Hear(s Statement, _ bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, h := range append([]Head{s.Head}, s.Ask...) {
		if h.Count > 0 && !slices.Contains(r.told, h) {
			r.told = append(r.told, h)
		}
	}
	slices.SortFunc(r.told, func(a, b Head) int { return cmp.Compare(a.Count, b.Count) })
	r.told = r.told[max(0, len(r.told)-maxTargets):]
	if r.log == nil {
		return nil
	}
	return r.log.Hear(s)
}

// Say is what the core says: how far its log goes.
func (r *Reader) Say(Statement) Statement {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.log == nil {
		return Statement{}
	}
	s, _ := r.log.Say()
	return s
}

// Changed returns a channel that is closed when there is something new to say.
func (r *Reader) Changed() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.log == nil {
		return r.never
	}
	_, grown := r.log.Say()
	return grown
}
