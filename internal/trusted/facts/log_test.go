package facts

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// An entry by its layout. Released: never change it.
func TestKnownEntry(t *testing.T) {
	f := Fact{ID: wire.RecordID{Type: wire.Key, Tenant: wire.UUID{1}, ID: wire.UUID{2}}, Revision: 3, Tag: wire.Tag{4}}
	_, got, err := draft(NewLog(&fakeKeys{1, 7}, 10).Draft([]Fact{f}))
	if err != nil {
		t.Fatal(err)
	}
	const want = "01" + "0000000000000001" + "02" + "01000000000000000000000000000000" + "02000000000000000000000000000000" +
		"00000000" + "0000000000000003" + "04000000000000000000000000000000" + "00000007" + "92101e8fad333c3838f89550bd5871ac"
	if hex.EncodeToString(got) != want {
		t.Errorf("Draft: got %x, want %s", got, want)
	}
}

func TestJudge(t *testing.T) {
	l := shown(t, grow(t, nil, fact(1, 5)))
	for name, row := range map[string]struct {
		f    Fact
		want Standing
	}{
		"the narrowed state":        {fact(1, 5), Allowed},
		"a later one":               {fact(1, 6), Allowed},
		"the one before":            {fact(1, 4), Below},
		"the first":                 {fact(1, 1), Below},
		"another of that revision":  {Fact{fact(1, 5).ID, 5, tag(1, 9)}, Rival},
		"of a record without facts": {fact(2, 1), Allowed},
	} {
		if got := l.Judge(row.f.ID, row.f.Revision, row.f.Tag); got != row.want {
			t.Errorf("%s: got %d, want %d", name, got, row.want)
		}
	}
	if !l.Known(fact(1, 1).ID) || l.Known(fact(2, 1).ID) {
		t.Error("Known: wrong")
	}
}

// An older fact never takes the place of a newer one.
func TestFactsGoUp(t *testing.T) {
	l := shown(t, grow(t, grow(t, nil, fact(1, 5)), fact(1, 3)))
	if got := l.Judge(fact(1, 4).ID, 4, tag(1, 4)); got != Below {
		t.Errorf("got %d, want Below", got)
	}
}

func TestEntriesRefused(t *testing.T) {
	three := grow(t, grow(t, grow(t, nil, fact(1, 2)), fact(2, 2)), fact(3, 2))
	const n = wire.FactSize
	other := grow(t, grow(t, nil, fact(9, 2)), fact(2, 2))
	join := func(parts ...[]byte) []byte { return bytes.Join(parts, nil) }
	for name, row := range map[string]struct {
		entries []byte
		taken   uint64
	}{
		"left out":               {join(three[:n], three[2*n:]), 1},
		"reordered":              {join(three[:n], three[2*n:], three[n:2*n]), 1},
		"first left out":         {three[n:], 0},
		"twice":                  {join(three[:n], three[:n]), 1},
		"after another one":      {join(other[:n], three[n:2*n]), 1},
		"half an entry":          {three[:n+n/2], 0},
		"of an unknown format":   {join([]byte{2}, three[1:]), 0},
		"of a future DomainKey":  {func() []byte { b := bytes.Clone(three[:n]); b[n-17] = 2; return b }(), 0},
		"without a DomainKey":    {func() []byte { b := bytes.Clone(three[:n]); b[n-17] = 0; return b }(), 0},
		"without a revision":     {func() []byte { b := bytes.Clone(three[:n]); b[53] = 0; return b }(), 0},
		"with a sequence of 0":   {func() []byte { b := bytes.Clone(three[:n]); b[8] = 0; return b }(), 0},
		"MAC of the next entry":  {join(three[:n-16], three[2*n-16:2*n]), 0},
		"last MAC bit":           {func() []byte { b := bytes.Clone(three); b[3*n-1] ^= 1; return b }(), 2},
		"other fact, same chain": {func() []byte { b := bytes.Clone(three); b[n+30] ^= 1; return b }(), 1},
	} {
		l := NewLog(&fakeKeys{1, 1}, 10)
		if _, err := l.Extend(1, row.entries, true); !errors.Is(err, ErrEntry) || l.Head().Count != row.taken {
			t.Errorf("%s: got %v after %d, want ErrEntry after %d", name, err, l.Head().Count, row.taken)
		}
		if l.Judge(fact(3, 1).ID, 1, wire.Tag{}) != Allowed && row.taken < 3 {
			t.Errorf("%s: what was refused counts", name)
		}
	}
	for i := range three {
		changed := bytes.Clone(three)
		changed[i] ^= 0x40
		if _, err := NewLog(&fakeKeys{1, 1}, 10).Extend(1, changed, true); !errors.Is(err, ErrEntry) {
			t.Fatalf("byte %d changed: got %v, want ErrEntry", i, err)
		}
	}
}

