package provision

import (
	"cmp"
	"encoding/hex"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// maxWaiting is how many machines wait for admission at a time; those that were
// there first stay.
const maxWaiting = 1024

// A Waiting is the list of machines that have sent genuine evidence, and that the
// manifest does not admit. It is for operators and decides nothing. It is safe for
// concurrent use.
type Waiting struct {
	mu       sync.Mutex
	machines map[string]*Machine
	changed  func([]byte)
}

// A Machine waits for admission.
type Machine struct {
	PPID   string    `json:"ppid"`      // hex, as a manifest has it
	Serial string    `json:"pckSerial"` // of its PCK certificate
	First  time.Time `json:"first"`     // when it came first, in UTC
	Last   time.Time `json:"last"`
	Times  int       `json:"times"` // how often it was refused
}

// NewWaiting returns an empty list. changed, if not nil, is given the list as JSON
// whenever there is a new machine.
func NewWaiting(changed func([]byte)) *Waiting {
	return &Waiting{machines: map[string]*Machine{}, changed: changed}
}

// Add notes a machine that was refused.
func (w *Waiting) Add(p verify.Platform, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ppid, now := hex.EncodeToString(p.PPID[:]), now.UTC().Truncate(time.Second)
	m := w.machines[ppid]
	isNew := m == nil
	if isNew {
		if len(w.machines) >= maxWaiting {
			return
		}
		m = &Machine{PPID: ppid, First: now}
		w.machines[ppid] = m
	}
	m.Serial, m.Last = p.Serial, now
	m.Times++
	if isNew && w.changed != nil {
		b, _ := json.MarshalIndent(w.list(), "", "  ") // of texts and numbers
		w.changed(append(b, '\n'))
	}
}

// List returns the machines, the first to come first.
func (w *Waiting) List() []Machine {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list()
}

func (w *Waiting) list() []Machine {
	all := make([]Machine, 0, len(w.machines))
	for _, m := range w.machines {
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b Machine) int { return cmp.Or(a.First.Compare(b.First), cmp.Compare(a.PPID, b.PPID)) })
	return all
}
