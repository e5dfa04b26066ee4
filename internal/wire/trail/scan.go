package trail

import (
	"bufio"
	"errors"
	"io"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A File is one copied spool file.
type File struct {
	Name string      // for the report; nothing is concluded from it
	Data io.ReaderAt // read twice, so it must not change while Verify runs
	Size int64       // bytes
}

const readAhead = 64 << 10 // bytes

func (f File) reader(offset int64) *bufio.Reader {
	return bufio.NewReaderSize(io.NewSectionReader(f.Data, offset, f.Size-offset), readAhead)
}

// A ref says where an entry is. There is one for each entry of all files.
type ref struct {
	sequence uint64
	offset   int64
	file     int32
}

// A group is what the files have of one instance.
type group struct {
	refs     []ref
	findings Findings
}

// An index is the outcome of reading all files once.
type index struct {
	groups   map[wire.UUID]*group
	unplaced Findings
}

// A scanner reads one file from start to end.
type scanner struct {
	*index
	file  File
	n     int32    // number of the file
	in    *group   // of the entry read last, nil before the first
	next  uint64   // sequence number expected to follow it
	chain [32]byte // chain value of the frame before, as stored
	early Findings // before the first entry
}

func scan(files []File) *index {
	x := &index{groups: map[wire.UUID]*group{}}
	for n, f := range files {
		s := scanner{index: x, file: f, n: int32(n)}
		s.run()
		x.unplaced.merge(s.early)
	}
	return x
}

func (s *scanner) run() {
	r := s.file.reader(0)
	buf := make([]byte, MaxFrame)
	for offset := int64(0); ; {
		f, err := ReadFrame(r, buf)
		if err == io.EOF {
			return
		}
		if err == nil && s.unfinished(buf[:f.Size()], &f, offset) {
			err = errUnfinished
		}
		if err != nil {
			s.lost(offset, err)
			return
		}
		s.chain = f.Chain
		if e, err := Parse(f.Entry); err != nil {
			s.find(offset, Corrupt, err.Error())
			s.skip()
		} else {
			s.entry(&e, offset)
		}
		offset += int64(f.Size())
	}
}

// skip counts an entry that cannot be parsed.
func (s *scanner) skip() {
	if s.in != nil {
		s.next++
	}
}

// lost reports that nothing can be read from offset on.
func (s *scanner) lost(offset int64, err error) {
	switch {
	case errors.Is(err, ErrTorn):
		s.find(offset, Torn, err.Error())
	case errors.Is(err, ErrUnused):
		s.unused(offset)
	case !errors.Is(err, ErrCorrupt):
		s.find(offset, Unreadable, err.Error())
	default:
		s.find(offset, Corrupt, err.Error()+restLost)
	}
}

const restLost = "; the rest of the file cannot be read"

func (s *scanner) find(offset int64, p Problem, detail string) {
	x := Finding{File: s.file.Name, Offset: offset, Sequence: s.next, Problem: p, Detail: detail}
	if s.in == nil {
		s.early.add(x)
	} else {
		s.in.findings.add(x)
	}
}

func (s *scanner) entry(e *Entry, offset int64) {
	g := s.groups[e.Instance]
	if g == nil {
		g = &group{}
		s.groups[e.Instance] = g
	}
	if s.in == nil {
		s.place(g, e.Sequence)
	}
	g.refs = append(g.refs, ref{e.Sequence, offset, s.n})
	s.in, s.next = g, e.Sequence+1
}

// place gives what was found before the file's first entry to the instance of
// that entry, with the sequence numbers before its own.
func (s *scanner) place(g *group, first uint64) {
	for i, x := range s.early.List {
		if back := uint64(len(s.early.List) - i); back < first {
			x.Sequence = first - back
		}
		g.findings.add(x)
	}
	g.findings.More += s.early.More
	s.early = Findings{}
}
