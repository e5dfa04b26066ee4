package provision

import (
	"bytes"
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

const (
	// waitingKept is for how long a machine that does not come any more waits.
	waitingKept = 30 * 24 * time.Hour
	// waitingSaved is how often the list is saved for what is not a new machine.
	waitingSaved = time.Minute
	// MaxWaitingFile is the largest file of a list, in bytes.
	MaxWaitingFile = 1 << 20
)

// ErrWaiting says that a file is no list of machines that wait.
var ErrWaiting = errors.New("list of waiting machines is malformed")

// A Waiting is the list of machines that have sent genuine evidence, and that the
// manifest does not admit: at most overview.MaxWaiting, of which those that were
// there first stay. It is for operators and decides nothing. It is safe for
// concurrent use.
type Waiting struct {
	mu       sync.Mutex
	machines map[manifest.PPID]*overview.Waiting
	unsaved  bool
	urgent   bool // a machine came or went
	saved    time.Time
}

// NewWaiting returns an empty list.
func NewWaiting() *Waiting { return &Waiting{machines: map[manifest.PPID]*overview.Waiting{}} }

// Load takes what Save has written in an earlier life of the program, in the place
// of what is there. The file is the host's; what it says of the future is taken for
// now. Errors: ErrWaiting.
func (w *Waiting) Load(file []byte, now time.Time) error {
	list, err := parseWaiting(file)
	if err != nil {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	clear(w.machines)
	for _, m := range list {
		if m.Last.After(now) {
			m.Last = now.UTC().Truncate(time.Second)
			m.First = earlier(m.First, m.Last)
		}
		w.machines[m.PPID] = &m
	}
	w.saved = now
	w.expire(now)
	return nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

var serialForm = regexp.MustCompile(`^[0-9a-f]{0,40}$`)

func parseWaiting(file []byte) ([]overview.Waiting, error) {
	if len(file) > MaxWaitingFile {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrWaiting, len(file), MaxWaitingFile)
	}
	var list []overview.Waiting
	d := json.NewDecoder(bytes.NewReader(file))
	d.DisallowUnknownFields()
	if err := d.Decode(&list); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrWaiting, err)
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("%w: something follows it", ErrWaiting)
	}
	if len(list) > overview.MaxWaiting {
		return nil, fmt.Errorf("%w: %d machines, limit %d", ErrWaiting, len(list), overview.MaxWaiting)
	}
	seen := map[manifest.PPID]bool{}
	for i := range list {
		m := &list[i]
		switch {
		case seen[m.PPID]:
			return nil, fmt.Errorf("%w: machine %s comes twice", ErrWaiting, m.PPID)
		case !serialForm.MatchString(m.Serial) || !overview.Printable(m.From, overview.MaxText) || m.Was != "" || m.Times < 1:
			return nil, fmt.Errorf("%w: machine %s", ErrWaiting, m.PPID)
		case m.First.IsZero() || m.Last.Before(m.First) || m.Last.Unix() > maxDate:
			return nil, fmt.Errorf("%w: dates of the machine %s", ErrWaiting, m.PPID)
		}
		seen[m.PPID] = true
		m.First, m.Last = m.First.UTC().Truncate(time.Second), m.Last.UTC().Truncate(time.Second)
	}
	return list, nil
}

// Add notes a machine that was refused. from is its address, as the host sees it.
func (w *Waiting) Add(p verify.Platform, from string, now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	now = now.UTC().Truncate(time.Second)
	m := w.machines[p.PPID]
	if m == nil {
		w.expire(now)
		if len(w.machines) >= overview.MaxWaiting {
			return
		}
		m = &overview.Waiting{PPID: p.PPID, First: now}
		w.machines[p.PPID], w.urgent = m, true
	}
	m.Serial, m.Last, m.From = p.Serial, now, overview.Clean(from, overview.MaxText)
	m.Times++
	w.unsaved = true
}

// Drop takes machines out of the list for which admitted is true.
func (w *Waiting) Drop(admitted func(ppid manifest.PPID, serial string) bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ppid, m := range w.machines {
		if admitted(ppid, m.Serial) {
			w.forget(ppid)
		}
	}
}

// expire forgets machines that have not come for too long. The caller must hold
// w.mu.
func (w *Waiting) expire(now time.Time) {
	for ppid, m := range w.machines {
		if now.Sub(m.Last) > waitingKept {
			w.forget(ppid)
		}
	}
}

func (w *Waiting) forget(ppid manifest.PPID) {
	delete(w.machines, ppid)
	w.unsaved, w.urgent = true, true
}

// List returns the machines, the first to come first.
func (w *Waiting) List() []overview.Waiting {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.list()
}

func (w *Waiting) list() []overview.Waiting {
	all := make([]overview.Waiting, 0, len(w.machines))
	for _, m := range w.machines {
		all = append(all, *m)
	}
	slices.SortFunc(all, func(a, b overview.Waiting) int {
		return cmp.Or(a.First.Compare(b.First), slices.Compare(a.PPID[:], b.PPID[:]))
	})
	return all
}

// Save has the list written, as JSON, if there is something new: a machine at once,
// dates and numbers once a minute. It is written again after a failure. Errors:
// those of write.
func (w *Waiting) Save(now time.Time, write func([]byte) error) error {
	w.mu.Lock()
	w.expire(now)
	if !w.unsaved || !w.urgent && now.Sub(w.saved) < waitingSaved {
		w.mu.Unlock()
		return nil
	}
	b, err := json.MarshalIndent(w.list(), "", "  ") // of texts and numbers
	urgent := w.urgent
	w.unsaved, w.urgent, w.saved = false, false, now
	w.mu.Unlock()
	if err == nil {
		err = write(append(b, '\n')) // may take long; others go on
	}
	if err != nil {
		w.mu.Lock()
		w.unsaved, w.urgent = true, w.urgent || urgent
		w.mu.Unlock()
	}
	return err
}
