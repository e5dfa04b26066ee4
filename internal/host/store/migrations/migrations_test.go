package migrations

import (
	"database/sql"
	"errors"
	"io/fs"
	"path/filepath"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/pressly/goose/v3"
	_ "modernc.org/sqlite" // the driver
)

func openDB(t *testing.T) *sql.DB {
	t.Helper()
	db, err := sql.Open("sqlite", filepath.Join(t.TempDir(), "test.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// tables returns the names of the tables that are not goose's or SQLite's.
func tables(t *testing.T, db *sql.DB) string {
	t.Helper()
	var names string
	err := db.QueryRow(`SELECT coalesce(group_concat(name, ' ' ORDER BY name), '') FROM sqlite_schema
		WHERE type = 'table' AND name NOT LIKE 'sqlite%' AND name NOT LIKE 'goose%'`).Scan(&names)
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestSQLite(t *testing.T) {
	db := openDB(t)
	for range 2 { // the second time there is nothing to do
		if err := SQLite(t.Context(), db); err != nil {
			t.Fatalf("SQLite: got %v, want no error", err)
		}
		if got, want := tables(t, db), "facts floors records replays rewraps rotation sweeps"; got != want {
			t.Errorf("tables: got %q, want %q", got, want)
		}
	}
}

// TestUp takes a database through steps of its own.
func TestUp(t *testing.T) {
	file := func(text string) *fstest.MapFile { return &fstest.MapFile{Data: []byte("-- +goose Up\n" + text)} }
	one := file("CREATE TABLE one (a); INSERT INTO one VALUES (1);")
	two := file("CREATE TABLE two AS SELECT a + 1 AS a FROM one;")
	for _, tt := range []struct {
		name   string
		files  fstest.MapFS
		want   error // nil: see text
		text   string
		tables string
	}{
		{"next version", fstest.MapFS{"00001_one.sql": one, "00002_two.sql": two}, nil, "", "one two"},
		{"two at once", fstest.MapFS{"00001_one.sql": one, "00002_two.sql": two, "00003_three.sql": file("CREATE TABLE three (a);")}, nil, "", "one three two"},
		{"same version", fstest.MapFS{"00001_one.sql": one}, nil, "", "one"},
		{"fails half way", fstest.MapFS{"00001_one.sql": one, "00002_two.sql": file("CREATE TABLE two (a); CREATE TABLE one (a);")}, nil, "migrate schema from version 1 to 2", "one"},
		{"fails after a step", fstest.MapFS{"00001_one.sql": one, "00002_two.sql": two, "00003_three.sql": file("DROP TABLE four;")}, nil, "migrate schema from version 1 to 3", "one two"},
		{"no files", fstest.MapFS{}, goose.ErrNoMigrations, "read migrations: ", "one"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			db := openDB(t)
			if err := up(t.Context(), goose.DialectSQLite3, db, fstest.MapFS{"00001_one.sql": one}); err != nil {
				t.Fatal(err)
			}
			err := up(t.Context(), goose.DialectSQLite3, db, tt.files)
			if fails := tt.want != nil || tt.text != ""; fails != (err != nil) {
				t.Errorf("up: got error %v, want one: %t", err, fails)
			}
			if err != nil && (!strings.Contains(err.Error(), tt.text) || tt.want != nil && !errors.Is(err, tt.want)) {
				t.Errorf("up: got %v, want %v with %q", err, tt.want, tt.text)
			}
			if got := tables(t, db); got != tt.tables {
				t.Errorf("tables: got %q, want %q", got, tt.tables)
			}
		})
	}
}

func TestNewer(t *testing.T) {
	db := openDB(t)
	newer := fstest.MapFS{}
	err := fs.WalkDir(sqlite, "sqlite", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		text, err := sqlite.ReadFile(path)
		newer[d.Name()] = &fstest.MapFile{Data: text}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	newer["90000_later.sql"] = &fstest.MapFile{Data: []byte("-- +goose Up\nCREATE TABLE later (a);")}
	if err := up(t.Context(), goose.DialectSQLite3, db, newer); err != nil {
		t.Fatal(err)
	}
	err = SQLite(t.Context(), db)
	if !errors.Is(err, ErrNewer) || !strings.Contains(err.Error(), "schema version 90000, this program knows up to 4") {
		t.Errorf("SQLite: got %v, want %v and the versions", err, ErrNewer)
	}
	if got, want := tables(t, db), "facts floors later records replays rewraps rotation sweeps"; got != want {
		t.Errorf("tables: got %q, want %q", got, want)
	}
}