// Entries that are there already are passed over.
func TestShownTwice(t *testing.T) {
	two := grow(t, grow(t, nil, fact(1, 2)), fact(2, 2))
	l := shown(t, two[:wire.FactSize])
	learned, err := l.Extend(1, two, true)
	if err != nil || len(learned) != 1 || learned[0] != fact(2, 2) || l.Head() != head(t, two) {
		t.Errorf("got %v, %v", learned, err)
	}
}

func TestReady(t *testing.T) {
	two := grow(t, grow(t, nil, fact(1, 2)), fact(2, 2))
	one := two[:wire.FactSize]
	fork := grow(t, grow(t, nil, fact(1, 2)), fact(8, 2))
	for name, row := range map[string]struct {
		told []Head
		show []byte
		end  bool
		want error // of Ready
	}{
		"nothing shown":              {nil, nil, false, ErrBehind},
		"empty":                      {nil, nil, true, nil},
		"all":                        {[]Head{head(t, two)}, two, true, nil},
		"more than is known":         {[]Head{head(t, one)}, two, true, nil},
		"withheld":                   {[]Head{head(t, two)}, nil, true, ErrBehind},
		"cut short":                  {[]Head{head(t, two)}, one, true, ErrBehind},
		"not to its end":             {[]Head{head(t, one)}, one, false, ErrBehind},
		"forked":                     {[]Head{head(t, two)}, fork, true, ErrFork},
		"forked and longer":          {[]Head{head(t, two)}, grow(t, fork, fact(1, 3)), true, ErrFork},
		"two heads of one count":     {[]Head{head(t, two), head(t, fork)}, two, true, ErrFork},
		"a head and one of the fork": {[]Head{head(t, one), head(t, fork)}, two, true, ErrFork},
	} {
		l := NewLog(&fakeKeys{1, 1}, 10)
		for _, h := range row.told {
			l.Hear(Statement{Head: h})
		}
		l.Extend(1, row.show, row.end)
		if err := l.Ready(); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
		if s, _ := l.Say(); errors.Is(row.want, ErrFork) && s.Head.Count > 0 {
			t.Errorf("%s: says %v", name, s)
		}
	}
}

// Heads that are learned of later, by a core that serves.
func TestHear(t *testing.T) {
	two := grow(t, grow(t, nil, fact(1, 2)), fact(2, 2))
	three := grow(t, two, fact(3, 2))
	fork := grow(t, two[:wire.FactSize], fact(8, 2))
	for name, row := range map[string]struct {
		told Statement
		want error
	}{
		"its own":                  {Statement{Head: head(t, two)}, nil},
		"an earlier one":           {Statement{Head: head(t, two[:wire.FactSize])}, nil},
		"none":                     {Statement{}, nil},
		"a later one":              {Statement{Head: head(t, three)}, ErrBehind},
		"a later one is asked":     {Statement{Ask: []Head{head(t, three)}}, ErrBehind},
		"another one":              {Statement{Head: head(t, fork)}, ErrFork},
		"another one is asked":     {Statement{Head: head(t, two), Ask: []Head{head(t, fork)}}, ErrFork},
		"another, earlier one":     {Statement{Head: Head{1, [32]byte{1}}}, ErrFork},
		"proven heads bind nobody": {Statement{Proven: []Head{head(t, fork)}}, nil},
	} {
		l := shown(t, two)
		err := l.Hear(row.told)
		if errors.Is(row.want, ErrFork) != errors.Is(err, ErrFork) {
			t.Errorf("%s: Hear: got %v", name, err)
		}
		if err := l.Ready(); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
		if errors.Is(row.want, ErrBehind) {
			if _, err := l.Extend(3, three[2*wire.FactSize:], true); err != nil || l.Ready() != nil {
				t.Errorf("%s: after the entry: got %v, %v", name, err, l.Ready())
			}
		}
	}
}

// A head from before what is remembered cannot be compared.
func TestPast(t *testing.T) {
	var all []byte
	l := NewLog(&fakeKeys{1, 1}, 10)
	for range remembered + 1 {
		_, e, err := draft(l.Draft([]Fact{fact(1, 2)}))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Extend(l.Head().Count+1, e, true); err != nil {
			t.Fatal(err)
		}
		all = append(all, e...)
	}
	at := func(n int) Head { return head(t, all[:n*wire.FactSize]) }
	if err := l.Hear(Statement{Head: at(2)}); err != nil {
		t.Errorf("within what is remembered: got %v", err)
	}
	if err := l.Hear(Statement{Head: at(1)}); !errors.Is(err, ErrPast) || !errors.Is(l.Ready(), ErrPast) {
		t.Errorf("before: got %v, %v, want ErrPast", err, l.Ready())
	}
	again := NewLog(&fakeKeys{1, 1}, 10)
	again.Hear(Statement{Head: at(1)})
	if _, err := again.Extend(1, all, true); err != nil || again.Ready() != nil {
		t.Errorf("read anew: got %v, %v", err, again.Ready())
	}
}

