package trail

import (
	"bufio"
	"bytes"
	"cmp"
	"crypto/ed25519"
	"fmt"
	"io"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Verify checks copies of spool files, in any order and of any number of
// instances, against the public key and the id of their domain. It puts the
// entries of each instance in the order of their sequence numbers, recomputes
// the chain, checks that the domain key vouches for the instance's key and that
// this key signed each checkpoint.
//
// Entries before an endorsed instance's last signed checkpoint cannot be
// changed, dropped or added without a finding or a gap. What files alone cannot
// show is that entries at the end of a trail, or a whole instance, are missing.
// To verify later files of an instance, its first file, with the start entry,
// must be among them.
//
// Verify reads every file twice and holds 24 bytes of memory for each entry.
func Verify(files []File, domainKey ed25519.PublicKey, domain [32]byte) Report {
	x := scan(files)
	r := Report{Unplaced: x.unplaced}
	for id, g := range x.groups {
		w := newWalker(files, id, domainKey, domain)
		slices.SortFunc(g.refs, func(a, b ref) int {
			return cmp.Or(cmp.Compare(a.sequence, b.sequence), cmp.Compare(a.file, b.file), cmp.Compare(a.offset, b.offset))
		})
		w.run(g.refs)
		w.in.Findings.merge(g.findings)
		r.Instances = append(r.Instances, w.in)
	}
	slices.SortFunc(r.Instances, func(a, b Instance) int {
		return cmp.Or(cmp.Compare(a.FirstTime, b.FirstTime), bytes.Compare(a.ID[:], b.ID[:]))
	})
	return r
}

// A walker goes through the entries of one instance in order.
//
// It keeps two chain values. sum follows from the entries and is what signed
// heads are compared with. stored is the value in the last frame, which anyone
// can write; it only serves to say at which entry a trail departs from it.
type walker struct {
	in        Instance
	files     []File
	domainKey ed25519.PublicKey
	domain    [32]byte
	key       ed25519.PublicKey // nil until the domain key has vouched for it

	sum, stored [32]byte
	linked      bool           // sum and stored are known; not so after a gap
	next        uint64         // sequence number that must follow
	place       ref            // of the entry before
	left        map[int32]bool // files that entries before place were in
	read        cursor
}

func newWalker(files []File, id wire.UUID, domainKey ed25519.PublicKey, domain [32]byte) *walker {
	first := First(domain, id)
	return &walker{
		in: Instance{ID: id}, files: files, domainKey: domainKey, domain: domain,
		sum: first, stored: first, linked: true, next: 1,
		place: ref{file: -1}, left: map[int32]bool{}, read: cursor{file: -1, buf: make([]byte, MaxFrame)},
	}
}

func (w *walker) run(refs []ref) {
	for len(refs) > 0 {
		n := 1
		for n < len(refs) && refs[n].sequence == refs[0].sequence {
			n++
		}
		if c, ok := w.choose(refs[:n]); ok {
			w.gap(c.ref)
			w.order(c.ref)
			w.entry(&c)
		}
		refs = refs[n:]
	}
}

// A candidate is an entry at its place.
type candidate struct {
	ref
	Frame
	Entry Entry
}

// choose returns the entry among those with one sequence number that follows
// from the entry before, or else the first, and reports the others.
func (w *walker) choose(same []ref) (best candidate, ok bool) {
	for _, at := range same {
		f, e, err := w.read.entry(w.files, at)
		if err != nil {
			w.find(at, Unreadable, "the file changed while it was read: %v", err)
			continue
		}
		if len(same) > 1 {
			f.Entry = bytes.Clone(f.Entry)
		}
		c := candidate{at, f, e}
		if !ok {
			best, ok = c, true
			continue
		}
		if !w.links(best.Frame) && w.links(c.Frame) {
			best, c = c, best
		}
		problem := Conflict
		if bytes.Equal(best.Frame.Entry, c.Frame.Entry) && best.Chain == c.Chain {
			problem = Repeated
		}
		w.find(c.ref, problem, "the entry taken is at %s, byte %d", w.files[best.file].Name, best.offset)
	}
	return best, ok
}

// links says whether f follows from the entry before.
func (w *walker) links(f Frame) bool {
	return !w.linked || Chain(w.sum, f.Entry) == f.Chain || w.stored != w.sum && Chain(w.stored, f.Entry) == f.Chain
}

// gap notes the sequence numbers that are missing before the entry at.
func (w *walker) gap(at ref) {
	if at.sequence > w.next {
		w.in.Gaps = append(w.in.Gaps, Gap{w.next, at.sequence - 1, w.files[at.file].Name, at.offset})
		w.linked = false
		if w.next == 1 {
			w.find(at, BadStart, "the start entry is missing, so no signature can be checked")
		}
	}
	w.next = at.sequence + 1
}

// order notes entries that do not lie in the files in their order. A sink that
// has waited in vain for an entry writes it when it comes; nothing else writes
// in another order.
func (w *walker) order(at ref) {
	if at.file == w.place.file {
		if at.offset < w.place.offset {
			w.find(at, Disorder, "entry %d lies behind it at byte %d", w.place.sequence, w.place.offset)
		}
	} else {
		if w.left[at.file] {
			w.find(at, Disorder, "entry %d before it lies in another file, %s", w.place.sequence, w.files[w.place.file].Name)
		}
		w.left[w.place.file] = true
	}
	w.place = at
}

func (w *walker) entry(c *candidate) {
	e := &c.Entry
	if w.in.Entries == 0 {
		w.in.First, w.in.FirstTime = e.Sequence, e.Time
	}
	w.in.Entries++
	w.in.Unsigned++
	w.in.Last, w.in.LastTime = e.Sequence, e.Time
	if e.Kind == Start || e.Sequence == 1 {
		w.start(c.ref, e)
	}
	if e.Kind == Checkpoint {
		w.checkpoint(c.ref, e)
	}
	w.link(c)
}

func (w *walker) start(at ref, e *Entry) {
	switch {
	case e.Sequence != 1:
		w.find(at, BadStart, "a start entry can only be entry 1")
	case e.Kind != Start:
		w.find(at, BadStart, "entry 1 is a %s entry", e.Kind)
	case e.Domain != w.domain:
		w.find(at, BadStart, "the trail is of domain %x", e.Domain)
	case !verify(w.domainKey, EndorsementMessage(e.Domain, e.Instance, e.PublicKey), e.Endorsement[:]):
		w.find(at, BadStart, "the domain key does not vouch for the instance's key")
	default:
		w.key = e.PublicKey[:]
		w.in.Endorsed, w.in.Platform = true, e.Platform
	}
}

// checkpoint checks what is signed. A head that is signed is the true chain
// value, whatever the files say, and the chain goes on from it.
func (w *walker) checkpoint(at ref, e *Entry) {
	if w.key == nil {
		return // there is a finding for the start entry
	}
	if !verify(w.key, CheckpointMessage(w.domain, e.Instance, e.Sequence, e.Time, e.Head), e.Signature[:]) {
		w.find(at, BadCheckpoint, "the signature does not hold")
		return
	}
	if w.linked && e.Head != w.sum {
		w.find(at, BadCheckpoint, "entries %d to %d are not the ones that were signed", w.in.Signed+1, e.Sequence-1)
	}
	if !w.linked {
		w.stored, w.linked = e.Head, true
	}
	w.sum = e.Head
	w.in.Signed, w.in.SignedTime, w.in.Unsigned = e.Sequence, e.Time, 0
}

// link checks and takes the entry's own chain value.
func (w *walker) link(c *candidate) {
	if !w.linked {
		w.sum, w.stored, w.linked = c.Chain, c.Chain, true
		return
	}
	if !w.links(c.Frame) {
		w.find(c.ref, BadChain, "its chain value does not follow from it and the entry before")
	}
	w.sum, w.stored = Chain(w.sum, c.Frame.Entry), c.Chain
}

func (w *walker) find(at ref, p Problem, format string, args ...any) {
	w.in.Findings.add(Finding{w.files[at.file].Name, at.offset, at.sequence, p, fmt.Sprintf(format, args...)})
}

// verify is ed25519.Verify, without its panic for a key of another length.
func verify(key ed25519.PublicKey, message, signature []byte) bool {
	return len(key) == ed25519.PublicKeySize && ed25519.Verify(key, message, signature)
}

// A cursor reads frames by their place and is fast when they lie in order.
type cursor struct {
	file   int32
	offset int64 // of what r reads next
	r      *bufio.Reader
	buf    []byte
}

// entry reads the entry at its place. The frame is valid until the next call.
func (c *cursor) entry(files []File, at ref) (Frame, Entry, error) {
	if at.file != c.file || at.offset != c.offset {
		c.r, c.file = files[at.file].reader(at.offset), at.file
	}
	f, err := ReadFrame(c.r, c.buf)
	if err != nil {
		c.file = -1
		if err == io.EOF {
			err = io.ErrUnexpectedEOF
		}
		return f, Entry{}, err
	}
	c.offset = at.offset + int64(f.Size())
	e, err := Parse(f.Entry)
	return f, e, err
}
