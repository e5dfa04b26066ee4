package wire

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

func TestFactsEncoding(t *testing.T) {
	f := &Facts{First: 3, Entries: bytes.Repeat([]byte{5}, 2*FactSize), End: true}
	want := "01" + "0000000000000003" + "000000b4" + strings.Repeat("05", 180) + "01"
	if got := hex.EncodeToString(f.Append(nil)); got != want {
		t.Errorf("facts: got %s, want %s", got, want)
	}
	if got, err := DecodeFacts(f.Append(nil)); err != nil || !reflect.DeepEqual(got, f) {
		t.Errorf("facts: got %+v, %v", got, err)
	}
	s := FactsState{1, 2, 3, 4, true, "x"}
	want = "01" + "0000000000000001" + "0000000000000002" + "0000000000000003" + "0000000000000004" + "01" + "0001" + "78"
	if got := hex.EncodeToString(s.Append(nil)); got != want {
		t.Errorf("state: got %s, want %s", got, want)
	}
	if got, err := DecodeFactsState(s.Append(nil)); err != nil || got != s {
		t.Errorf("state: got %+v, %v", got, err)
	}
	a := &Answer{Kind: Pending, NeedFacts: true, Facts: &NewFacts{7, [16]byte{8}, bytes.Repeat([]byte{6}, FactSize)}}
	if got, err := DecodeAnswer(a.Append(nil)); err != nil || !reflect.DeepEqual(got, a) {
		t.Errorf("answer: got %+v, %v", got, err)
	}
	s.Trouble = strings.Repeat("x", 2*maxTrouble)
	if got, err := DecodeFactsState(s.Append(nil)); err != nil || len(got.Trouble) != maxTrouble {
		t.Errorf("a long text: got %d bytes, %v", len(got.Trouble), err)
	}
}

func TestFactsRefused(t *testing.T) {
	for name, m := range map[string]struct {
		b      []byte
		decode func([]byte) error
	}{
		"facts": {(&Facts{First: 1, Entries: make([]byte, FactSize)}).Append(nil), func(b []byte) error { _, err := DecodeFacts(b); return err }},
		"state": {FactsState{Trouble: "x"}.Append(nil), func(b []byte) error { _, err := DecodeFactsState(b); return err }},
	} {
		for n := range m.b {
			if err := m.decode(m.b[:n]); !errors.Is(err, pack.ErrMalformed) {
				t.Errorf("%s cut to %d bytes: got %v, want malformed", name, n, err)
			}
		}
		if err := m.decode(append(bytes.Clone(m.b), 0)); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("%s with a trailing byte: got %v, want malformed", name, err)
		}
	}
	for name, f := range map[string]*Facts{
		"half an entry": {Entries: make([]byte, FactSize+FactSize/2)},
		"too many":      {Entries: make([]byte, (MaxFacts+1)*FactSize)},
	} {
		if _, err := DecodeFacts(f.Append(nil)); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("%s: got %v, want malformed", name, err)
		}
	}
	for name, f := range map[string]*NewFacts{
		"none":       {First: 1},
		"number 0":   {Entries: make([]byte, FactSize)},
		"half a one": {First: 1, Entries: make([]byte, FactSize/2)},
		"too many":   {First: 1, Entries: make([]byte, (MaxNewFacts+1)*FactSize)},
	} {
		if _, err := DecodeAnswer((&Answer{Kind: Final, Facts: f}).Append(nil)); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("answer with %s: got %v, want malformed", name, err)
		}
	}
}

func FuzzDecodeFacts(f *testing.F) {
	f.Add((&Facts{First: 1, Entries: make([]byte, FactSize), End: true}).Append(nil))
	f.Add(FactsState{Count: 3, Trouble: "x"}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if m, err := DecodeFacts(b); err == nil && !bytes.Equal(m.Append(nil), b) {
			t.Error("facts do not re-encode to the bytes they came from")
		}
		if s, err := DecodeFactsState(b); err == nil && !bytes.Equal(s.Append(nil), b) {
			t.Error("the state does not re-encode to the bytes it came from")
		}
	})
}
