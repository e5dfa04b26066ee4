package main

import (
	"bytes"
	"context"
	"crypto/ed25519"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// A fakeDoor answers as a dkeyserver does, or as a host that lies. It knows the
// manifests of a directory.
type fakeDoor struct {
	mu     sync.Mutex
	dir    string
	key    ed25519.PrivateKey
	lie    string
	replay []byte // an answer that was given before
}

// doorKey is the domain's in all scripts; complete makes geneses with it.
func doorKey() ed25519.PrivateKey {
	return ed25519.NewKeyFromSeed(bytes.Repeat([]byte{8}, ed25519.SeedSize))
}

// startDoor has a door at $DOOR for the domain of a directory: door DIR [LIE]. Lies
// are unsigned, otherkey, replayed, changed, otherdomain, garbled, silent and
// nothing.
func startDoor(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 1 || len(args) > 2 {
		ts.Fatalf("usage: door DIR [LIE]")
	}
	d := &fakeDoor{dir: ts.MkAbs(args[0]), key: doorKey()}
	if len(args) == 2 {
		d.lie = args[1]
	}
	if d.lie == "otherkey" {
		d.key = ed25519.NewKeyFromSeed(bytes.Repeat([]byte{9}, ed25519.SeedSize))
	}
	dir, err := os.MkdirTemp("", "door-*") // short: paths of sockets are limited
	ts.Check(err)
	ts.Defer(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "s")
	ln, err := net.Listen("unix", path)
	ts.Check(err)
	ts.Defer(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go d.guest(conn)
		}
	}()
	ts.Setenv("EHSM_DKEYSERVER_DOOR", path)
}

func (d *fakeDoor) guest(conn net.Conn) {
	defer conn.Close()
	for {
		b, err := overview.ReadFrame(conn, overview.MaxRequest)
		if err != nil {
			return
		}
		q, err := overview.ParseDoorRequest(b)
		if err != nil || d.lie == "nothing" {
			return
		}
		if err := overview.WriteFrame(conn, d.answer(q)); err != nil {
			return
		}
	}
}

func (d *fakeDoor) answer(q *overview.DoorRequest) []byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.lie == "replayed" && d.replay != nil {
		return d.replay
	}
	a := &overview.DoorAnswer{}
	payload, err := d.execute(q)
	if a.Payload = payload; err != nil {
		a.Refused, a.Payload = true, []byte(err.Error())
	}
	if d.lie != "unsigned" && d.lie != "silent" {
		a.Signature = ed25519.Sign(d.key, a.SignedText(q))
	}
	if d.lie == "changed" && q.Kind == overview.AskStatus {
		a.Payload = bytes.Replace(a.Payload, []byte(`"manifest":1`), []byte(`"manifest":9`), 1)
	}
	if d.lie == "garbled" {
		return append(a.Encode(), 0)
	}
	d.replay = a.Encode()
	return d.replay
}

// chain verifies the manifests in the directory.
func (d *fakeDoor) chain() (files [][]byte, s *manifest.State, err error) {
	paths, err := domainFiles(d.dir)
	if err != nil {
		return nil, nil, err
	}
	for i, path := range paths {
		b, err := os.ReadFile(path)
		if err != nil {
			return nil, nil, err
		}
		if i == 0 {
			s, err = manifest.Open(b)
		} else {
			s, err = s.Next(b, time.Now())
		}
		if err != nil {
			return nil, nil, err
		}
		files = append(files, b)
	}
	return files, s, nil
}

func (d *fakeDoor) execute(q *overview.DoorRequest) ([]byte, error) {
	if d.lie == "silent" {
		return nil, errors.New("this dkeyserver does not know its domain yet; it waits for its peers")
	}
	files, s, err := d.chain()
	if err != nil {
		return nil, err
	}
	switch q.Kind {
	case overview.AskManifests:
		after := min(binary.BigEndian.Uint64(q.Body), uint64(len(files)))
		return overview.AppendManifests(nil, files[after:]), nil
	case overview.AskStatus:
		st := d.overview(s)
		if d.lie == "otherdomain" {
			st.Domain.ID[0] ^= 1
		}
		return st.Encode()
	case overview.Submit:
		next, err := s.Next(q.Body, time.Now())
		if err != nil {
			return nil, err
		}
		if err := os.WriteFile(filepath.Join(d.dir, manifest.FileName(next.Version)), q.Body, 0o600); err != nil {
			return nil, err
		}
		return (&overview.Submitted{Version: next.Version, Hash: next.Hash, New: true}).Encode()
	}
	return nil, fmt.Errorf("request %d is unknown", q.Kind)
}

