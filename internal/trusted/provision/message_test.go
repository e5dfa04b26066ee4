package provision

import (
	"bytes"
	"encoding/hex"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

var sample = Report{Manifest: 0x0102, Keys: 3, Floor: time.Unix(0x65000000, 0).UTC(), Lease: 72 * time.Hour}

// known are messages written out by hand. Add lines, never change one.
var known = []struct {
	name string
	m    message
	hex  string
}{
	{"heartbeat", message{kind: heartbeat, report: sample}, "0101" + "0000000000000102" + "00000003" + "0000000065000000" + "0003f480"},
	{"status", message{kind: status, report: sample}, "0181" + "0000000000000102" + "00000003" + "0000000065000000" + "0003f480"},
	{"nothing yet", message{kind: heartbeat, report: Report{Floor: time.Unix(0, 0).UTC()}}, "0101" + strings.Repeat("00", 24)},
	{"get keys", message{kind: getKeys}, "0102"},
	{"get manifests", message{kind: getManifests, after: 7}, "0103" + "0000000000000007"},
	{"put manifests", message{kind: putManifests, files: [][]byte{[]byte("ab"), []byte("c")}}, "0104" + "00000002" + "00000002" + "6162" + "00000001" + "63"},
	{"keys", message{kind: keys, sealed: []byte{9, 8}}, "0182" + "00000002" + "0908"},
	{"manifests", message{kind: manifests, files: [][]byte{[]byte("ab")}}, "0183" + "00000001" + "00000002" + "6162"},
	{"no manifests", message{kind: manifests, files: [][]byte{}}, "0183" + "00000000"},
	{"not yet", message{kind: refused, reason: notYet}, "018401"},
	{"removed", message{kind: refused, reason: removed}, "018402"},
	{"tell members", message{kind: tellMembers, members: []overview.Member{someone()}}, "0105" + someoneHex},
	{"members", message{kind: members, members: []overview.Member{someone()}}, "0185" + someoneHex},
	{"tell heads", message{kind: tellHeads, heads: facts.Statement{Head: facts.Head{Count: 2, Hash: [32]byte{9}}, Proven: []facts.Head{{}}}},
		"0106" + "0000000000000002" + "09" + strings.Repeat("00", 31) + "01" + strings.Repeat("00", 40) + "00"},
	{"heads", message{kind: heads, heads: facts.Statement{Ask: []facts.Head{{Count: 1, Hash: [32]byte{8}}}}},
		"0186" + strings.Repeat("00", 40) + "00" + "01" + "0000000000000001" + "08" + strings.Repeat("00", 31)},
}

func TestKnownMessages(t *testing.T) {
	for _, row := range known {
		want, err := hex.DecodeString(row.hex)
		if err != nil {
			t.Fatal(err)
		}
		if got := row.m.append(nil); !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, want %x", row.name, got, want)
		}
		if got, err := decode(want); err != nil || !reflect.DeepEqual(got, row.m) {
			t.Errorf("%s: decoded to %+v, %v", row.name, got, err)
		}
		for n := range want {
			if _, err := decode(want[:n]); !errors.Is(err, ErrMessage) {
				t.Errorf("%s: cut to %d bytes: got %v", row.name, n, err)
			}
		}
		if _, err := decode(append(want, 0)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: a byte more: got %v", row.name, err)
		}
	}
}

