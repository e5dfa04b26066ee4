package overview

import (
	"errors"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func TestFactsStatus(t *testing.T) {
	with := func(f Facts) *Status {
		s := recoverable(func(*Recovery) {})
		s.Facts = &f
		return s
	}
	s := with(Facts{Entries: 7, Hash: manifest.Hash{1}, Unproven: []uint64{9}})
	b, err := s.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := ParseStatus(b); err != nil || got.Facts == nil || got.Facts.Entries != 7 || got.Facts.Hash != s.Facts.Hash || !slices.Equal(got.Facts.Unproven, []uint64{9}) {
		t.Errorf("got %+v, %v", got, err)
	}
	if warned(s, "facts-fork") {
		t.Error("warns of a log that is not forked")
	}
	if s.Facts.Fork = "two heads"; !warned(s, "facts-fork") {
		t.Error("does not warn of a fork")
	}
	for name, s := range map[string]*Status{
		"escape sequence": with(Facts{Fork: "\x1b[2J"}),
		"many heads":      with(Facts{Unproven: make([]uint64, 9)}),
	} {
		if err := s.validate(); !errors.Is(err, ErrStatus) {
			t.Errorf("%s: got %v, want ErrStatus", name, err)
		}
	}
}

func warned(s *Status, code string) bool {
	return slices.ContainsFunc(s.Warnings(), func(w Warning) bool { return w.Code == code })
}
