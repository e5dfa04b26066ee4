package trail

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A Report is what Verify found.
type Report struct {
	Instances []Instance // in the order of their first entry's time
	Unplaced  Findings   // in files in which no entry could be read at all
}

// Intact says that nothing is wrong or missing between each trail's first and
// last entry. It does not say that the trails end where they should, nor that
// no instance is missing: see Instance.Ending.
func (r *Report) Intact() bool {
	for i := range r.Instances {
		if !r.Instances[i].Intact() {
			return false
		}
	}
	return len(r.Unplaced.List) == 0
}

// An Instance is what is known of one instance's trail. What is not covered by
// a signed checkpoint is known from the files alone, and anyone who can write
// the files can have written it.
type Instance struct {
	ID        wire.UUID
	Endorsed  bool   // the start entry is there and the domain key vouches for it
	Platform  string // from the start entry
	Entries   uint64 // different sequence numbers present
	First     uint64 // lowest sequence number
	Last      uint64 // highest
	FirstTime int64  // of entry First, Unix microseconds
	LastTime  int64  // of entry Last
	// Signed is the number of the last checkpoint whose signature holds, 0 if
	// there is none; SignedTime is its time. Entries up to it are genuine unless
	// a finding names them, one by one or as a range before a checkpoint, or
	// they come right after a gap.
	Signed     uint64
	SignedTime int64
	Unsigned   uint64 // entries present after Signed
	Gaps       []Gap  // ascending
	Findings   Findings
}

// Intact says that no entry between the first and the last is missing, changed
// or out of its place.
func (i *Instance) Intact() bool { return len(i.Gaps) == 0 && len(i.Findings.List) == 0 }

// Ending says in words where the trail ends and what the files cannot tell.
func (i *Instance) Ending() string {
	switch {
	case i.Signed == 0:
		return fmt.Sprintf("ends at entry %d; no entry is signed, and whether more followed cannot be told from the files", i.Last)
	case i.Unsigned == 0:
		return fmt.Sprintf("ends with the signed checkpoint %d; whether entries followed it cannot be told from the files", i.Signed)
	}
	return fmt.Sprintf("ends at entry %d; the %d after checkpoint %d are not signed, and whether more followed cannot be told from the files",
		i.Last, i.Unsigned, i.Signed)
}

// A Gap is a range of sequence numbers that no file has. The chain does not
// reach over it, so the entry after it is not verified unless it is a
// checkpoint; those after that are, by the next checkpoint.
type Gap struct {
	First, Last uint64
	File        string // where the entry after the gap is
	Offset      int64
}

// String describes the gap for people. A gap before a file, but not inside one,
// is what a manager leaves that was killed while its core went on.
func (g Gap) String() string {
	text := fmt.Sprintf("entries %d to %d are missing before %s, byte %d", g.First, g.Last, g.File, g.Offset)
	if g.Offset == 0 {
		text += ": the file begins with entry " + strconv.FormatUint(g.Last+1, 10) +
			"; either one before it is not here, or a manager was killed before it had written them"
	}
	return text
}

// Problem is what is wrong at one place of a file.
type Problem uint8

const (
	_             Problem = iota
	Unreadable            // the file could not be read
	Torn                  // the file ends inside a frame, or part of its last write is zeros, as after a crash
	Corrupt               // there is no entry where one should be
	BadStart              // the start entry is missing, misplaced, of another domain, or not endorsed
	BadChain              // the entry does not follow from the one before
	BadCheckpoint         // the signature does not hold, or not over the entries before it
	Repeated              // the same entry is there a second time
	Conflict              // another entry has the same sequence number
	Disorder              // the entry does not lie behind the one with the number before
)

// String names the problem for reports.
func (p Problem) String() string {
	names := [...]string{
		Unreadable: "unreadable", Torn: "torn", Corrupt: "corrupt", BadStart: "bad start", BadChain: "bad chain",
		BadCheckpoint: "bad checkpoint", Repeated: "repeated", Conflict: "conflict", Disorder: "disorder",
	}
	if p == 0 || int(p) >= len(names) {
		return fmt.Sprintf("problem %d", uint8(p))
	}
	return names[p]
}

// A Finding names one bad entry.
type Finding struct {
	File     string
	Offset   int64  // of the entry's frame in the file, bytes
	Sequence uint64 // of the entry; where it cannot be read, what it should be; 0 if unknown
	Problem  Problem
	Detail   string
}

// String describes the finding for people.
func (f Finding) String() string {
	return fmt.Sprintf("%s, byte %d, entry %d: %s: %s", f.File, f.Offset, f.Sequence, f.Problem, f.Detail)
}

const maxFindings = 100 // kept per instance and pass; a hostile file could yield millions

// Findings are the first findings of an instance in the order of their sequence
// numbers, so that List[0] is the first bad entry.
type Findings struct {
	List []Finding
	More int // how many were left out
}

func (f *Findings) add(x Finding) {
	if len(f.List) == maxFindings {
		f.More++
		return
	}
	f.List = append(f.List, x)
}

// merge adds the findings of g and restores the order.
func (f *Findings) merge(g Findings) {
	f.List = append(f.List, g.List...)
	f.More += g.More
	slices.SortStableFunc(f.List, func(a, b Finding) int { return cmp.Compare(a.Sequence, b.Sequence) })
}
