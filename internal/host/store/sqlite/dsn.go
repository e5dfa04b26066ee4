package sqlite

import (
	"errors"
	"fmt"
	"net/url"
	"strconv"
	"time"

	modernc "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

const (
	pageSize    = 4096            // bytes; SQLite's default, written down because limits are counted in it
	busyTimeout = 5 * time.Second // of locks between our own connections: log recovery, the last checkpoint
	// checkpointPages is the length of the log, in pages, after which the
	// writer moves it into the database. Keys have random ids, so a longer log
	// holds more changes of one page and moves it once; 16 MiB of log cost a
	// crashed process some 50 ms at its next start.
	checkpointPages = 4000
)

// claimDSN names the database for the first look at it.
func claimDSN(path string) string { return dsn(path, common()) }

// writeDSN names the database for the writer's connection. synchronous=FULL
// syncs the log at every commit; WAL mode alone would not.
func writeDSN(path string, o Options) string {
	pragmas := append(common(),
		"journal_mode=WAL",
		"synchronous=FULL",
		"wal_autocheckpoint="+strconv.Itoa(checkpointPages),
		cacheSize(o.Cache))
	if o.MaxBytes > 0 {
		pragmas = append(pragmas, "max_page_count="+strconv.FormatInt(max(1, o.MaxBytes/pageSize), 10))
	}
	return dsn(path, pragmas)
}

func readDSN(path string, o Options) string {
	return dsn(path, append(common(), "query_only=ON", cacheSize(o.Cache/8)))
}

func common() []string {
	return []string{
		"busy_timeout=" + strconv.FormatInt(busyTimeout.Milliseconds(), 10),
		"page_size=" + strconv.Itoa(pageSize), // of a new file
		"trusted_schema=OFF",
		"temp_store=MEMORY", // the process may not make files elsewhere
	}
}

// cacheSize is the pragma for a page cache of n bytes: negative is KiB.
func cacheSize(n int) string { return "cache_size=-" + strconv.Itoa(max(1, n>>10)) }

func dsn(path string, pragmas []string) string {
	// A path may hold any byte; in a URI, ? and # would end it.
	u := url.URL{Scheme: "file", Path: path, RawQuery: url.Values{"_pragma": pragmas}.Encode()}
	return u.String()
}

// explain adds to an error of SQLite what an operator can do about it.
func explain(err error) error {
	var e *modernc.Error
	if !errors.As(err, &e) {
		return err
	}
	hint := ""
	switch e.Code() & 0xff {
	case lib.SQLITE_NOTADB:
		return fmt.Errorf("%w: the file is not a SQLite database or its first page is damaged: %w", ErrForeign, err)
	case lib.SQLITE_CORRUPT:
		hint = "the file is damaged; stop the service, keep the file and restore a backup"
	case lib.SQLITE_FULL:
		hint = "the disk is full or the size limit is reached; make room, nothing stored is lost"
	case lib.SQLITE_IOERR:
		hint = "the disk or the file system failed, see the system's log"
	case lib.SQLITE_READONLY, lib.SQLITE_PERM, lib.SQLITE_CANTOPEN:
		hint = "the process must be able to write the file and its directory"
	default:
		return err
	}
	return fmt.Errorf("%s: %w", hint, err)
}