// overview is a domain with something to see in each corner.
func (d *fakeDoor) overview(s *manifest.State) *overview.Status {
	at := time.Now().UTC().Truncate(time.Second)
	st := &overview.Status{
		Format: overview.Format, At: at, Server: overview.Server{Kind: "root", Release: "v1.0", Started: at.Add(-3 * time.Hour)},
		Domain: overview.Domain{
			ID: manifest.Hash(s.Domain), Mode: s.Settings.Mode, Root: s.Root, AllowSim: s.Settings.AllowSim, AnyPlatform: s.Settings.AnyPlatform, LeaseHours: 72,
		},
		Manifest: overview.Manifest{Version: s.Version, Date: s.Date, Hash: s.Hash, Signers: []string{"alice", "carol"}, Threshold: s.Operators.Threshold},
		Key:      overview.Key{Version: 1}, Machines: s.Settings.Platforms,
	}
	for _, o := range s.Operators.Members {
		st.Manifest.Operators = append(st.Manifest.Operators, o.Name)
	}
	one, two, gone := manifest.PPID{1}, manifest.PPID{2}, manifest.PPID{9}
	member := func(id byte, role string, ppid manifest.PPID, machine string, edit func(*overview.Member)) {
		m := overview.Member{
			Instance: overview.ID{id}, Role: role, State: overview.Connected, Evidence: overview.ByQuote, Platform: "sgx", TCBStatus: "UpToDate", PPID: ppid, Machine: machine,
			Product: 1, SVN: 1, Manifest: s.Version, DomainKey: 1, LeaseSeconds: 72 * 3600, Attested: at.Add(-time.Minute),
		}
		if edit != nil {
			edit(&m)
		}
		st.Members = append(st.Members, m)
	}
	member(1, "dkeyserver", one, "node 1", func(m *overview.Member) { m.Evidence, m.TCBStatus = overview.ByItself, "" })
	member(2, "dkeycache", one, "node 1", nil)
	core := func(m *overview.Member) { m.Evidence, m.TCBStatus, m.Via = overview.ByReport, "", overview.ID{2} }
	member(3, "core", one, "node 1", core)
	member(4, "core", one, "node 1", func(m *overview.Member) { core(m); m.State, m.SeenSeconds = overview.Left, 240 })
	member(5, "dkeycache", two, "node 2", func(m *overview.Member) {
		m.TCBStatus, m.Advisories, m.TCBGraceUntil, m.Manifest = "OutOfDate", []string{"INTEL-SA-00615"}, at.AddDate(0, 0, 9), s.Version-1
	})
	member(6, "dkeycache", two, "node 2", func(m *overview.Member) { m.State, m.SeenSeconds = overview.Left, 7200 })
	member(7, "dkeycache", gone, "node 9", func(m *overview.Member) { m.State, m.SeenSeconds = overview.Removed, 60 })
	st.Waiting = []overview.Waiting{
		{PPID: manifest.PPID{0xaa}, Serial: "0a", First: at.AddDate(0, 0, -1), Last: at, Times: 214, From: "10.0.0.7:4711"},
		{PPID: gone, Serial: "0b", First: at, Last: at, Times: 1, Was: "node 9"},
	}
	return st
}

// TestWatch ends with its context, and waits for a dkeyserver that is away.
func TestWatch(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var out, errs bytes.Buffer
	said := make(chan struct{}, 16)
	a := &app{getenv: func(string) string { return "" }, stdout: &out, stderr: writerFunc(func(b []byte) (int, error) {
		if strings.Contains(string(b), "hint") {
			said <- struct{}{}
		}
		return errs.Write(b)
	})}
	done := make(chan int)
	go func() {
		done <- a.run(ctx, []string{"domain", "status", "--watch", "--every", "100ms", "--door", filepath.Join(t.TempDir(), "none")})
	}()
	for range 2 {
		<-said
	}
	cancel()
	if code := <-done; code != 0 || !strings.Contains(errs.String(), "is ehsm-dkeyserver serve running") {
		t.Errorf("got %d, %s", code, &errs)
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
