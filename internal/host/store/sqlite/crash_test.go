package sqlite

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	crashEnv     = "EHSM_STORE_TEST_CRASH" // path of the database: the process is to be killed
	crashCallers = 4
)

func TestMain(m *testing.M) {
	if path := os.Getenv(crashEnv); path != "" {
		fmt.Fprintln(os.Stderr, applyForever(path))
		os.Exit(3)
	}
	os.Exit(m.Run())
}

// applyForever applies changes from several callers and prints a line "caller
// number" for each that is acknowledged. It returns only if something is wrong.
func applyForever(path string) error {
	s, err := Open(context.Background(), path, Options{})
	if err != nil {
		return err
	}
	errs := make(chan error)
	for c := range crashCallers {
		go func() {
			rows, err := s.Get(context.Background(), []wire.RecordID{crashApp(c)})
			if err != nil {
				errs <- err
				return
			}
			for n := rows[0].Revision + 1; ; n++ {
				if err := s.Apply(context.Background(), crashChange(c, n)); err != nil {
					errs <- err
					return
				}
				// One write, so that a kill cannot cut a line in two.
				if _, err := os.Stdout.WriteString(fmt.Sprintln(c, n)); err != nil {
					errs <- err
					return
				}
			}
		}()
	}
	return <-errs
}

func crashApp(caller int) wire.RecordID {
	tenant := wire.UUID{0xc0, byte(caller)}
	return wire.RecordID{Type: wire.App, Tenant: tenant, ID: tenant}
}

// crashChange is the nth change of a caller: a key, its number as the revision of
// the app, and a replay entry.
func crashChange(caller int, n uint64) store.Change {
	app := crashApp(caller)
	key := wire.RecordID{Type: wire.Key, Tenant: app.Tenant}
	binary.BigEndian.PutUint64(key.ID[8:], n)
	return store.Change{
		Writes: []wire.Write{
			{ID: app, Expected: n - 1, Revision: n, Sealed: make([]byte, 300)},
			{ID: key, Revision: 1, Sealed: append(make([]byte, 1000*(n%8)), key.ID[:]...)},
		},
		Replay: &wire.Replay{Tenant: app.Tenant, Tag: wire.Tag(key.ID), Until: int64(n)},
	}
}

// TestCrash kills a process that applies changes, at a random moment, and looks
// for everything it had acknowledged; again and again on the same database.
// EHSM_LONG=1 makes it many rounds.
func TestCrash(t *testing.T) {
	rounds := 5
	if os.Getenv("EHSM_LONG") != "" {
		rounds = 200
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	path := filepath.Join(t.TempDir(), "store.db")
	var acked [crashCallers]uint64
	for round := range rounds {
		runAndKill(t, path, 1+rng.IntN(400), &acked)
		s := mustOpen(t, path, Options{})
		for c := range crashCallers {
			// The change under way may be stored; none after it can be.
			acked[c] = checkCrash(t, s, c, acked[c], acked[c]+1)
		}
		checkIntegrity(t, s)
		if err := s.Close(); err != nil || t.Failed() {
			t.Fatalf("round %d: Close: %v", round, err)
		}
	}
}

// runAndKill runs a process until it has acknowledged some changes, kills it,
// and counts what it has acknowledged until then.
func runAndKill(t *testing.T, path string, after int, acked *[crashCallers]uint64) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), crashEnv+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := sync.OnceFunc(func() { cmd.Process.Kill() })
	defer kill()
	lines := bufio.NewReader(out)
	for i := 0; ; i++ {
		var c int
		var n uint64
		line, err := lines.ReadString('\n')
		if errors.Is(err, io.EOF) && line == "" {
			break
		}
		if _, e := fmt.Sscan(line, &c, &n); err != nil || e != nil || c >= crashCallers || n != acked[c]+1 {
			t.Fatalf("process printed %q (%v, %v), want the next number of a caller after %v", line, err, e, *acked)
		}
		acked[c] = n
		if i == after {
			kill()
		}
	}
	err = cmd.Wait()
	if exit := new(exec.ExitError); !errors.As(err, &exit) || exit.Exited() {
		t.Fatalf("process ended with %v, want it killed", err)
	}
}

// checkCrash checks that a caller's changes from the first to the last are stored
// whole, and returns the last. It must be from least to most.
func checkCrash(t *testing.T, s *Store, caller int, least, most uint64) uint64 {
	t.Helper()
	rows, err := s.Get(t.Context(), []wire.RecordID{crashApp(caller)})
	if err != nil {
		t.Fatal(err)
	}
	last := rows[0].Revision
	if last < least || last > most {
		t.Errorf("caller %d: got %d changes, want %d to %d", caller, last, least, most)
	}
	keys, err := s.List(t.Context(), wire.Query{Type: wire.Key, Tenant: crashApp(caller).Tenant, Limit: 1 << 20}, wire.UUID{})
	if err != nil {
		t.Fatal(err)
	}
	if uint64(len(keys)) != last {
		t.Errorf("caller %d: got %d keys, want %d", caller, len(keys), last)
	}
	for i, k := range keys {
		w := crashChange(caller, uint64(i+1)).Writes[1]
		if k.ID != w.ID || string(k.Sealed) != string(w.Sealed) {
			t.Errorf("caller %d: key %d is %s with %d bytes, want %s with %d", caller, i+1, k.ID, len(k.Sealed), w.ID, len(w.Sealed))
		}
	}
	for n := last; n > 0; n /= 2 {
		c := store.Change{Replay: crashChange(caller, n).Replay}
		if err := s.Apply(t.Context(), c); !errors.Is(err, store.ErrReplayed) {
			t.Errorf("caller %d: replay of change %d: got %v, want %v", caller, n, err, store.ErrReplayed)
		}
	}
	return last
}

func checkIntegrity(t *testing.T, s *Store) {
	t.Helper()
	var got string
	if err := s.reader.db.QueryRow("PRAGMA integrity_check").Scan(&got); err != nil || got != "ok" {
		t.Errorf("integrity check: got %q, %v, want ok", got, err)
	}
}
