package core

import "sync"

// A platformKind is one kind of machine under one trust anchor.
type platformKind struct {
	simulated bool
	fmspc     [6]byte
}

// floors remembers for each kind of platform the highest
// tcbEvaluationDataNumber of collateral that has verified, so that the host
// cannot go back to what Intel said before a TCB recovery while that is still in
// force.
//
// When the table is full the entry that was made first is forgotten, and older
// collateral of that kind is accepted again until newer is seen. Intel has fewer
// kinds than there is room, and simulated ones have a table of their own.
type floors struct {
	mu     sync.Mutex
	limit  int // of each table
	tables [2]floorTable
}

type floorTable struct {
	numbers map[[6]byte]uint32
	order   [][6]byte // ring of the keys of numbers
	next    int
}

func newFloors(limit int) *floors {
	return &floors{limit: limit, tables: [2]floorTable{{numbers: map[[6]byte]uint32{}}, {numbers: map[[6]byte]uint32{}}}}
}

// accept reports whether a number is not below the highest one, and then takes
// note of it.
func (f *floors) accept(kind platformKind, number uint32) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := &f.tables[0]
	if kind.simulated {
		t = &f.tables[1]
	}
	have, known := t.numbers[kind.fmspc]
	if number < have {
		return false
	}
	t.numbers[kind.fmspc] = number
	switch {
	case known:
	case len(t.order) < f.limit:
		t.order = append(t.order, kind.fmspc)
	default:
		delete(t.numbers, t.order[t.next])
		t.order[t.next] = kind.fmspc
		t.next = (t.next + 1) % len(t.order)
	}
	return true
}
