package nodes

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/dev"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// actEnv has the test binary act as a program of a node.
const actEnv = "TEST_ACT_AS"

func TestMain(m *testing.M) {
	if act := os.Getenv(actEnv); act != "" {
		os.Exit(program(act))
	}
	os.Exit(m.Run())
}

// program prints, and lives until it is asked to end.
func program(act string) int {
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, os.Interrupt)
	fmt.Fprintln(os.Stderr, "starts in", mustWd())
	if act == "fails" {
		fmt.Fprintln(os.Stderr, "no such machine")
		return 3
	}
	fmt.Fprintln(os.Stderr, `time=now level=ERROR msg="the DomainKey is gone" why="some reason"`)
	fmt.Fprintln(os.Stderr, `time=now level=ERROR msg=lost`)
	fmt.Fprintln(os.Stderr, `time=now level=ERROR msg="not ready" check=core`)
	fmt.Fprintln(os.Stderr, `time=now level=INFO msg=joined`)
	fmt.Fprintln(os.Stderr, "serves now")
	<-asked
	return 0
}

func mustWd() string {
	dir, err := os.Getwd()
	if err != nil {
		return err.Error()
	}
	return dir
}

// A heard is what people are told.
type heard struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{}
}

func (h *heard) say(line string) {
	h.mu.Lock()
	h.lines = append(h.lines, line)
	h.mu.Unlock()
	h.more <- struct{}{}
}

func newPart(t *testing.T, act string) (*part, *heard) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	h := &heard{more: make(chan struct{}, 16)}
	s := newSpawner()
	p := &part{
		name: "node-1 ehsm-core", program: programCore, path: self, env: append(os.Environ(), actEnv+"="+act, "GORACE=atexit_sleep_ms=0"), dir: t.TempDir(),
		ready: regexp.MustCompile(`^serves `), signal: os.Interrupt, spawner: s, say: h.say,
	}
	t.Cleanup(func() {
		if err := p.end(); err != nil {
			t.Error(err)
		}
		s.close()
	})
	return p, h
}

