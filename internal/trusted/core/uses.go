package core

import (
	"sync"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

const minuteMillis = 60_000

// useTimes remembers when credentials were last used at this core, to the minute. It
// outlives the opened records. It is for owners who tidy up, so that a full table
// forgets any of its entries; a credential then looks unused.
type useTimes struct {
	limit int

	mu    sync.Mutex
	times map[credentialID]int64
}

type credentialID struct{ tenant, id wire.UUID }

func newUses(limit int) *useTimes {
	return &useTimes{limit: limit, times: make(map[credentialID]int64)}
}

// last returns when a credential was used, in Unix milliseconds, 0 if it was not.
func (u *useTimes) last(tenant, id wire.UUID) int64 {
	u.mu.Lock()
	defer u.mu.Unlock()
	return u.times[credentialID{tenant, id}]
}

// note takes note of a use of an opened credential. Most find their minute noted
// already, and take no lock.
func (u *useTimes) note(tenant wire.UUID, c *openCredential, now int64) {
	minute := now - now%minuteMillis
	if c.noted.Load() == minute {
		return
	}
	c.noted.Store(minute)
	id := credentialID{tenant, c.ID}
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, known := u.times[id]; !known && len(u.times) >= u.limit {
		for other := range u.times {
			delete(u.times, other)
			break
		}
	}
	u.times[id] = minute
}
