package secret

import (
	"bytes"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
)

// marker is what no output may contain, in any of the ways a byte slice prints.
const marker = "marker-material"

func leaks(s string) bool {
	return strings.Contains(s, marker) ||
		strings.Contains(s, fmt.Sprint([]byte(marker))) ||
		strings.Contains(s, fmt.Sprintf("%x", marker)) ||
		strings.Contains(strings.ToLower(s), fmt.Sprintf("%#x", marker[0]))
}

func TestBytesNeverPrint(t *testing.T) {
	s := New([]byte(marker))
	type outer struct {
		Name   string
		Public Bytes
		hidden Bytes
		ptr    *Bytes
	}
	values := map[string]any{
		"value": s, "pointer": &s, "slice": []Bytes{s}, "map": map[string]Bytes{"k": s},
		"nested": outer{"n", s, s, &s}, "nested pointer": &outer{"n", s, s, &s},
	}
	for name, v := range values {
		for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%t"} {
			if out := fmt.Sprintf(verb, v); leaks(out) {
				t.Errorf("%s under %s prints the material: %s", name, verb, out)
			}
		}
		var log bytes.Buffer
		slog.New(slog.NewTextHandler(&log, nil)).Info("x", "v", v)
		slog.New(slog.NewJSONHandler(&log, nil)).Info("x", "v", v)
		if leaks(log.String()) {
			t.Errorf("%s in slog prints the material: %s", name, log.String())
		}
	}
}

func TestBytesRefuseEncoding(t *testing.T) {
	s := New([]byte(marker))
	if _, err := json.Marshal(struct{ K Bytes }{s}); !errors.Is(err, ErrMarshal) {
		t.Errorf("json.Marshal: got %v, want ErrMarshal", err)
	}
	if err := gob.NewEncoder(&bytes.Buffer{}).Encode(s); !errors.Is(err, ErrMarshal) {
		t.Errorf("gob: got %v, want ErrMarshal", err)
	}
}

func TestOwnership(t *testing.T) {
	b := []byte(marker)
	s, c := New(b), Copy(b)
	s.Zero()
	if !bytes.Equal(b, make([]byte, len(b))) {
		t.Error("Zero did not overwrite the owned slice")
	}
	if string(c.Expose()) != marker {
		t.Error("Copy shares memory with its argument")
	}
	if s.Equal(c) || !c.Equal(New([]byte(marker))) {
		t.Error("Equal is wrong")
	}
	var zero Bytes
	zero.Zero()
	if zero.Len() != 0 || !zero.Equal(New(nil)) {
		t.Error("the zero value is not empty")
	}
}
