package provision

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A Holder has the DomainKey for as long as its program may have it. It is safe
// for concurrent use; the zero value holds nothing and never will.
type Holder struct {
	home func() (*secret.Home, error)

	using sync.RWMutex // held while keys are in use

	mu      sync.Mutex
	held    *domainkey.Keyring
	memory  *secret.Home
	lost    chan struct{} // closed when held must no longer be used
	why     error         // it was lost
	until   time.Time     // end of the lease; zero: none
	lease   *time.Timer
	changed chan struct{} // closed when there are keys
}

// NewHolder returns a Holder whose keys lie in what home returns, which is called
// for each DomainKey and is the Holder's.
func NewHolder(home func() (*secret.Home, error)) *Holder {
	return &Holder{home: home, changed: make(chan struct{})}
}

// Fill opens keys into a Home of their own. What is held already they must continue;
// then it takes over the versions that it lacks, and those who use it go on with
// them: the keys that Wait returned are the same. Errors: ErrForeignKeys, ErrNoKeys
// while lost keys are still in use, and those of open.
func (h *Holder) Fill(open func(*secret.Home) (*domainkey.Keyring, error)) error {
	home, err := h.home()
	if err != nil {
		return err
	}
	k, err := open(home)
	if err != nil {
		home.Close()
		return err
	}
	stays, err := h.put(k, home)
	if err != nil || !stays {
		return errors.Join(err, home.Close())
	}
	return nil
}

// put has k held, in home, which stays open, or the versions of it that are new.
func (h *Holder) put(k *domainkey.Keyring, home *secret.Home) (stays bool, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.held != nil && h.why != nil: // check: lost-in-use
		return false, fmt.Errorf("%w: those that were lost are still in use", ErrNoKeys)
	case h.held != nil && !k.Extends(h.held): // check: keys-extend
		return false, ErrForeignKeys
	case h.held != nil:
		return false, h.held.Adopt(k)
	}
	h.lost, h.why = make(chan struct{}), nil
	close(h.changed)
	h.changed = make(chan struct{})
	h.held, h.memory = k, home
	return true, nil
}

// Settle forgets what a manifest says is forgotten, and reports whether there was
// anything. It is for programs that wrap nothing themselves: a core, which goes on
// with the version before for a while, does it by itself.
func (h *Holder) Settle(s *manifest.Settings) (forgot bool) {
	h.Use(func(k *domainkey.Keyring) error { // without keys there is nothing to forget
		if version := s.DomainKeyVersion(); version > k.Current() && k.Advance(version) != nil {
			return nil // it is still to be fetched
		}
		forgot = k.Settle(s)
		return nil
	})
	return forgot
}

// Use calls f with the keys, which f must not keep. Errors: ErrNoKeys, with why
// they were lost, and those of f.
func (h *Holder) Use(f func(*domainkey.Keyring) error) error {
	h.using.RLock()
	defer h.using.RUnlock()
	k, why := h.current()
	switch {
	case k == nil && why != nil:
		return fmt.Errorf("%w: %w", ErrNoKeys, why)
	case k == nil:
		return ErrNoKeys
	}
	return f(k)
}

// current returns the keys, nil if they are lost.
func (h *Holder) current() (*domainkey.Keyring, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.why != nil {
		return nil, h.why
	}
	return h.held, nil
}

// version is the newest one held; 0: none.
func (h *Holder) version() uint32 {
	if k, _ := h.current(); k != nil {
		return k.Newest()
	}
	return 0
}

// Extend has the keys lost in d from now, with ErrLease, unless it is called again.
func (h *Holder) Extend(d time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.until = time.Now().Add(d) // by the monotonic clock: nobody's setting of dates counts
	if h.lease != nil {
		h.lease.Stop()
	}
	h.lease = time.AfterFunc(d, func() {
		h.mu.Lock()
		over := !time.Now().Before(h.until)
		h.mu.Unlock()
		if over {
			h.Lose(ErrLease)
		}
	})
}

// left is for how long the keys may still be had; without a lease: most.
func (h *Holder) left(most time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until.IsZero() {
		return most
	}
	return max(0, min(most, time.Until(h.until)))
}

// Lose says that the keys must no longer be used, and why: ErrRemoved or ErrLease,
// say. They are zeroed by Release, which whoever uses them calls.
func (h *Holder) Lose(why error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == nil || h.why != nil {
		return
	}
	h.why = why
	close(h.lost)
}

// Wait returns when there are keys: the keys, and what is closed when they are
// lost. The caller stops using them then, and calls Release.
func (h *Holder) Wait(ctx context.Context) (*domainkey.Keyring, <-chan struct{}, error) {
	for {
		h.mu.Lock()
		k, lost, why, changed := h.held, h.lost, h.why, h.changed
		h.mu.Unlock()
		if k != nil && why == nil {
			return k, lost, nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, nil, context.Cause(ctx)
		}
	}
}

// Release zeroes the keys and returns why they were lost, nil if they were not.
func (h *Holder) Release() error {
	h.using.Lock()
	defer h.using.Unlock()
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.held == nil {
		return h.why
	}
	if h.lease != nil {
		h.lease.Stop()
	}
	why := h.why
	err := h.memory.Close()
	h.held, h.memory, h.until = nil, nil, time.Time{}
	return errors.Join(why, err)
}

// Forget releases the keys whenever they are lost, until ctx ends; then it releases
// them too. told is called with each reason. It is for programs that use keys by
// Use only.
func (h *Holder) Forget(ctx context.Context, told func(error)) {
	defer h.Release()
	for {
		_, lost, err := h.Wait(ctx)
		if err != nil {
			return
		}
		select {
		case <-lost:
			told(h.Release())
		case <-ctx.Done():
			return
		}
	}
}