// Entries of a DomainKey that is gone need somebody who vouches for them.
func TestForgottenDomainKey(t *testing.T) {
	old := NewLog(&fakeKeys{1, 1}, 10)
	_, one, _ := draft(old.Draft([]Fact{fact(1, 2)}))
	old.Extend(1, one, true)
	_, more, _ := draft(old.Draft([]Fact{fact(2, 2)}))
	both := append(bytes.Clone(one), more...)
	next := NewLog(&fakeKeys{1, 2}, 10)
	next.Extend(1, one, true)
	_, two, _ := draft(next.Draft([]Fact{fact(2, 2)}))
	forged := bytes.Clone(one)
	forged[20] ^= 1
	numbered := bytes.Clone(one)
	numbered[8] = 5

	for name, row := range map[string]struct {
		told Head
		show []byte
		want error
	}{
		"nobody, and no head is known": {Head{}, one, nil},
		"a head, of those before":      {old.Head(), both, ErrEntry},
		"a later entry":                {Head{}, append(bytes.Clone(one), two...), nil},
		"a head":                       {old.Head(), one, nil},
		"a head, of another":           {old.Head(), forged, ErrFork},
		"of another number":            {Head{}, numbered, ErrEntry},
		"no later entry, forged":       {Head{}, append(forged, two...), ErrEntry},
	} {
		l := NewLog(&fakeKeys{2, 2}, 10)
		l.Hear(Statement{Head: row.told})
		_, err := l.Extend(1, row.show, true)
		if err == nil {
			err = l.Ready()
		}
		if !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", name, err, row.want)
		}
		if l.Head().Count > 2 {
			t.Errorf("%s: got %d entries", name, l.Head().Count)
		}
	}
}

func TestFull(t *testing.T) {
	l := NewLog(&fakeKeys{1, 1}, 2)
	_, e, _ := draft(l.Draft([]Fact{fact(1, 2), fact(2, 2)}))
	if _, err := l.Extend(1, e, true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := draft(l.Draft([]Fact{fact(3, 2)})); !errors.Is(err, ErrFull) || l.Ready() != nil {
		t.Errorf("a third record: got %v, %v", err, l.Ready())
	}
	if _, _, err := draft(l.Draft([]Fact{fact(2, 3)})); err != nil {
		t.Errorf("a record that is there: got %v", err)
	}
	_, more, _ := draft(shown(t, e).Draft([]Fact{fact(3, 2)}))
	if _, err := l.Extend(3, more, true); !errors.Is(err, ErrFull) || !errors.Is(l.Ready(), ErrFull) {
		t.Errorf("a third record of others: got %v, %v", err, l.Ready())
	}
}

func FuzzExtend(f *testing.F) {
	f.Add(uint64(1), grow(f, grow(f, nil, fact(1, 2)), fact(2, 2)))
	f.Add(uint64(0), make([]byte, wire.FactSize))
	f.Fuzz(func(t *testing.T, first uint64, b []byte) {
		l := NewLog(&fakeKeys{1, 1}, 10)
		learned, err := l.Extend(first, b, true)
		if uint64(len(learned)) != l.Head().Count || err == nil && l.Ready() != nil {
			t.Errorf("learned %d of %d, %v, %v", len(learned), l.Head().Count, err, l.Ready())
		}
		for i := range learned { // what is taken re-encodes
			e, err := parse(b[i*wire.FactSize:][:wire.FactSize])
			if err != nil || !bytes.Equal(e.appendBody(nil), b[i*wire.FactSize:][:bodySize]) {
				t.Errorf("entry %d does not re-encode: %v", i, err)
			}
		}
	})
}

func FuzzStatement(f *testing.F) {
	s := Statement{Head{1, [32]byte{1}}, []Head{{}}, []Head{{2, [32]byte{2}}}}
	f.Add(s.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := pack.NewReader(b)
		s := ReadStatement(r)
		if r.Close() == nil && !bytes.Equal(s.Append(nil), b) {
			t.Error("does not re-encode")
		}
	})
}

func BenchmarkExtend(b *testing.B) {
	var all []byte
	l := NewLog(&fakeKeys{1, 1}, 1<<20)
	for i := range 1000 {
		_, e, err := draft(l.Draft([]Fact{fact(uint64(i), 2)}))
		if err != nil {
			b.Fatal(err)
		}
		l.Extend(uint64(i+1), e, true)
		all = append(all, e...)
	}
	for b.Loop() {
		if _, err := NewLog(&fakeKeys{1, 1}, 1<<20).Extend(1, all, true); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/entry")
}

func BenchmarkJudge(b *testing.B) {
	l := shown(b, grow(b, nil, fact(1, 5)))
	for b.Loop() {
		l.Judge(fact(1, 5).ID, 5, tag(1, 5))
	}
}
