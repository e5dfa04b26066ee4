package provision

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

func use(h *Holder) error { return h.Use(func(*domainkey.Keyring) error { return nil }) }

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// TestLease has keys for as long as somebody extends the lease, whatever the host
// makes of its clock.
func TestLease(t *testing.T) {
	a := newRealm(t)
	unseal := func(home *secret.Home) (*domainkey.Keyring, error) {
		return domainkey.Unseal(a.dir, load(t, 0, channel.DKeyServer, signerSeed), home, a.last)
	}
	synctest.Test(t, func(t *testing.T) {
		h := NewHolder(heap)
		if err := h.Fill(unseal); err != nil {
			t.Fatal(err)
		}
		if left := h.left(time.Hour); left != time.Hour {
			t.Errorf("without a lease: got %v", left)
		}
		_, lost, err := h.Wait(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			h.Extend(time.Hour)
			time.Sleep(59 * time.Minute) // of synctest
			if isClosed(lost) || use(h) != nil || h.left(time.Hour) != time.Minute {
				t.Fatalf("lost with %v left", h.left(time.Hour))
			}
		}
		time.Sleep(2 * time.Minute)
		synctest.Wait()
		if err := use(h); !isClosed(lost) || !errors.Is(err, ErrLease) || !errors.Is(err, ErrNoKeys) {
			t.Errorf("after the lease: got %v", err)
		}
		if err := h.Fill(unseal); !errors.Is(err, ErrNoKeys) {
			t.Errorf("filled before they are released: got %v", err)
		}
		if err := h.Release(); !errors.Is(err, ErrLease) {
			t.Errorf("Release: got %v", err)
		}
		if err := h.Fill(unseal); err != nil || use(h) != nil || h.version() != 1 {
			t.Errorf("filled again: got %v", err)
		}
		h.Extend(time.Hour)
		h.Release()
		time.Sleep(2 * time.Hour) // its timer has ended, too
	})
}

func TestLosing(t *testing.T) {
	a := newRealm(t)
	h := a.rooted(t)
	why := errors.New("why")
	h.Lose(why)
	h.Lose(errors.New("later"))
	if err := use(h); !errors.Is(err, why) || h.version() != 0 {
		t.Errorf("got %v", err)
	}
	if err := h.Release(); !errors.Is(err, why) {
		t.Errorf("Release: got %v", err)
	}
	if err := use(h); !errors.Is(err, why) {
		t.Errorf("after Release: got %v", err)
	}
	empty := NewHolder(heap)
	empty.Lose(why)
	if err := use(empty); !errors.Is(err, ErrNoKeys) || errors.Is(err, why) {
		t.Errorf("nothing to lose: got %v", err)
	}
	if err := empty.Release(); err != nil {
		t.Error(err)
	}
	if err := empty.Fill(func(*secret.Home) (*domainkey.Keyring, error) { return nil, why }); !errors.Is(err, why) {
		t.Errorf("keys that do not open: got %v", err)
	}
	if err := NewHolder(func() (*secret.Home, error) { return nil, secret.ErrMemory }).Fill(nil); !errors.Is(err, secret.ErrMemory) {
		t.Errorf("no memory: got %v", err)
	}
}

// TestKeysAreInUse has Release wait for those who use the keys, which it zeroes.
func TestKeysAreInUse(t *testing.T) {
	a := newRealm(t)
	h := a.rooted(t)
	var users sync.WaitGroup
	for range 8 {
		users.Go(func() {
			for {
				err := h.Use(func(k *domainkey.Keyring) error {
					exported := k.Export()
					defer exported.Zero()
					if exported.Len() != 68 {
						t.Errorf("got %d bytes", exported.Len())
					}
					return nil
				})
				if err != nil {
					return
				}
			}
		})
	}
	h.Lose(ErrRemoved)
	h.Release()
	users.Wait()
}
