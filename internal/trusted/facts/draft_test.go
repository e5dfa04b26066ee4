package facts

import (
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// drafts makes a draft of one fact each about records from first on.
func drafts(t *testing.T, l *Log, first uint64, n int) (all []*Draft) {
	t.Helper()
	for i := range n {
		d, err := l.Draft([]Fact{fact(first+uint64(i), 2)})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, d)
	}
	return all
}

func stands(t *testing.T, l *Log, d *Draft, learned int, want bool) {
	t.Helper()
	if got, ok := l.Stand(d); ok != want || len(got) != learned {
		t.Errorf("Stand(%d): got %t and %d facts, want %t and %d", d.First, ok, len(got), want, learned)
	}
}

// TestDraftsAreAChain makes several drafts before any is stored. They are the entries
// that a log without haste has.
func TestDraftsAreAChain(t *testing.T) {
	stored := grow(t, nil, fact(1, 2))
	l := shown(t, stored)
	all := drafts(t, l, 2, 4)
	for _, d := range all {
		stored = grow(t, stored, fact(d.First, 2))
		if last := stored[len(stored)-wire.FactSize:]; string(last) != string(d.Entries) || d.Previous != [16]byte(stored[len(stored)-wire.FactSize-macSize:]) {
			t.Errorf("draft %d is not the entry that follows", d.First)
		}
	}
	if l.Head().Count != 1 || l.Known(fact(2, 2).ID) {
		t.Error("a draft counts that is not stored")
	}
	if s, _ := l.Say(); s.Head.Count != 1 {
		t.Errorf("a draft is told of: %s", s.Head)
	}
	// They are reported in any order: each brings those before it.
	stands(t, l, all[1], 2, true)
	stands(t, l, all[0], 0, true)
	stands(t, l, all[3], 2, true)
	stands(t, l, all[2], 0, true)
	stands(t, l, all[3], 0, true)
	if l.Head() != head(t, stored) || l.Ready() != nil {
		t.Errorf("got %s, %v, want %s", l.Head(), l.Ready(), head(t, stored))
	}
	for _, d := range all {
		if d.before != nil {
			t.Error("a draft that is in the log keeps another one")
		}
	}
}

// TestDraftsShown has the host show what it has stored before it says so.
func TestDraftsShown(t *testing.T) {
	l := shown(t, grow(t, nil, fact(1, 2)))
	all := drafts(t, l, 2, 3)
	if _, err := l.Extend(2, append(append([]byte(nil), all[0].Entries...), all[1].Entries...), true); err != nil {
		t.Fatal(err)
	}
	stands(t, l, all[2], 1, true)
	stands(t, l, all[0], 0, true)
	stands(t, l, all[1], 0, true)
}

func TestDraftRefused(t *testing.T) {
	before := grow(t, nil, fact(1, 2))
	theirs := grow(t, before, fact(9, 2))[wire.FactSize:]
	for _, row := range []struct {
		name string
		do   func(t *testing.T, l *Log, all []*Draft)
	}{
		{"another entry has its place", func(t *testing.T, l *Log, all []*Draft) {
			if _, err := l.Extend(2, theirs, true); err != nil {
				t.Fatal(err)
			}
			stands(t, l, all[0], 0, false)
		}},
		{"another entry has the place of one before it", func(t *testing.T, l *Log, all []*Draft) {
			if _, err := l.Extend(2, theirs, true); err != nil {
				t.Fatal(err)
			}
			stands(t, l, all[2], 0, false)
		}},
		{"after one that was dropped, and made anew", func(t *testing.T, l *Log, all []*Draft) {
			l.Drop(all[0])
			d := drafts(t, l, 2, 2)
			if d[0].First != 2 {
				t.Errorf("got entry %d, want 2", d[0].First)
			}
			stands(t, l, d[1], 2, true) // records 2 and 3
			stands(t, l, all[2], 0, false)
		}},
	} {
		t.Run(row.name, func(t *testing.T) {
			l := shown(t, before)
			row.do(t, l, drafts(t, l, 5, 3))
			if err := l.Ready(); err != nil {
				t.Errorf("the log serves no more: %v", err)
			}
			if d := drafts(t, l, 20, 1)[0]; d.First != l.Head().Count+1 {
				t.Errorf("the next draft is entry %d, the log has %d", d.First, l.Head().Count)
			}
		})
	}
}

// TestDraftAfterDrop has drafts of which nobody says any more what became of them:
// one behind them fails, and the next is behind the head.
func TestDraftAfterDrop(t *testing.T) {
	l := shown(t, grow(t, nil, fact(1, 2)))
	all := drafts(t, l, 2, 3)
	l.Drop(all[2])
	next := drafts(t, l, 7, 1)[0]
	if next.First != 2 {
		t.Errorf("got entry %d, want 2", next.First)
	}
	l.Drop(all[1]) // another draft is the last by now
	if d := drafts(t, l, 8, 1)[0]; d.First != 3 {
		t.Errorf("got entry %d, want 3", d.First)
	}
	stands(t, l, next, 1, true)
}

// TestDraftRoom counts drafts, as the table would else be full when they are stored.
func TestDraftRoom(t *testing.T) {
	l := NewLog(&fakeKeys{1, 1}, 3)
	if _, err := l.Extend(1, nil, true); err != nil {
		t.Fatal(err)
	}
	all := drafts(t, l, 1, 3)
	if _, err := l.Draft([]Fact{fact(4, 2)}); !errors.Is(err, ErrFull) {
		t.Errorf("a fourth record: got %v", err)
	}
	stands(t, l, all[2], 3, true)
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
	if _, err := l.Draft([]Fact{fact(3, 3)}); err != nil {
		t.Errorf("a record that is there: got %v", err)
	}
}
