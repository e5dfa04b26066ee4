package core

import "testing"

func TestFloors(t *testing.T) {
	f := newFloors(2)
	kind := func(n byte, simulated bool) platformKind { return platformKind{simulated, [6]byte{n}} }
	for i, row := range []struct {
		kind   platformKind
		number uint32
		want   bool
	}{
		{kind(1, false), 5, true},
		{kind(1, false), 5, true},
		{kind(1, false), 4, false},
		{kind(1, false), 7, true},
		{kind(1, false), 5, false},
		{kind(1, true), 1, true}, // what a simulated fleet states does not count for Intel's machines
		{kind(1, true), 100, true},
		{kind(1, false), 7, true},
		{kind(2, false), 3, true},
		{kind(2, false), 2, false},
		{kind(1, false), 6, false},
		{kind(3, false), 0, true}, // there is no room: kind 1 is forgotten
		{kind(2, false), 2, false},
		{kind(1, false), 1, true}, // kind 2 is forgotten
		{kind(2, false), 1, true}, // kind 3 is forgotten
		{kind(1, false), 0, false},
		{kind(1, true), 99, false}, // a table of its own
	} {
		if got := f.accept(row.kind, row.number); got != row.want {
			t.Errorf("step %d, %v with number %d: got %v, want %v", i, row.kind, row.number, got, row.want)
		}
	}
	if n := len(f.tables[0].numbers); n != 2 {
		t.Errorf("%d kinds are remembered, want 2", n)
	}
}
