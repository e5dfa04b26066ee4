package sqlite

import (
	"bytes"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/host/store/migrations"
	"github.com/ehsm-kms/ehsm/internal/host/store/storetest"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Databases as released versions left them, one for each version of the schema.
// Add files, never change one: a failure here means that stored records can no
// longer be read.
//
//go:embed testdata/released/*.sql
var released embed.FS

func TestReleased(t *testing.T) {
	fresh := mustOpen(t, filepath.Join(t.TempDir(), "fresh.db"), Options{})
	files, err := fs.Glob(released, "testdata/released/*.sql")
	if err != nil || len(files) == 0 {
		t.Fatalf("got released dumps %v, %v", files, err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			dump, err := released.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(t.TempDir(), "store.db")
			execSQL(t, path, string(dump))
			s := mustOpen(t, path, Options{})
			if got, want := schema(t, s), schema(t, fresh); got != want {
				t.Errorf("schema after migration: got\n%s\nwant\n%s", got, want)
			}
			storetest.CheckReleased(t, s)
		})
	}
}

// schema returns the statements that made the tables and indexes.
func schema(t *testing.T, s *Store) string {
	t.Helper()
	rows, err := s.reader.db.Query(`SELECT coalesce(sql, name) FROM sqlite_schema ORDER BY name`)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var all []string
	for rows.Next() {
		var text string
		if err := rows.Scan(&text); err != nil {
			t.Fatal(err)
		}
		all = append(all, strings.Join(strings.Fields(text), " "))
	}
	return strings.Join(all, "\n")
}

// execSQL runs statements on the database at path, and creates it.
func execSQL(t *testing.T, path, statements string) {
	t.Helper()
	db, err := sql.Open("sqlite", path)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(statements); err != nil {
		t.Fatalf("exec on %s: %v", path, err)
	}
}

func TestOpenRefused(t *testing.T) {
	file := func(content string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	statements := func(text string) func(*testing.T, string) {
		return func(t *testing.T, path string) { execSQL(t, path, text) }
	}
	for _, tt := range []struct {
		name string
		make func(t *testing.T, path string)
		want error
		text string
	}{
		{"text", file("records:\n- name: a\n"), ErrForeign, "not a SQLite database or its first page is damaged"},
		{"long text", file(strings.Repeat("not a database. ", 1000)), ErrForeign, "not a SQLite database or its first page is damaged"},
		{"zeros", file(strings.Repeat("\x00", 8192)), ErrForeign, "not a SQLite database"},
		{"header cut short", file("SQLite format 3\x00"), ErrForeign, "not a SQLite database"},
		{"another program's tables", statements(`CREATE TABLE bookmarks (url TEXT)`), ErrForeign, "database of another program (application id 0x0, 1 tables"},
		{"another program's mark", statements(`PRAGMA application_id = 7`), ErrForeign, "database of another program (application id 0x7, 0 tables"},
		{"newer schema", func(t *testing.T, path string) {
			makeStore(t, path, 1)
			execSQL(t, path, `INSERT INTO goose_db_version (version_id, is_applied) VALUES (7777, 1)`)
		}, migrations.ErrNewer, "schema version 7777, this program knows up to 4"},
		{"schema lost", func(t *testing.T, path string) {
			makeStore(t, path, 1)
			execSQL(t, path, `DROP TABLE replays`)
		}, nil, "no such table: replays"},
		{"first page damaged", func(t *testing.T, path string) {
			makeStore(t, path, 1)
			damage(t, path, 100, 3000)
		}, nil, "the file is damaged; stop the service, keep the file and restore a backup"},
		{"a directory", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, nil, "is a directory"},
		{"no directory", func(t *testing.T, path string) {
			if err := os.Remove(filepath.Dir(path)); err != nil {
				t.Fatal(err)
			}
		}, fs.ErrNotExist, "no such file or directory"},
		{"link to nowhere", func(t *testing.T, path string) {
			if err := os.Symlink(path+".missing", path); err != nil {
				t.Fatal(err)
			}
		}, fs.ErrNotExist, "no such file or directory"},
		{"directory without permission", func(t *testing.T, path string) {
			if err := os.Chmod(filepath.Dir(path), 0o500); err != nil {
				t.Fatal(err)
			}
			asNobody(t)
		}, fs.ErrPermission, "permission denied"},
		{"file without permission", func(t *testing.T, path string) {
			if err := errors.Join(os.WriteFile(path, nil, 0o400), os.Chmod(filepath.Dir(path), 0o755)); err != nil {
				t.Fatal(err)
			}
			asNobody(t)
		}, fs.ErrPermission, "permission denied"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "dir", "store.db")
			if err := os.Mkdir(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			tt.make(t, path)
			before, _ := os.ReadFile(path)
			s, err := Open(t.Context(), path, Options{})
			if err == nil {
				s.Close()
				t.Fatal("Open: got no error")
			}
			if tt.want != nil && !errors.Is(err, tt.want) {
				t.Errorf("Open: got %v, want an error that is %v", err, tt.want)
			}
			if got := err.Error(); !strings.HasPrefix(got, "open store "+path+": ") || !strings.Contains(got, tt.text) {
				t.Errorf("Open: got %q, want the path and %q", got, tt.text)
			}
			if after, _ := os.ReadFile(path); !bytes.Equal(before, after) {
				t.Error("Open changed a file it refused")
			}
		})
	}
}

// asNobody makes file permissions bind the rest of the test, also as root, by
// taking the file system rights from its thread, which ends with the test.
func asNobody(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chmod(filepath.Dir(t.TempDir()), 0o755); err != nil { // parent of all its directories
		t.Fatal(err)
	}
	const root, nobody = 0, 65534
	runtime.LockOSThread() // and never unlocked: the thread is not used again
	syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0)
	t.Cleanup(func() { syscall.RawSyscall(syscall.SYS_SETFSUID, root, 0, 0) })
}

