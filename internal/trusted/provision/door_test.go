package provision

import (
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// open serves the program's door and returns a connection to it.
func (p *program) door(t *testing.T, keep func(*Domain) error) net.Conn {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	if len(path) > 107 {
		t.Fatal("the temporary directory has too long a path for a socket")
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	d := &Door{Domain: p.known.Get, Holder: p.holder, Self: p.self, Members: p.members, Waiting: p.waiting, Keep: keep, Log: p.log, Server: overview.Server{Kind: "root", Release: "v", Started: start}}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error)
	go func() { done <- d.Serve(ctx, ln) }()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		conn.Close()
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return conn
}

// knock asks at a door.
func knock(t *testing.T, conn net.Conn, k overview.DoorKind, body []byte) (*overview.DoorRequest, *overview.DoorAnswer) {
	t.Helper()
	q := overview.NewDoorRequest(k, body)
	if err := overview.WriteFrame(conn, q.Encode()); err != nil {
		t.Fatal(err)
	}
	b, err := overview.ReadFrame(conn, overview.MaxAnswer)
	if err != nil {
		t.Fatal(err)
	}
	a, err := overview.ParseDoorAnswer(b)
	if err != nil {
		t.Fatal(err)
	}
	return q, a
}

func kept(*Domain) error { return nil }

// TestDoor has what an operator sees, signed with the domain's key.
func TestDoor(t *testing.T) {
	a := newRealm(t)
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	root.waiting.Add(waits(7), "10.0.0.7:1", start)
	cache := newProgram(t, 1, channel.DKeyCache, NewKnown(a.last.Domain, clock), NewHolder(heap))
	cache.join(t, root.serve(t))
	await(t, "a dkeycache", func() bool { return len(root.members.list(overview.ID{})) == 1 })
	conn := root.door(t, kept)
	key := ed25519.PublicKey(a.last.DomainKey)
	q, answer := knock(t, conn, overview.AskStatus, nil)
	if err := answer.Verify(q, key); err != nil {
		t.Error(err)
	}
	s, err := overview.ParseStatus(answer.Payload)
	if err != nil {
		t.Fatal(err)
	}
	if s.Domain.ID != manifest.Hash(a.last.Domain) || s.Key.Version != 1 || s.Manifest.Version != 1 || !s.At.Equal(start) || len(s.Manifest.Signers) != 1 ||
		len(s.Members) != 2 || s.Members[0].Instance != root.self.instance || s.Members[0].Machine != "one" || s.Members[1].Machine != "two" ||
		len(s.Waiting) != 1 || s.Waiting[0].From != "10.0.0.7:1" {
		t.Errorf("got %+v", s)
	}
	q, answer = knock(t, conn, overview.AskManifests, binary.BigEndian.AppendUint64(nil, 0))
	if err := answer.Verify(q, key); err != nil {
		t.Error(err)
	}
	if list, err := overview.ParseManifests(answer.Payload); err != nil || len(list) != 1 || string(list[0]) != string(a.files[0]) {
		t.Errorf("manifests: got %d, %v", len(list), err)
	}
	for name, row := range map[string]struct {
		kind overview.DoorKind
		body []byte
		says string
	}{
		"unknown request":       {77, nil, "request 77 is unknown to this release"},
		"status with more":      {overview.AskStatus, []byte{0}, "trailing"},
		"manifests of what":     {overview.AskManifests, nil, "version of 0 bytes"},
		"manifests of too much": {overview.AskManifests, make([]byte, 9), "version of 9 bytes"},
		"no manifest":           {overview.Submit, []byte("x"), "invalid manifest"},
		"nothing":               {overview.Submit, nil, "invalid manifest"},
	} {
		q, answer := knock(t, conn, row.kind, row.body)
		if err := answer.Verify(q, key); err != nil || !answer.Refused || !strings.Contains(string(answer.Payload), row.says) {
			t.Errorf("%s: got %q, %v", name, answer.Payload, err)
		}
	}
	// What is no request ends the connection, and nothing else.
	if err := overview.WriteFrame(conn, []byte{1, 0}); err != nil {
		t.Fatal(err)
	}
	if b, err := overview.ReadFrame(conn, overview.MaxAnswer); err == nil {
		t.Errorf("no request: got %x", b)
	}
	if _, answer := knock(t, root.door(t, kept), overview.AskStatus, nil); answer.Refused {
		t.Errorf("the next guest: got %q", answer.Payload)
	}
}

// TestDoorTakesWhatVerifies submits manifests.
func TestDoorTakesWhatVerifies(t *testing.T) {
	a, other := newRealm(t), newRealm(t)
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	var disk error
	conn := root.door(t, func(*Domain) error { return disk })
	first := a.last
	good := a.next(t, func(s *manifest.Statement) { s.Settings.RequestWindow = 100 })
	unsigned, err := manifest.Parse(good)
	if err != nil {
		t.Fatal(err)
	}
	unsigned.Signatures = []manifest.Signature{}
	short, err := unsigned.Encode()
	if err != nil {
		t.Fatal(err)
	}
	forger := &realm{operator: other.operator}
	for _, row := range []struct {
		name, says string
		file       []byte
	}{
		{"a signature short", manifest.ErrQuorum.Error(), short},
		{"forged", manifest.ErrSigner.Error(), forger.follow(t, first, nil)},
		{"of another domain", manifest.ErrDomain.Error(), other.next(t, nil)},
		{"one left out", manifest.ErrPrevious.Error(), a.follow(t, a.last, nil)},
	} {
		_, answer := knock(t, conn, overview.Submit, row.file)
		if !answer.Refused || !strings.Contains(string(answer.Payload), row.says) || root.known.Get().Manifest() != 1 {
			t.Errorf("%s: got %q, version %d", row.name, answer.Payload, root.known.Get().Manifest())
		}
	}
	for _, row := range []struct {
		name string
		want overview.Submitted
		disk error
	}{
		{"good, and a full disk", overview.Submitted{New: true, Unwritten: "full"}, errors.New("full")},
		{"again", overview.Submitted{}, nil},
	} {
		disk = row.disk
		row.want.Version, row.want.Hash = 2, a.last.Hash
		_, answer := knock(t, conn, overview.Submit, good)
		if got, err := overview.ParseSubmitted(answer.Payload); err != nil || *got != row.want {
			t.Errorf("%s: got %q, %v", row.name, answer.Payload, err)
		}
	}
	knock(t, conn, overview.Submit, a.next(t, nil))
	if _, answer := knock(t, conn, overview.Submit, good); !answer.Refused || !strings.Contains(string(answer.Payload), "version 3 is in force") {
		t.Errorf("old: got %q", answer.Payload)
	}
}

// TestDoorWithoutKeys says what it is waiting for, and signs nothing.
func TestDoorWithoutKeys(t *testing.T) {
	a := newRealm(t)
	for _, row := range []struct {
		name    string
		known   *Known
		refused bool
	}{
		{"no domain", NewKnown(a.last.Domain, clock), true},
		{"no DomainKey", a.knowing(t), false},
	} {
		worker := newProgram(t, 0, channel.DKeyServer, row.known, NewHolder(heap))
		_, answer := knock(t, worker.door(t, kept), overview.AskStatus, nil)
		if answer.Refused != row.refused || len(answer.Signature) != 0 {
			t.Errorf("%s: got %+v", row.name, answer)
		}
	}
	h := a.rooted(t)
	h.Lose(ErrRemoved)
	lost := newProgram(t, 0, channel.DKeyServer, a.knowing(t), h)
	_, answer := knock(t, lost.door(t, kept), overview.AskStatus, nil)
	s, err := overview.ParseStatus(answer.Payload)
	if err != nil || len(answer.Signature) != 0 || s.Key.Version != 0 || !strings.Contains(s.Key.Lost, "does not admit") {
		t.Errorf("lost: got %+v, %v", s, err)
	}
}

// TestStatusKnowsWhoWasRemoved has a member that was away when it was removed, and
// that waits now.
func TestStatusKnowsWhoWasRemoved(t *testing.T) {
	a := newRealm(t)
	root := newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t))
	d := root.known.Get()
	id := load(t, 1, channel.DKeyCache, signerSeed).Identity()
	m := overview.Member{Instance: overview.ID{1}, Role: "dkeycache", State: overview.Left, Evidence: overview.ByQuote, PPID: ppid(t, 1), MRSigner: id.Signer, MREnclave: id.Measurement, Product: id.Product, SVN: id.SVN}
	root.members.mu.Lock()
	root.members.put(m, root.self.instance, time.Now())
	root.members.mu.Unlock()
	root.waiting.Add(machine(t, 1).Terms(start).Platform, "", start)
	door := &Door{Holder: root.holder, Self: root.self, Members: root.members, Waiting: root.waiting}
	if s := door.status(t.Context(), d); s.Members[1].State != overview.Left || s.Members[1].Machine != "two" {
		t.Errorf("before: got %+v", s.Members[1])
	}
	if _, err := d.Add([][]byte{a.next(t, func(s *manifest.Statement) { s.Settings.Platforms = s.Settings.Platforms[:1] })}); err != nil {
		t.Fatal(err)
	}
	s := door.status(t.Context(), d)
	if s.Members[1].State != overview.Removed || s.Waiting[0].Was != "two" {
		t.Errorf("after: got %+v and %+v", s.Members[1], s.Waiting)
	}
	if d.Names(ppid(t, 1), "") || !d.Names(ppid(t, 0), "") {
		t.Error("Names does not follow the manifest")
	}
}
