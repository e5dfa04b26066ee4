package wire

import (
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

func TestStatsEncoding(t *testing.T) {
	var s Stats
	for i, f := range s.fields() {
		*f = uint64(i + 1)
	}
	if n := reflect.TypeFor[Stats]().NumField(); n != len(s.fields()) {
		t.Errorf("%d fields are encoded, want %d", len(s.fields()), n)
	}
	b := s.Append(nil)
	if got, want := hex.EncodeToString(b[:17]), "01"+strings.Repeat("0", 15)+"1"+strings.Repeat("0", 15)+"2"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
	if got, err := DecodeStats(b); err != nil || got != s {
		t.Errorf("got %+v, %v, want %+v", got, err, s)
	}
	for name, bad := range map[string][]byte{
		"empty": {}, "other format": append([]byte{2}, b[1:]...), "cut": b[:len(b)-1], "longer": append(b[:len(b):len(b)], 0),
	} {
		if _, err := DecodeStats(bad); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func FuzzDecodeStats(f *testing.F) {
	f.Add(Stats{Answered: 1}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeStats(b); err == nil && string(s.Append(nil)) != string(b) {
			t.Error("stats do not re-encode to the bytes they came from")
		}
	})
}
