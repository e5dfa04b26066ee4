package store_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func TestCheck(t *testing.T) {
	sealed := make([]byte, 16)
	good := wire.Write{ID: wire.RecordID{Type: wire.Key}, Expected: 1, Revision: 2, Sealed: sealed}
	with := func(f func(*wire.Write)) []wire.Write {
		w := good
		f(&w)
		return []wire.Write{good, w}
	}
	for _, tt := range []struct {
		name   string
		writes []wire.Write
		want   string // part of the error, "" if there is none
	}{
		{"nothing", nil, ""},
		{"an update", []wire.Write{good}, ""},
		{"a skipped revision", with(func(w *wire.Write) { w.Revision = 9 }), ""},
		{"highest revision", with(func(w *wire.Write) { w.Revision = store.MaxRevision }), ""},
		{"longest record", with(func(w *wire.Write) { w.Sealed = make([]byte, wire.MaxRecord) }), ""},
		{"most writes", make512(good), ""},
		{"sweep of an app", with(func(w *wire.Write) { w.ID.Type, w.Sweep = wire.App, true }), ""},
		{"no type", with(func(w *wire.Write) { w.ID.Type = 0 }), "record type is unknown"},
		{"unknown type", with(func(w *wire.Write) { w.ID.Type = 200 }), "record type is unknown"},
		{"revision zero", with(func(w *wire.Write) { w.Expected, w.Revision = 0, 0 }), "revision 0 is not above"},
		{"same revision", with(func(w *wire.Write) { w.Revision = 1 }), "revision 1 is not above the expected 1"},
		{"older revision", with(func(w *wire.Write) { w.Expected = 3 }), "revision 2 is not above the expected 3"},
		{"revision too high", with(func(w *wire.Write) { w.Revision = store.MaxRevision + 1 }), "is above 9223372036854775807"},
		{"no bytes", with(func(w *wire.Write) { w.Sealed = nil }), "got 0 sealed bytes, want 16 to 65536"},
		{"too few bytes", with(func(w *wire.Write) { w.Sealed = sealed[1:] }), "got 15 sealed bytes"},
		{"too many bytes", with(func(w *wire.Write) { w.Sealed = make([]byte, wire.MaxRecord+1) }), "got 65537 sealed bytes"},
		{"too many writes", append(make512(good), good), "change of 513 writes, limit 512"},
		{"due secret", with(func(w *wire.Write) { w.ID.Type, w.Due = wire.Secret, 5 }), ""},
		{"due key", with(func(w *wire.Write) { w.Due = 5 }), ""},
		{"due app", with(func(w *wire.Write) { w.ID.Type, w.Due = wire.App, 5 }), "something is due only to a key or a secret"},
		{"due before 1970", with(func(w *wire.Write) { w.ID.Type, w.Due = wire.Secret, -5 }), "due at -5"},
		{"removal", []wire.Write{good, removal(3)}, ""},
		{"removal of all", []wire.Write{good, removal(0)}, ""},
		{"two removals", []wire.Write{removal(1), removal(2)}, ""},
		{"removal of no type", with(func(w *wire.Write) { *w = wire.Write{Remove: true} }), "record type is unknown"},
		{"removal of an unknown type", with(func(w *wire.Write) { *w = wire.Write{ID: wire.RecordID{Type: 200}, Remove: true} }), "record type is unknown"},
		{"removal with a revision", with(func(w *wire.Write) { *w = removal(3); w.Revision = 1 }), "more than a name"},
		{"removal that expects one", with(func(w *wire.Write) { *w = removal(3); w.Expected = 1 }), "more than a name"},
		{"removal with bytes", with(func(w *wire.Write) { *w = removal(3); w.Sealed = sealed }), "more than a name"},
		{"hidden removal", with(func(w *wire.Write) { *w = removal(3); w.Hidden = true }), "more than a name"},
		{"removal with a primary", with(func(w *wire.Write) { *w = removal(3); w.Primary = 1 }), "more than a name"},
		{"removal with a sweep", with(func(w *wire.Write) { *w = removal(3); w.Sweep = true }), "more than a name"},
		{"due removal", with(func(w *wire.Write) { *w = removal(3); w.Due = 1 }), "more than a name"},
		{"removal twice", []wire.Write{removal(1), removal(1)}, "another write of it"},
		{"removal of one and of all", []wire.Write{removal(1), removal(0)}, "another write of it"},
		{"removal of what is written", []wire.Write{version(2), removal(2)}, "another write of it"},
		{"removal of all with one written", []wire.Write{removal(0), version(2)}, "another write of it"},
		{"removal beside another version", []wire.Write{removal(1), version(2)}, ""},
		{"sweep of a key", with(func(w *wire.Write) { w.Sweep = true }), "a sweep is due only to an app"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			err := store.Change{Writes: tt.writes}.Check()
			switch {
			case tt.want == "" && err != nil:
				t.Errorf("Check: got %v, want no error", err)
			case tt.want != "" && (!errors.Is(err, store.ErrInvalid) || !strings.Contains(err.Error(), tt.want)):
				t.Errorf("Check: got %v, want ErrInvalid with %q", err, tt.want)
			}
		})
	}
}

// removal and version are writes of one secret's versions.
func removal(version uint32) wire.Write {
	return wire.Write{ID: wire.RecordID{Type: wire.SecretVersion, Version: version}, Remove: true}
}

func version(n uint32) wire.Write {
	return wire.Write{ID: wire.RecordID{Type: wire.SecretVersion, Version: n}, Revision: 1, Sealed: make([]byte, 16)}
}

func make512(w wire.Write) []wire.Write {
	ws := make([]wire.Write, wire.MaxWrites)
	for i := range ws {
		ws[i] = w
	}
	return ws
}
