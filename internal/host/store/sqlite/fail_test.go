package sqlite

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// fill stores keys until it fails, and returns the last change that was stored
// for each and the one that was not.
func fill(t *testing.T, s *Store) (stored []wire.RecordID, lost store.Change, err error) {
	t.Helper()
	for range 100_000 {
		c := newKey(wire.UUID{1}, bytes.Repeat([]byte{7}, 3000))
		if err := s.Apply(t.Context(), c); err != nil {
			return stored, c, err
		}
		stored = append(stored, c.Writes[0].ID, c.Writes[1].ID)
	}
	t.Fatal("the store took 100,000 keys, want it full")
	return nil, store.Change{}, nil
}

// wantAll checks that every one of ids is stored, and nothing of lost.
func wantAll(t *testing.T, s *Store, ids []wire.RecordID, lost store.Change) {
	t.Helper()
	rows, err := s.Get(t.Context(), ids)
	if err != nil {
		t.Fatalf("Get: got %v, want no error", err)
	}
	for _, r := range rows {
		if r.Revision != 1 || len(r.Sealed) != 3000 {
			t.Errorf("%s: got revision %d and %d bytes, want 1 and 3000", r.ID, r.Revision, len(r.Sealed))
		}
	}
	for _, w := range lost.Writes {
		wantStored(t, s, w.ID, 0)
	}
}

func TestFull(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store.db")
	s := mustOpen(t, path, Options{MaxBytes: 1 << 20})
	stored, lost, err := fill(t, s)
	if len(stored) < 50 {
		t.Errorf("got %d records before the store was full, want some", len(stored))
	}
	if !strings.Contains(err.Error(), "the disk is full or the size limit is reached; make room, nothing stored is lost") || !strings.Contains(err.Error(), path) {
		t.Errorf("Apply: got %q, want the path and what to do", err)
	}
	wantAll(t, s, stored, lost)
	// It goes on refusing what does not fit, and taking what does.
	if err := s.Apply(t.Context(), lost); err == nil {
		t.Error("Apply on the full store: got no error")
	}
	update := wire.Write{ID: stored[0], Expected: 1, Revision: 2, Sealed: make([]byte, 16)}
	if err := s.Apply(t.Context(), store.Change{Writes: []wire.Write{update}}); err != nil {
		t.Errorf("Apply of a shorter record: got %v, want no error", err)
	}
	if n, err := s.PruneReplays(t.Context(), 1<<62); n != len(stored)/2 || err != nil {
		t.Errorf("PruneReplays: got %d, %v, want %d", n, err, len(stored)/2)
	}
	if st := s.Stats(); st.FileBytes > 1<<20 {
		t.Errorf("Stats: got a file of %d bytes, want at most %d", st.FileBytes, 1<<20)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path, Options{})
	wantStored(t, s, stored[0], 2)
	wantAll(t, s, stored[1:], lost)
	if err := s.Apply(t.Context(), lost); err != nil {
		t.Errorf("Apply with more room: got %v, want no error", err)
	}
}

// TestLogCannotGrow lets the disk fail while a transaction is written to the log.
// It runs in a process of its own, for which the system limits file sizes.
func TestLogCannotGrow(t *testing.T) {
	const env = "EHSM_STORE_TEST_LIMIT"
	if os.Getenv(env) == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestLogCannotGrow$", "-test.v")
		cmd.Env = append(os.Environ(), env+"=1")
		if out, err := cmd.CombinedOutput(); err != nil || !bytes.Contains(out, []byte("PASS: TestLogCannotGrow")) {
			t.Errorf("test under a file size limit: %v\n%s", err, out)
		}
		return
	}
	signal.Ignore(syscall.SIGXFSZ)
	path := filepath.Join(t.TempDir(), "store.db")
	s := mustOpen(t, path, Options{})
	stored := addKeys(t, s, 20)
	limit := limitFiles(t, uint64(s.Stats().LogBytes)+20_000)
	more, lost, err := fill(t, s)
	stored = append(stored, more...)
	if !strings.Contains(err.Error(), "the disk") {
		t.Errorf("Apply: got %q, want a hint to the disk", err)
	}
	wantAll(t, s, stored, lost)
	limit(0)
	stored = append(stored, addKeys(t, s, 3)...)

	// Now the log cannot be emptied either, as that writes to the database.
	limit(1)
	_, lost2, err := fill(t, s)
	if !strings.Contains(err.Error(), "and the log could not be emptied: ") {
		t.Errorf("Apply: got %q, want an error that tells of the log", err)
	}
	limit(0)
	wantAll(t, s, stored, lost2)
	stored = append(stored, addKeys(t, s, 3)...)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = mustOpen(t, path, Options{})
	wantAll(t, s, stored, lost)
	wantAll(t, s, nil, lost2)
}

