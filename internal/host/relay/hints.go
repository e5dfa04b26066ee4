package relay

import (
	"slices"
	"sync"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// maxHints is how many records are remembered for a secret: the current version,
// another one, the key and its version.
const maxHints = 4

// hints remembers for secrets which records the core asked for besides the
// secret's own: only the core can tell which version and which key go with it. It
// remembers for signers which policies they are under. They are sent along the next
// time, which saves a round trip. A wrong hint costs a reference that the core does
// not look at.
//
// Like the row cache it has two generations. It is safe for concurrent use.
type hints struct {
	mu         sync.Mutex
	limit      int // secrets and signers of one generation
	young, old map[wire.RecordID][]wire.RecordID
	policies   atomic.Bool // there are some of signers
}

func newHints(limit int) *hints {
	return &hints{limit: max(1, limit), young: map[wire.RecordID][]wire.RecordID{}}
}

// get returns the records of a secret. Appending to the result copies it.
func (h *hints) get(secret wire.RecordID) []wire.RecordID {
	h.mu.Lock()
	defer h.mu.Unlock()
	ids, ok := h.young[secret]
	if !ok {
		if ids, ok = h.old[secret]; ok {
			h.set(secret, ids)
		}
	}
	return slices.Clip(ids)
}

// put replaces the records of a secret. The hints keep ids.
func (h *hints) put(secret wire.RecordID, ids []wire.RecordID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.set(secret, ids)
}

// set makes a secret young. The caller must hold h.mu.
func (h *hints) set(secret wire.RecordID, ids []wire.RecordID) {
	if _, ok := h.young[secret]; !ok && len(h.young) >= h.limit {
		h.young, h.old = make(map[wire.RecordID][]wire.RecordID, h.limit), h.young
	}
	h.young[secret] = ids
}

// expect adds what earlier requests on the same secret and of the same signer needed
// to the records of the call.
func (x *exchange) expect() {
	if x.names.hasSecret() {
		x.extra = x.relay.hints.get(x.names.secretRecord())
	}
	if x.relay.hints.policies.Load() {
		x.extra = append(x.extra, x.relay.hints.get(x.names.signed())...)
	}
	x.hints = len(x.extra)
}

// ofSigner reports whether a record is about who signs: a policy, or the settings by
// which workloads log in, whose sealed requests do not say that they are such.
func ofSigner(id wire.RecordID) bool { return id.Type == wire.Policy || id.Type == wire.TenantSettings }

// rememberPolicies notes which of those the core asked for, for the next request of
// the signer. API keys do not say which one signs, so that there may be several.
func (x *exchange) rememberPolicies() {
	var keep []wire.RecordID
	for _, id := range x.extra[min(x.hints, len(x.extra)):] {
		if ofSigner(id) && x.exists(id) {
			keep = append(keep, id)
		}
	}
	if len(keep) == 0 {
		return
	}
	for _, id := range x.relay.hints.get(x.names.signed()) {
		if !slices.Contains(keep, id) {
			keep = append(keep, id)
		}
	}
	x.relay.hints.put(x.names.signed(), keep[:min(len(keep), maxHints)])
	x.relay.hints.policies.Store(true)
}

// note takes down the version that the request made of its secret.
func (x *exchange) note(writes []wire.Write) {
	for i := range writes {
		if w := &writes[i]; w.ID.Type == wire.SecretVersion && !w.Remove {
			x.written = &w.ID
		}
	}
}

// remember notes what the request needed besides what it names, for the next one
// on its secret.
func (x *exchange) remember() {
	x.rememberPolicies()
	if !x.names.hasSecret() || !x.call.Fresh && x.written == nil {
		return
	}
	keep := make([]wire.RecordID, 0, maxHints)
	versions := 0
	add := func(id wire.RecordID) {
		if len(keep) == maxHints || slices.Contains(keep, id) || ofSigner(id) {
			return
		}
		if id.Type == wire.SecretVersion {
			if versions++; versions > 2 || versions > 1 && x.written != nil {
				return
			}
		}
		keep = append(keep, id)
	}
	if x.written != nil {
		add(*x.written)
	}
	named := x.names.records(nil)
	// What was asked for last comes first, and what came with it after that.
	asked := x.extra[x.hints:]
	for _, ids := range [][]wire.RecordID{reversed(asked), x.extra[:x.hints], x.sent()} {
		for _, id := range ids {
			if x.exists(id) && !slices.Contains(named, id) {
				add(id)
			}
		}
	}
	x.relay.hints.put(x.names.secretRecord(), keep)
}

func reversed(ids []wire.RecordID) []wire.RecordID {
	ids = slices.Clone(ids)
	slices.Reverse(ids)
	return ids
}

// sent names the records of the last call.
func (x *exchange) sent() []wire.RecordID {
	ids := make([]wire.RecordID, len(x.call.Records))
	for i := range x.call.Records {
		ids[i] = x.call.Records[i].ID
	}
	return ids
}

// exists reports whether the last call referred to a record that is there.
func (x *exchange) exists(id wire.RecordID) bool {
	return slices.ContainsFunc(x.call.Records, func(f wire.Ref) bool { return f.ID == id && f.Revision != 0 })
}