func TestMalformedMessages(t *testing.T) {
	for name, text := range map[string]string{
		"format 0":                  "0002",
		"format 2":                  "0202",
		"kind 0":                    "0100",
		"kind 6":                    "0106",
		"kind 0x80":                 "0180",
		"kind 0x86":                 "0186",
		"reason 0":                  "018400",
		"reason 3":                  "018403",
		"date before 1970":          "0101" + "0000000000000001" + "00000000" + "ffffffffffffffff" + "00000000",
		"date after 9999":           "0181" + "0000000000000001" + "00000000" + "0000003afff44180" + "00000000",
		"more files than there are": "0183" + "00000002" + "00000000",
		"very many files":           "0183" + "ffffffff",
		"very many members":         "0105" + "ffffffff",
		"members that are missing":  "0185" + "00000002" + someoneHex[8:],
		"a file that is too long":   "0104" + "00000001" + "00100000" + "00",
		"keys that are too long":    "0182" + "7fffffff" + "00",
		"no length of keys":         "0182",
		"get keys with more":        "010200",
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if m, err := decode(b); !errors.Is(err, ErrMessage) || !reflect.DeepEqual(m, message{}) {
			t.Errorf("%s: got %+v, %v", name, m, err)
		}
	}
}

// TestFitting has lists that a message has room for, and what is left of others.
func TestFitting(t *testing.T) {
	half := make([]byte, maxList/2)
	for _, row := range []struct {
		name  string
		files [][]byte
		want  int
	}{
		{"none", nil, 0}, {"one", [][]byte{half}, 1}, {"two that are too long", [][]byte{half, half}, 1},
		{"the longest", [][]byte{make([]byte, maxManifest)}, 1},
	} {
		got := fitting(row.files)
		m := message{kind: manifests, files: got}
		if len(got) != row.want || len(m.append(nil)) > channel.MaxMessage {
			t.Errorf("%s: got %d in %d bytes", row.name, len(got), len(m.append(nil)))
		}
		if _, err := decode(m.append(nil)); err != nil {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, row := range known {
		b, _ := hex.DecodeString(row.hex)
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decode(b)
		if err == nil && !bytes.Equal(m.append(nil), b) {
			t.Errorf("%x encodes to %x", b, m.append(nil))
		}
	})
}

// pipe is what a client writes to and reads from before a channel.
type pipe struct {
	bytes.Buffer
	in *bytes.Reader
}

func (p *pipe) Read(b []byte) (int, error) { return p.in.Read(b) }

func ask(answer []byte) ([][]byte, error) {
	return askForManifests(&pipe{in: bytes.NewReader(answer)})
}

func TestIntroduction(t *testing.T) {
	files := [][]byte{[]byte("genesis"), []byte("next")}
	encoded := encodeChain(files)
	want, _ := hex.DecodeString("00000018" + "01" + "00000002" + "00000007" + hex.EncodeToString(files[0]) + "00000004" + hex.EncodeToString(files[1]))
	if !bytes.Equal(encoded, want) {
		t.Errorf("got %x, want %x", encoded, want)
	}
	if got, err := ask(encoded); err != nil || !reflect.DeepEqual(got, files) {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := ask(encodeChain(nil)); err != nil || len(got) != 0 {
		t.Errorf("nothing yet: got %q, %v", got, err)
	}
	long := make([][]byte, 20)
	for i := range long {
		long[i] = make([]byte, maxManifest)
	}
	if got, err := ask(encodeChain(long)); err != nil || len(got) != 16 {
		t.Errorf("too many: got %d, %v", len(got), err)
	}
	for n := range encoded {
		if _, err := ask(encoded[:n]); err == nil {
			t.Errorf("cut to %d bytes: no error", n)
		}
	}
	for name, text := range map[string]string{
		"too long": "01000001", "format": "0000000502" + "00000000", "bytes left over": "00000006" + "01" + "00000000" + "00", "empty": "00000000",
	} {
		b, _ := hex.DecodeString(text)
		if _, err := ask(b); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func FuzzIntroduction(f *testing.F) {
	f.Add(encodeChain([][]byte{[]byte("genesis")})[4:])
	f.Fuzz(func(t *testing.T, b []byte) {
		files, err := decodeChain(b)
		if err == nil && !bytes.Equal(encodeChain(files)[4:], b) {
			t.Errorf("%x encodes to %x", b, encodeChain(files))
		}
	})
}
