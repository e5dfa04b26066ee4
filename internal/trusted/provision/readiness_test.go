package provision

import (
	"encoding/hex"
	"errors"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// TestStateEncoding has each answer in hex.
func TestStateEncoding(t *testing.T) {
	for name, row := range map[string]struct {
		state State
		want  string
	}{
		"alone":      {State{Readiness: Alone}, "00000012" + "01" + "01" + "0000000000000000" + "00000000" + "00000000"},
		"introduced": {State{Readiness: Introduced, Manifest: 7}, "00000012" + "01" + "02" + "0000000000000007" + "00000000" + "00000000"},
		"ready":      {State{Ready, 7, 2, time.Hour}, "00000012" + "01" + "03" + "0000000000000007" + "00000002" + "00000e10"},
	} {
		b := row.state.encode()
		if got := hex.EncodeToString(b); got != row.want {
			t.Errorf("%s: got %s, want %s", name, got, row.want)
		}
		if got, err := decodeState(b[4:]); err != nil || got != row.state {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	good := State{Ready, 7, 2, time.Hour}.encode()[4:]
	for name, change := range map[string]func([]byte) []byte{
		"empty":               func([]byte) []byte { return nil },
		"cut":                 func(b []byte) []byte { return b[:len(b)-1] },
		"trailing byte":       func(b []byte) []byte { return append(b, 0) },
		"other format":        func(b []byte) []byte { b[0] = 2; return b },
		"readiness 0":         func(b []byte) []byte { b[1] = 0; return b },
		"readiness 4":         func(b []byte) []byte { b[1] = 4; return b },
		"waits, with a key":   func(b []byte) []byte { b[1] = 2; return b },
		"alone in a domain":   func(b []byte) []byte { b[1] = 1; b[13] = 0; return b },
		"ready without a key": func(b []byte) []byte { b[13] = 0; return b },
	} {
		if s, err := decodeState(change(append([]byte(nil), good...))); !errors.Is(err, ErrMessage) || s != (State{}) {
			t.Errorf("%s: got %+v, %v", name, s, err)
		}
	}
}

func FuzzDecodeState(f *testing.F) {
	f.Add(State{Ready, 7, 2, time.Hour}.encode()[4:])
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := decodeState(b); err == nil && string(s.encode()[4:]) != string(b) {
			t.Errorf("%x: another encoding of %+v", b, s)
		}
	})
}

// TestReadiness asks a dkeycache on its way, and a dkeyserver, which does not say.
func TestReadiness(t *testing.T) {
	a := newRealm(t)
	known, holder := NewKnown(a.last.Domain, clock), NewHolder(heap)
	cache := newProgram(t, 0, channel.DKeyCache, known, holder)
	address := cache.serve(t)
	ask := func(address string) (State, error) {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		return AskState(t.Context(), conn)
	}
	if s, err := ask(address); err != nil || s != (State{Readiness: Alone}) {
		t.Errorf("at first: got %+v, %v", s, err)
	}
	if _, err := known.Learn(a.files); err != nil {
		t.Fatal(err)
	}
	if s, err := ask(address); err != nil || s != (State{Readiness: Introduced, Manifest: 1}) {
		t.Errorf("with manifests: got %+v, %v", s, err)
	}
	server := newProgram(t, 1, channel.DKeyServer, a.knowing(t), a.rooted(t)).serve(t)
	cache.join(t, server)
	cache.has(t, a)
	await(t, "a lease", func() bool {
		s, err := ask(address)
		return err == nil && s.Readiness == Ready && s.Manifest == 1 && s.DomainKey == 1 && s.Lease > 71*time.Hour && s.Lease <= 72*time.Hour
	})
	holder.Lose(ErrLease)
	if s, err := ask(address); err != nil || s.Readiness != Introduced {
		t.Errorf("after its loss: got %+v, %v", s, err)
	}
	if s, err := ask(server); err == nil {
		t.Errorf("a dkeyserver says %+v", s)
	}
}

func TestSaid(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s said
		for i, row := range []struct {
			who, text string
			after     time.Duration
			want      bool
		}{
			{"a", "refused", 0, true},
			{"a", "refused", time.Minute, false},
			{"b", "refused", 0, true},
			{"a", "refused", 0, false},
			{"a", "read 10.0.0.1:1234->10.0.0.2:8888: reset", 0, true},
			{"a", "read 10.0.0.1:1235->10.0.0.2:8888: reset", 0, false},
			{"a", "refused", 0, true},
			{"a", "refused", time.Hour, true},
		} {
			time.Sleep(row.after)
			if got := s.news(row.who, row.text); got != row.want {
				t.Errorf("%d: got %v", i, got)
			}
		}
		s.forget("a")
		if !s.news("a", "refused") {
			t.Error("forgotten: no news")
		}
	})
}

// TestStateOfAnImpostor has somebody else at the socket, who announces a long answer:
// it is refused before there is memory for it.
func TestStateOfAnImpostor(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	go func() {
		theirs.Read(make([]byte, 1))
		theirs.Write([]byte{0, 0, 0, maxState + 1})
		theirs.Write(make([]byte, maxState+1)) // until the pipe is closed
	}()
	if s, err := AskState(t.Context(), ours); !errors.Is(err, ErrMessage) || !strings.Contains(err.Error(), "limit 64") || s != (State{}) {
		t.Errorf("got %+v, %v", s, err)
	}
}