// addKeys stores n keys, each of two records of 3000 bytes.
func addKeys(t *testing.T, s *Store, n int) (ids []wire.RecordID) {
	t.Helper()
	for range n {
		c := newKey(wire.UUID{1}, bytes.Repeat([]byte{7}, 3000))
		if err := s.Apply(t.Context(), c); err != nil {
			t.Fatalf("Apply: got %v, want no error", err)
		}
		ids = append(ids, c.Writes[0].ID, c.Writes[1].ID)
	}
	return ids
}

// limitFiles sets the size to which this process may let files grow and returns
// a function that sets it again; 0 is no limit.
func limitFiles(t *testing.T, bytes uint64) func(uint64) {
	t.Helper()
	set := func(n uint64) {
		var r syscall.Rlimit
		if err := syscall.Getrlimit(syscall.RLIMIT_FSIZE, &r); err != nil {
			t.Fatal(err)
		}
		if r.Cur = n; n == 0 {
			r.Cur = r.Max
		}
		if err := syscall.Setrlimit(syscall.RLIMIT_FSIZE, &r); err != nil {
			t.Fatal(err)
		}
	}
	set(bytes)
	return set
}

// TestDamaged overwrites pages in the middle of a database. Some records can then
// not be read or changed, with an error that says what to do; those that can are
// right.
func TestDamaged(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for _, tt := range []struct {
		name string
		n    int // bytes of each page that are overwritten
	}{{"whole pages", pageSize}, {"page headers", 12}} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			ids := makeStore(t, path, 300)
			info, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			pages := info.Size() / pageSize
			for range pages / 4 {
				damage(t, path, pageSize*(pages/4+rng.Int64N(pages*3/4)), tt.n)
			}
			s := mustOpen(t, path, Options{})
			readErrs, writeErrs := 0, 0
			for _, id := range ids {
				rows, err := s.Get(t.Context(), []wire.RecordID{id})
				if wantHint(t, err) {
					readErrs++
				} else if r := rows[0]; r.Revision > 1 || r.Revision == 1 && tt.n < pageSize && len(r.Sealed) != 300 {
					t.Errorf("%s: got revision %d and %d bytes, want 1 and 300", id, r.Revision, len(r.Sealed))
				}
				w := wire.Write{ID: id, Expected: 1, Revision: 2, Sealed: make([]byte, 300)}
				err = s.Apply(t.Context(), store.Change{Writes: []wire.Write{w}})
				if !errors.Is(err, store.ErrConflict) && wantHint(t, err) {
					writeErrs++
				}
			}
			if readErrs == 0 || writeErrs == 0 {
				t.Errorf("got %d errors reading and %d writing, want some", readErrs, writeErrs)
			}
			_, err = s.List(t.Context(), wire.Query{Type: wire.Key, Tenant: wire.UUID{1}, Limit: wire.MaxList}, wire.UUID{})
			if !wantHint(t, err) {
				t.Error("List: got no error")
			}
		})
	}
}

// wantHint checks that err, if there is one, tells the operator what to do.
func wantHint(t *testing.T, err error) bool {
	t.Helper()
	if err != nil && !strings.Contains(err.Error(), "the file is damaged; stop the service, keep the file and restore a backup") {
		t.Errorf("got %q, want a hint at the damage", err)
	}
	return err != nil
}