// makeStore makes a store of n keys and closes it.
func makeStore(t *testing.T, path string, n int) []wire.RecordID {
	t.Helper()
	s, err := Open(t.Context(), path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	var ids []wire.RecordID
	for range n {
		c := newKey(wire.UUID{1}, bytes.Repeat([]byte{7}, 300))
		if err := s.Apply(t.Context(), c); err != nil {
			t.Fatal(err)
		}
		ids = append(ids, c.Writes[0].ID)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return ids
}

// damage overwrites n bytes of a file.
func damage(t *testing.T, path string, at int64, n int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt(bytes.Repeat([]byte{0xff}, n), at); err != nil {
		t.Fatal(err)
	}
}

func TestOpenEndedContext(t *testing.T) {
	ctx, cancel := contextEnded(t)
	defer cancel()
	path := filepath.Join(t.TempDir(), "store.db")
	if _, err := Open(ctx, path, Options{}); !errors.Is(err, ctx.Err()) {
		t.Errorf("Open: got %v, want %v", err, ctx.Err())
	}
	mustOpen(t, path, Options{}) // it left no lock
}

// TestOpenUnfinished opens what a process leaves that dies while it creates a
// database.
func TestOpenUnfinished(t *testing.T) {
	for _, tt := range []struct {
		name string
		make string
	}{
		{"empty file", ``},
		{"log mode set", `PRAGMA journal_mode = WAL`},
		{"marked", `PRAGMA journal_mode = WAL; PRAGMA application_id = 0x6568736d`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "store.db")
			execSQL(t, path, tt.make)
			s := mustOpen(t, path, Options{})
			if err := s.Apply(t.Context(), newKey(wire.UUID{1}, make([]byte, 16))); err != nil {
				t.Errorf("Apply: got %v, want no error", err)
			}
		})
	}
}

func TestFiles(t *testing.T) {
	for _, name := range []string{"store.db", "a b?c#d%20&e=f;g.db", "ключ.db"} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			s := mustOpen(t, filepath.Join(dir, name), Options{})
			if err := s.Apply(t.Context(), newKey(wire.UUID{1}, make([]byte, 16))); err != nil {
				t.Fatal(err)
			}
			want := []string{name, name + "-shm", name + "-wal", name + ".lock"}
			if got := files(t, dir); !slices.Equal(got, want) {
				t.Errorf("open: got files %q, want %q", got, want)
			}
			if st := s.Stats(); st.FileBytes == 0 || st.LogBytes == 0 {
				t.Errorf("Stats: got %d and %d bytes, want some", st.FileBytes, st.LogBytes)
			}
			if err := s.Close(); err != nil {
				t.Fatal(err)
			}
			want = []string{name, name + ".lock"}
			if got := files(t, dir); !slices.Equal(got, want) {
				t.Errorf("closed: got files %q, want %q: the log must be merged", got, want)
			}
		})
	}
}

// files lists a directory and checks that only the owner may use its files.
func files(t *testing.T, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			t.Fatal(err)
		}
		if info.Mode() != 0o600 {
			t.Errorf("mode of %s: got %v, want %v", e.Name(), info.Mode(), fs.FileMode(0o600))
		}
		names = append(names, e.Name())
	}
	return names
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	path, link := filepath.Join(dir, "store.db"), filepath.Join(dir, "link.db")
	s := mustOpen(t, path, Options{})
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, link, filepath.Join(dir, "..", filepath.Base(dir), "store.db")} {
		_, err := Open(t.Context(), name, Options{})
		if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), "stop it, or give this one a database of its own") {
			t.Errorf("Open %s: got %v, want %v and what to do", name, err, ErrLocked)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	mustOpen(t, link, Options{})
}

// TestPlans checks that no query walks or sorts a table.
func TestPlans(t *testing.T) {
	s := mustOpen(t, filepath.Join(t.TempDir(), "store.db"), Options{})
	for _, tt := range []struct{ name, query, want string }{
		{"get", getQuery, "SEARCH records USING INDEX names (tenant=? AND id=? AND type=? AND version=?)"},
		{"list", listQuery, "SEARCH records USING INDEX names (tenant=? AND id>?)"},
		{"list keys", listKeysQuery, "SEARCH records USING INDEX listing (tenant=? AND id>?)"},
		{"list secrets", listSecretsQuery, "SEARCH records USING INDEX secrets (tenant=? AND id>?)"},
		{"list versions", listVersionsQuery, "SEARCH records USING INDEX names (tenant=? AND id=? AND type=? AND version>?)"},
		{"due", dueQuery, "SEARCH records USING INDEX purges (due<?)"},
		{"expire", expireQuery, "SEARCH replays USING COVERING INDEX replays_until (until<?)"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			rows, err := s.reader.db.Query("EXPLAIN QUERY PLAN "+tt.query, nil, nil, nil, nil, nil)
			if err != nil {
				t.Fatal(err)
			}
			defer rows.Close()
			var plan strings.Builder
			for rows.Next() {
				var id, parent, unused int
				var step string
				if err := rows.Scan(&id, &parent, &unused, &step); err != nil {
					t.Fatal(err)
				}
				fmt.Fprintln(&plan, step)
			}
			if got := plan.String(); !strings.Contains(got, tt.want) || strings.Contains(got, "SCAN") || strings.Contains(got, "TEMP B-TREE") {
				t.Errorf("plan: got\n%swant %q and no scan or sort", got, tt.want)
			}
		})
	}
}
