package facts

import (
	"errors"
	"slices"
	"testing"
)

func numbered(n uint64, branch byte) Head { return Head{n, [32]byte{byte(n), branch}} }

func TestAnchor(t *testing.T) {
	at := func(n uint64) Head { return numbered(n, 1) }
	other := func(n uint64) Head { return numbered(n, 2) }
	for name, row := range map[string]struct {
		told  Statement
		binds bool
		head  Head
		ask   []Head
		fork  bool
	}{
		"nothing":                        {Statement{}, true, at(5), nil, false},
		"the same":                       {Statement{Head: at(5)}, true, at(5), nil, false},
		"one that follows":               {Statement{Head: at(9), Proven: []Head{at(5)}}, false, at(9), nil, false},
		"one that follows among others":  {Statement{Head: at(9), Proven: []Head{at(2), at(5), at(7)}}, false, at(9), nil, false},
		"one that is said to follow":     {Statement{Head: at(9), Proven: []Head{at(4)}}, false, at(5), nil, false},
		"one of which nobody knows":      {Statement{Head: at(9)}, false, at(5), nil, false},
		"one of which cores are asked":   {Statement{Head: at(9)}, true, at(5), []Head{at(9)}, false},
		"others are asked, so is he":     {Statement{Head: at(5), Ask: []Head{at(7)}}, true, at(5), []Head{at(7)}, false},
		"clients do not ask":             {Statement{Head: at(5), Ask: []Head{at(7)}}, false, at(5), nil, false},
		"a lower one":                    {Statement{Head: at(3)}, false, at(5), nil, false},
		"a lower one, of a dkeyserver":   {Statement{Head: at(3)}, true, at(5), []Head{at(3)}, false},
		"a lower one that knows this":    {Statement{Head: at(3), Proven: []Head{at(5)}}, false, at(5), nil, false},
		"another one":                    {Statement{Head: other(5)}, false, at(5), nil, true},
		"another one, of a dkeyserver":   {Statement{Head: other(5)}, true, at(5), []Head{other(5)}, true},
		"another one is on its chain":    {Statement{Head: other(9), Proven: []Head{other(5)}}, false, at(5), nil, true},
		"another one beside the present": {Statement{Head: other(9), Proven: []Head{at(5), other(4), at(4)}}, false, other(9), nil, false},
	} {
		a := NewAnchor(at(5))
		err := a.Hear(row.told, row.binds)
		if errors.Is(err, ErrFork) != row.fork || errors.Is(a.Fork(), ErrFork) != row.fork {
			t.Errorf("%s: got %v, %v", name, err, a.Fork())
		}
		if got := a.Say(Statement{}); got.Head != row.head || !slices.Equal(got.Ask, row.ask) {
			t.Errorf("%s: got %v, want %v asking %v", name, got, row.head, row.ask)
		}
	}
}

// What an anchor has been at it knows to be on its chain.
func TestAnchorProves(t *testing.T) {
	a := NewAnchor(numbered(1, 1))
	changed := a.Changed()
	a.Hear(Statement{Head: numbered(4, 1), Proven: []Head{numbered(1, 1), numbered(3, 1)}}, false)
	select {
	case <-changed:
	default:
		t.Error("a higher head: not told")
	}
	for name, row := range map[string]struct {
		told Head
		want []Head
	}{
		"where it was":     {numbered(1, 1), []Head{numbered(1, 1)}},
		"between":          {numbered(3, 1), []Head{numbered(3, 1)}},
		"where it is":      {numbered(4, 1), nil},
		"what nobody said": {numbered(2, 1), nil},
		"nowhere":          {Head{}, nil},
		"beyond":           {numbered(5, 1), nil},
	} {
		if got := a.Say(Statement{Head: row.told}); !slices.Equal(got.Proven, row.want) {
			t.Errorf("%s: got %v, want %v", name, got.Proven, row.want)
		}
	}
	if err := a.Hear(Statement{Head: numbered(9, 2), Proven: []Head{numbered(3, 2)}}, false); !errors.Is(err, ErrFork) {
		t.Errorf("another head on its chain: got %v, want ErrFork", err)
	}
}

// An anchor without a head takes the first that it is told.
func TestFirstHead(t *testing.T) {
	a := NewAnchor(Head{})
	if err := a.Hear(Statement{Head: numbered(7, 1)}, false); err != nil || a.Head() != numbered(7, 1) {
		t.Errorf("got %v, %s", err, a.Head())
	}
}

// Lists are bounded whatever is said.
func TestAnchorBounds(t *testing.T) {
	a := NewAnchor(numbered(1, 1))
	for n := uint64(1); n < 1000; n++ {
		a.Hear(Statement{Head: numbered(n+1, 1), Proven: []Head{numbered(n, 1)}}, true)
		a.Hear(Statement{Head: numbered(n+5000, 1)}, true)
	}
	if a.Head() != numbered(1000, 1) || len(a.chain) != maxChain || len(a.ask) != MaxHeads {
		t.Errorf("got %s, %d, %d", a.Head(), len(a.chain), len(a.ask))
	}
}