// TestPart has a program start, be killed, start again, and end.
func TestPart(t *testing.T) {
	p, h := newPart(t, "serves")
	if p.pid() != 0 {
		t.Error("it has a process id before it was started")
	}
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid, err := os.ReadFile(filepath.Join(p.dir, "core.pid"))
	if err != nil || string(pid) != fmt.Sprintln(p.pid()) {
		t.Errorf("core.pid: got %q, %v, want %d", pid, err, p.pid())
	}
	if err := syscall.Kill(p.pid(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		<-h.more
	}
	want := `node-1 ehsm-core: the DomainKey is gone why="some reason"|node-1 ehsm-core: lost|node-1 ehsm-core has ended: signal: killed`
	if got := strings.Join(h.lines, "|"); got != want {
		t.Errorf("people are told %s", got)
	}
	if _, err := os.Stat(filepath.Join(p.dir, "core.pid")); err == nil || p.pid() != 0 {
		t.Errorf("a program that has ended has process id %d", p.pid())
	}
	if err := p.start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := p.end(); err != nil {
		t.Error(err)
	}
	if n := len(h.more); n != 2 {
		t.Errorf("people are told %d lines of an orderly end, want those of the program: %q", n, h.lines)
	}
	log, err := os.ReadFile(filepath.Join(p.dir, "core.log"))
	if err != nil || strings.Count(string(log), "starts in /\n") != 2 || !strings.Contains(p.tail(), "serves now") {
		t.Errorf("core.log: %q, %v", log, err)
	}
}

func TestPartFails(t *testing.T) {
	p, h := newPart(t, "fails")
	if err := p.start(t.Context()); err == nil || !strings.Contains(err.Error(), "before it was ready: exit status 3") || !strings.Contains(err.Error(), "no such machine") {
		t.Errorf("got %v", err)
	}
	if len(h.lines) > 0 {
		t.Errorf("people are told %q beside the error", h.lines)
	}
	p.path += "-that-is-not-there"
	if err := p.start(t.Context()); err == nil || !strings.Contains(err.Error(), "start node-1 ehsm-core") {
		t.Errorf("got %v", err)
	}
	p, _ = newPart(t, "serves")
	p.ready = regexp.MustCompile(`never`)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := p.start(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestRevive kills programs one after the other while others are started again.
func TestRevive(t *testing.T) {
	var s Site
	var told heard
	told.more = make(chan struct{}, 100)
	s.o.Say = told.say
	for range 3 {
		machine, _ := newPart(t, "serves")
		core, _ := newPart(t, "serves")
		s.Nodes = append(s.Nodes, &Node{parts: []*part{machine, core}})
	}
	if err := s.Revive(t.Context()); err != nil { // starts all of them
		t.Fatal(err)
	}
	for _, p := range s.order() {
		if err := syscall.Kill(p.pid(), syscall.SIGKILL); err != nil {
			t.Error(err)
		}
	}
	if err := s.Revive(t.Context()); err != nil {
		t.Fatal(err)
	}
	for i, p := range s.order() {
		if p.pid() == 0 {
			t.Errorf("part %d does not run", i)
		}
	}
	if n := strings.Count(strings.Join(told.lines, "\n"), "is started again"); n != 12 {
		t.Errorf("%d programs were started again, want 12", n)
	}
	bad, _ := newPart(t, "fails")
	s.Nodes[1].parts = append(s.Nodes[1].parts, bad)
	if err := s.Revive(t.Context()); err == nil || !strings.Contains(err.Error(), "has ended 5 times; what it said is in "+bad.logFile()) {
		t.Errorf("got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Nodes[1].parts = s.Nodes[1].parts[:2]
	if err := s.Revive(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// programs makes a directory with files of the programs' names.
func programs(t *testing.T, but string) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{programTEE, programServer, programCache, programCore, programKMS} {
		if name != but {
			touch(t, filepath.Join(dir, name), 0o700)
		}
	}
	return dir
}

func touch(t *testing.T, path string, mode os.FileMode) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("x"), mode); err != nil {
		t.Fatal(err)
	}
}

// TestRefusals has starts that are refused before anything is made or started.
func TestRefusals(t *testing.T) {
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	made := func(names ...string) func(*testing.T, *Options) {
		return func(t *testing.T, o *Options) {
			for _, name := range names {
				touch(t, filepath.Join(o.Dir, name), 0o600)
			}
		}
	}
	for _, row := range []struct {
		name string
		edit func(*testing.T, *Options)
		want error
		says string
	}{
		{"a program is missing", func(t *testing.T, o *Options) { o.Programs = programs(t, programCore) }, ErrPrograms, "ehsm-core must be in "},
		{"no program is there", func(t *testing.T, o *Options) { o.Programs = t.TempDir() }, ErrPrograms, "ehsm-simtee, ehsm-dkeyserver, ehsm-dkeycache, ehsm-core, ehsm-kms"},
		{"a program is no executable", func(t *testing.T, o *Options) {
			o.Programs = programs(t, programKMS)
			touch(t, filepath.Join(o.Programs, programKMS), 0o600)
		}, ErrPrograms, "ehsm-kms must"},
		{"no nodes", func(t *testing.T, o *Options) { o.Nodes = 0 }, ErrDirectory, "0 nodes, want 1 to 9"},
		{"too many nodes", func(t *testing.T, o *Options) { o.Nodes = 10 }, ErrDirectory, "10 nodes"},
		{"long name", func(t *testing.T, o *Options) { o.Dir = filepath.Join(o.Dir, strings.Repeat("d", 90)) }, ErrDirectory, "107 are allowed"},
		{"no directory", func(t *testing.T, o *Options) { o.Dir = "/dev/null/d" }, syscall.ENOTDIR, "data directory"},
		{"one process", made("ehsm.db"), ErrDirectory, "a domain of one process"},
		{"one process, no keys yet", made("domain/genesis.json"), ErrDirectory, "a domain of one process"},
		{"domain lost", made("postgres/PG_VERSION"), dev.ErrLost, "node1/domain is gone"},
		{"domain lost, database elsewhere", made("database"), dev.ErrLost, "node1/domain is gone"},
		{"machine lost", made("node1/domain/genesis.json", "fleet/fleet.pem", "signer"), dev.ErrLost, "node1/machine is gone"},
		{"fleet lost", made("node1/domain/genesis.json", "node1/machine/machine.secret", "signer"), dev.ErrLost, "fleet is gone"},
		{"signer lost", made("node1/domain/genesis.json", "node1/machine/machine.secret", "fleet/fleet.pem"), dev.ErrLost, "signer is gone"},
		{"port taken", func(t *testing.T, o *Options) { o.Listen = taken.Addr().String() }, ErrPorts, "for node 1: listen tcp"},
		{"no port", func(t *testing.T, o *Options) { o.Listen = "127.0.0.1" }, nil, `listen on "127.0.0.1"`},
		{"named port", func(t *testing.T, o *Options) { o.Listen = "127.0.0.1:https" }, nil, "the port is no number"},
		{"other's address", func(t *testing.T, o *Options) { o.Listen = "192.0.2.1:0" }, ErrPorts, "192.0.2.1"},
		{"no database", func(_ *testing.T, o *Options) { o.Database = "http://ehsm@127.0.0.1/ehsm" }, nil, "no URL as postgres://"},
		{"database of the start before", func(t *testing.T, o *Options) {
			made("node1/domain/genesis.json", "node1/machine/machine.secret", "fleet/fleet.pem", "signer", "database")(t, o)
		}, nil, "no URL as postgres://"},
		{"in use", func(t *testing.T, o *Options) {
			if err := os.MkdirAll(o.Dir, 0o700); err != nil {
				t.Fatal(err)
			}
			f, err := lock(o.Dir)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unlock(f) })
		}, ErrDirectory, fmt.Sprintf("process %d runs the domain in ", os.Getpid())},
	} {
		t.Run(row.name, func(t *testing.T) {
			o := Options{Dir: filepath.Join(t.TempDir(), "d"), Programs: programs(t, ""), Nodes: 3, Listen: "127.0.0.1:0", Say: func(line string) { t.Errorf("said %q", line) }}
			row.edit(t, &o)
			_, err := Start(t.Context(), o)
			if err == nil || row.want != nil && !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.says) {
				t.Errorf("got %v, want %q", err, row.says)
			}
			if _, err := os.Stat(filepath.Join(o.Dir, "node1", machineDir, "pck.pem")); err == nil {
				t.Error("a machine was made")
			}
		})
	}
}

// TestAdmitted has a manifest that only the worker was there to take.
func TestAdmitted(t *testing.T) {
	s := &Site{Nodes: []*Node{{Dir: t.TempDir(), Number: manifest.PPID{1}}, {Dir: t.TempDir(), Number: manifest.PPID{2}}}}
	settings := manifest.Defaults(manifest.Development)
	settings.Platforms = []manifest.Platform{{Name: "node-1", PPID: manifest.PPID{1}}, {Name: "node-2", PPID: manifest.PPID{2}}}
	draft, operator, err := manifest.ThrowAway(settings)
	if err != nil {
		t.Fatal(err)
	}
	put := func(m *manifest.Manifest, n *Node, name string) {
		t.Helper()
		if err := m.Sign(operator); err != nil {
			t.Fatal(err)
		}
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		touch(t, n.path(domainDir+"/x"), 0o600)
		if err := os.WriteFile(n.path(domainDir+"/"+name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	genesis := draft.Complete(make([]byte, 32), nil, time.Now())
	put(genesis, s.Nodes[0], manifest.GenesisFile)
	state, err := inForce(s.Nodes[0].path(domainDir))
	if err != nil {
		t.Fatal(err)
	}
	check := func(version uint64, one, two bool) {
		t.Helper()
		s.admitted(state)
		if s.Manifest != version || s.Nodes[0].Admitted != one || s.Nodes[1].Admitted != two || s.Domain != state.Domain.String() {
			t.Errorf("got manifest %d, %v and %v, want %d, %v and %v", s.Manifest, s.Nodes[0].Admitted, s.Nodes[1].Admitted, version, one, two)
		}
	}
	check(1, true, true)
	put(genesis, s.Nodes[1], manifest.GenesisFile)
	next, err := state.Follow(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	next.Statement.Settings.Platforms = settings.Platforms[:1]
	put(next, s.Nodes[1], manifest.FileName(2))
	check(2, true, false)
	touch(t, s.Nodes[1].path(domainDir+"/"+manifest.FileName(2)), 0o600) // no manifest, so the root's word counts
	check(1, true, true)
}

func TestPorts(t *testing.T) {
	first, err := managers("127.0.0.1:0", 3)
	if err != nil || len(first) != 3 || first[0] == first[1] || first[1] == first[2] || first[0] == first[2] {
		t.Fatalf("got %q, %v", first, err)
	}
	servers, err := keyServers("127.0.0.1:9000", 2)
	if err != nil || len(servers) != 2 || servers[0] == servers[1] || !strings.HasPrefix(servers[0], "127.0.0.1:") {
		t.Errorf("got %q, %v", servers, err)
	}
	ln, err := net.Listen("tcp", servers[0])
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if again, err := keyServers("127.0.0.1:9000", 2); err != nil || again[0] == servers[0] {
		t.Errorf("with %s taken: got %q, %v", servers[0], again, err)
	}
}

func TestLock(t *testing.T) {
	dir := t.TempDir()
	f, err := lock(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := unlock(f); err != nil {
		t.Fatal(err)
	}
	touch(t, filepath.Join(dir, pidFile), 0o600) // left by one that was killed
	if f, err = lock(dir); err != nil {
		t.Fatal(err)
	}
	defer unlock(f)
	if b, err := os.ReadFile(filepath.Join(dir, pidFile)); err != nil || string(b) != fmt.Sprintln(os.Getpid()) {
		t.Errorf("dev.pid: got %q, %v", b, err)
	}
}
