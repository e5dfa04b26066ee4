package provision

import (
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

func waits(n int) verify.Platform {
	return verify.Platform{PPID: [16]byte{byte(n >> 8), byte(n)}, Serial: fmt.Sprintf("%04x", n)}
}

// saved is what Save writes, "" if it does not.
func saved(t *testing.T, w *Waiting, now time.Time) (out string) {
	t.Helper()
	if err := w.Save(now, func(b []byte) error { out = string(b); return nil }); err != nil {
		t.Fatal(err)
	}
	return out
}

// waitingFile is a list as it was written once. Later releases read it.
const waitingFile = `[
  {
    "ppid": "00010000000000000000000000000000",
    "pckSerial": "0001",
    "first": "2026-11-01T00:00:00Z",
    "last": "2026-11-01T00:00:09Z",
    "times": 2,
    "from": "10.0.0.1:2"
  }
]
`

func TestWaitingLasts(t *testing.T) {
	w := NewWaiting()
	if got := saved(t, w, start); got != "" {
		t.Errorf("an empty list is written: %s", got)
	}
	w.Add(waits(1), "10.0.0.1:1", start)
	w.Add(waits(1), "10.0.0.1:2", start.Add(9*time.Second))
	if got := saved(t, w, start.Add(9*time.Second)); got != waitingFile {
		t.Errorf("got %s", got)
	}
	again := NewWaiting()
	if err := again.Load([]byte(waitingFile), start.Add(time.Hour)); err != nil || !reflect.DeepEqual(again.List(), w.List()) {
		t.Errorf("got %+v, %v", again.List(), err)
	}
	// A number alone is written once a minute, a machine at once.
	w.Add(waits(1), "", start.Add(20*time.Second))
	if got := saved(t, w, start.Add(20*time.Second)); got != "" {
		t.Errorf("written again: %s", got)
	}
	if got := saved(t, w, start.Add(2*time.Minute)); !strings.Contains(got, `"times": 3`) {
		t.Errorf("not written after a minute: %s", got)
	}
	w.Add(waits(2), "", start.Add(2*time.Minute))
	if got := saved(t, w, start.Add(2*time.Minute)); !strings.Contains(got, `"pckSerial": "0002"`) {
		t.Errorf("not written at once: %s", got)
	}
	// A full disk loses nothing.
	w.Add(waits(3), "", start.Add(3*time.Minute))
	full := errors.New("no space left on device")
	if err := w.Save(start.Add(3*time.Minute), func([]byte) error { return full }); !errors.Is(err, full) {
		t.Errorf("a full disk: got %v", err)
	}
	if got := saved(t, w, start.Add(3*time.Minute)); !strings.Contains(got, `"pckSerial": "0003"`) {
		t.Errorf("not written when there is room again: %s", got)
	}
	w.Drop(func(ppid manifest.PPID, serial string) bool { return serial == "0002" })
	if got := saved(t, w, start.Add(3*time.Minute)); strings.Contains(got, "0002") || !strings.Contains(got, "0003") {
		t.Errorf("after one was admitted: %s", got)
	}
	// Who does not come any more is forgotten.
	w.Add(waits(3), "", start.Add(20*24*time.Hour))
	if got := saved(t, w, start.Add(31*24*time.Hour)); strings.Contains(got, "0001") || !strings.Contains(got, "0003") {
		t.Errorf("a month later: %s", got)
	}
	if err := again.Load([]byte(waitingFile), start.Add(31*24*time.Hour)); err != nil || len(again.List()) != 0 {
		t.Errorf("loaded a month later: %+v, %v", again.List(), err)
	}
}

// TestWaitingOfTheFuture has dates that are ahead of the clock: they do not keep a
// machine for longer.
func TestWaitingOfTheFuture(t *testing.T) {
	w := NewWaiting()
	if err := w.Load([]byte(waitingFile), start.Add(-time.Hour)); err != nil {
		t.Fatal(err)
	}
	if m := w.List()[0]; !m.Last.Equal(start.Add(-time.Hour)) || m.First.After(m.Last) {
		t.Errorf("got %+v", m)
	}
}

// TestWaitingIsBounded has more machines than fit: those that were first stay.
func TestWaitingIsBounded(t *testing.T) {
	w := NewWaiting()
	for n := range overview.MaxWaiting + 5 {
		w.Add(waits(n+1), strings.Repeat("x", 100)+"\n", start.Add(time.Duration(n)*time.Second))
	}
	all := w.List()
	if len(all) != overview.MaxWaiting || all[0].Serial != "0001" || len(all[0].From) > overview.MaxText {
		t.Errorf("got %d, first %+v", len(all), all[0])
	}
	text := saved(t, w, start)
	if len(text) > MaxWaitingFile {
		t.Errorf("the file has %d bytes", len(text))
	}
	again := NewWaiting()
	if err := again.Load([]byte(text), start.Add(time.Hour)); err != nil || len(again.List()) != len(all) {
		t.Errorf("got %d, %v", len(again.List()), err)
	}
}

func TestWaitingFileRefused(t *testing.T) {
	edit := func(old, new string) string { return strings.Replace(waitingFile, old, new, 1) }
	many := []overview.Waiting{}
	for n := range overview.MaxWaiting + 1 {
		many = append(many, overview.Waiting{PPID: manifest.PPID{byte(n >> 8), byte(n)}, First: start, Last: start, Times: 1})
	}
	tooMany, err := json.Marshal(many)
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"empty": "", "cut": waitingFile[:len(waitingFile)-4], "two": waitingFile + waitingFile, "object": "{}", "unknown member": edit(`"times"`, `"Admit": true, "times"`),
		"no machine": edit("0001000", "000100"), "serial": edit(`"0001"`, `"00g1"`), "never": edit(`"times": 2`, `"times": -1`), "escape": edit("10.0.0.1:2", `\u001b[2J`),
		"first after last": edit("2026-11-01T00:00:00Z", "2026-11-02T00:00:00Z"), "no date": edit(`"first": "2026-11-01T00:00:00Z",`, ""), "a name": edit(`"times"`, `"was": "node 1", "times"`),
		"twice": edit("[\n", "["+strings.TrimSuffix(strings.TrimPrefix(waitingFile, "["), "]\n")+","), "many": string(tooMany), "long": waitingFile + strings.Repeat(" ", MaxWaitingFile),
	} {
		w := NewWaiting()
		w.Add(waits(7), "", start)
		if err := w.Load([]byte(text), start); !errors.Is(err, ErrWaiting) || len(w.List()) != 1 {
			t.Errorf("%s: got %v and %+v", name, err, w.List())
		}
	}
}

func FuzzWaiting(f *testing.F) {
	f.Add([]byte(waitingFile))
	f.Fuzz(func(t *testing.T, b []byte) {
		w := NewWaiting()
		if w.Load(b, start) != nil {
			return
		}
		w.Add(waits(9999), "", start)
		var text []byte
		if err := w.Save(start, func(b []byte) error { text = b; return nil }); err != nil {
			t.Fatal(err)
		}
		again := NewWaiting()
		if err := again.Load(text, start); err != nil || !reflect.DeepEqual(again.List(), w.List()) {
			t.Errorf("%s becomes %s: %v", b, text, err)
		}
	})
}
