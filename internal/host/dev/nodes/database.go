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
)

// ErrPostgres is returned where there is no PostgreSQL, or none that starts.
var ErrPostgres = errors.New("several nodes share a PostgreSQL, and there is none")

const (
	databaseUser    = "ehsm"
	postgresAccount = "postgres" // that runs the server where we are root, as it refuses to run as that
)

// startDatabase finds the database of the domain, or starts its own.
func (s *Site) startDatabase(ctx context.Context) error {
	file := filepath.Join(s.o.Dir, databaseFile)
	named, err := os.ReadFile(file)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	s.settings.database = strings.TrimSpace(string(named))
	if s.o.Database != "" {
		s.settings.database = s.o.Database
		if err := replace(file, []byte(s.o.Database+"\n"), 0o600); err != nil { // it may have a password
			return err
		}
	}
	if s.settings.database == "" {
		return s.startPostgres(ctx)
	}
	u, err := url.Parse(s.settings.database)
	if err != nil {
		return fmt.Errorf("the URL of the database in %s cannot be read", file)
	}
	s.Database = "PostgreSQL at " + u.Host + u.Path
	return nil
}

// startPostgres starts a PostgreSQL that keeps its data in the directory. It listens
// on a unix socket there, so files' permissions say who may use it.
func (s *Site) startPostgres(ctx context.Context) error {
	bin, err := findPostgres()
	if err != nil {
		return err
	}
	account, err := postgresUser()
	if err != nil {
		return err
	}
	dir := filepath.Join(s.o.Dir, postgresDir)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	if account != nil {
		if err := os.Chown(dir, int(account.Uid), int(account.Gid)); err != nil {
			return err
		}
	}
	handle, err := os.Open(dir)
	if err != nil {
		return err
	}
	// The server's account may not reach the directory by its name, such as one in
	// root's home.
	const name = "/proc/self/fd/3"
	if _, err := os.Lstat(filepath.Join(dir, "PG_VERSION")); errors.Is(err, fs.ErrNotExist) {
		if err := s.initPostgres(ctx, bin, name, handle, account); err != nil {
			return err
		}
	}
	s.postgres = &part{
		name: "PostgreSQL", program: "postgres", path: filepath.Join(bin, "postgres"), dir: s.o.Dir,
		args: []string{"-D", name, "-c", "listen_addresses=", "-c", "unix_socket_directories=" + name, "-c", "max_connections=200"},
		env:  s.o.Environ, user: account, files: []*os.File{handle}, signal: syscall.SIGINT,
		ready: regexp.MustCompile(`ready to accept connections`), spawner: s.spawner, say: s.o.Say,
	}
	u := url.URL{Scheme: "postgres", User: url.User(databaseUser), Path: "/postgres", RawQuery: url.Values{"host": {dir}}.Encode()}
	s.settings.database, s.Database = u.String(), "PostgreSQL of its own, in "+dir
	return s.postgres.start(ctx)
}

// initPostgres makes the data of a server. A start that was cut off here begins it
// again.
func (s *Site) initPostgres(ctx context.Context, bin, name string, handle *os.File, account *syscall.Credential) error {
	left, err := os.ReadDir(handle.Name())
	if err != nil {
		return err
	}
	for _, e := range left {
		if err := os.RemoveAll(filepath.Join(handle.Name(), e.Name())); err != nil {
			return err
		}
	}
	cmd := exec.CommandContext(ctx, filepath.Join(bin, "initdb"), "-D", name, "-U", databaseUser, "-A", "trust", "-E", "UTF8", "--locale=C")
	cmd.Env, cmd.Dir, cmd.ExtraFiles, cmd.SysProcAttr = s.o.Environ, "/", []*os.File{handle}, &syscall.SysProcAttr{Credential: account}
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
