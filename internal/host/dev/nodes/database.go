package nodes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// ErrPostgres is returned where there is no PostgreSQL, or none that starts.
var ErrPostgres = errors.New("several nodes share a PostgreSQL, and there is none")

const (
	databaseUser    = "ehsm"
	postgresAccount = "postgres" // that runs the server where we are root, as it refuses to run as that
)

// findDatabase finds out which database the domain has, and whether it can, before
// anything is made.
func (s *Site) findDatabase() error {
	s.settings.database = s.o.Database
	if s.o.Database == "" {
		named, err := os.ReadFile(filepath.Join(s.o.Dir, databaseFile))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		s.settings.database = strings.TrimSpace(string(named))
	}
	if s.settings.database != "" {
		u, err := url.Parse(s.settings.database)
		if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" {
			return errors.New("the database is no URL as postgres://USER@HOST/DATABASE") // it may have a password
		}
		s.Database = "PostgreSQL at " + u.Host + u.Path
		return nil
	}
	dir := filepath.Join(s.o.Dir, postgresDir)
	u := url.URL{Scheme: "postgres", User: url.User(databaseUser), Path: "/postgres", RawQuery: url.Values{"host": {dir}}.Encode()}
	s.settings.database, s.Database = u.String(), "PostgreSQL of its own, in "+dir
	bin, err := findPostgres()
	if err != nil {
		return err
	}
	account, err := postgresUser()
	s.postgres = &part{
		name: "PostgreSQL", program: "postgres", path: filepath.Join(bin, "postgres"), dir: s.o.Dir,
		args: []string{"-D", postgresHandle, "-c", "listen_addresses=", "-c", "unix_socket_directories=" + postgresHandle, "-c", "max_connections=200"},
		env:  s.o.Environ, user: account, signal: syscall.SIGINT,
		ready: regexp.MustCompile(`ready to accept connections`), spawner: s.spawner, say: s.o.Say,
	}
	return err
}

// keepDatabase notes a database that was named, for the next start.
func (s *Site) keepDatabase() error {
	if s.o.Database == "" {
		return nil
	}
	return replace(filepath.Join(s.o.Dir, databaseFile), []byte(s.o.Database+"\n"), 0o600)
}

// postgresHandle is the data directory as the server knows it, whose account may not
// reach it by its name, such as one in root's home.
const postgresHandle = "/proc/self/fd/3"

// startPostgres starts the PostgreSQL of the directory, if it has one. It listens on a
// unix socket there, so files' permissions say who may use it.
func (s *Site) startPostgres(ctx context.Context) error {
	if s.postgres == nil {
		return nil
	}
	dir, account := filepath.Join(s.o.Dir, postgresDir), s.postgres.user
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if account != nil {
		if err := os.Chown(dir, int(account.Uid), int(account.Gid)); err != nil {
			return err
		}
	}
	if err := os.Remove(s.postgres.logFile()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	s.postgres.files = []*os.File{handle}
	if _, err := os.Lstat(filepath.Join(dir, "PG_VERSION")); errors.Is(err, fs.ErrNotExist) {
		if err := s.initPostgres(ctx, handle); err != nil {
			return err
		}
	}
	for end := time.Now().Add(endTimeout); ; {
		err := s.postgres.start(ctx)
		if err == nil || !strings.Contains(err.Error(), "postmaster.pid") || time.Now().After(end) {
			return err
		}
		if err := wait(ctx, endTimeout/100); err != nil { // that of a start that was killed still ends
			return err
		}
	}
}

// initPostgres makes the data of a server. A start that was cut off here begins it
// again.
func (s *Site) initPostgres(ctx context.Context, handle *os.File) error {
	left, err := os.ReadDir(handle.Name())
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(handle.Name(), e.Name())); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(filepath.Dir(s.postgres.path), "initdb"), "-D", postgresHandle, "-U", databaseUser, "-A", "trust", "-E", "UTF8", "--locale=C")
	cmd.Env, cmd.Dir, cmd.ExtraFiles, cmd.SysProcAttr = s.o.Environ, "/", []*os.File{handle}, &syscall.SysProcAttr{Credential: s.postgres.user}
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w that starts: initdb: %w\n%s", ErrPostgres, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// findPostgres is the directory of the newest installed server.
func findPostgres() (string, error) {
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb") // Debian keeps them out of PATH
	if err != nil {
		return "", err
	}
	version := func(path string) int {
		n, _ := strconv.Atoi(filepath.Base(filepath.Dir(filepath.Dir(path)))) // 0 for what is no version
		return n
	}
	if len(found) > 0 {
		return filepath.Dir(slices.MaxFunc(found, func(a, b string) int { return version(a) - version(b) })), nil
	}
	path, err := exec.LookPath("initdb")
	if err != nil {
		return "", fmt.Errorf("%w: no initdb in /usr/lib/postgresql or PATH", ErrPostgres)
	}
	return filepath.Dir(path), nil
}

// postgresUser is who runs the server, nil if that is who runs this.
func postgresUser() (*syscall.Credential, error) {
	if os.Geteuid() != 0 {
		return nil, nil
	}
	u, err := user.Lookup(postgresAccount)
	if err != nil {
		return nil, fmt.Errorf("%w: it does not run as root, and there is no user %q", ErrPostgres, postgresAccount)
	}
	uid, err := strconv.ParseUint(u.Uid, 10, 32)
	if err != nil {
		return nil, err
	}
	gid, err := strconv.ParseUint(u.Gid, 10, 32)
	if err != nil {
		return nil, err
	}
	return &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid), NoSetGroups: false}, nil
}
