package postgres

import (
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
)

// ErrTarget is wrapped by the errors of a target that is not to be used.
var ErrTarget = errors.New("database URL")

// A Target names a database and how to log in to it.
type Target struct {
	// URL is a PostgreSQL URL, such as
	// postgres://ehsm@db1:5432,db2:5432/ehsm. Of several hosts the one that
	// takes changes is used; each has 2 s to answer (connect_timeout). Without
	// sslmode the server must prove its name (verify-full).
	URL string
	// PasswordFile holds the password, if the URL has none. A line end at its
	// end does not count. Passwords in the environment (PGPASSWORD) and in
	// ~/.pgpass work as well.
	PasswordFile string
}

// IsURL reports whether text names a PostgreSQL database.
func IsURL(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}

// Unreachable reports whether an error of Open may go away by itself: no server
// answers, or one that does is not ready to take changes.
func Unreachable(err error) bool {
	var refused *pgconn.PgError
	if errors.As(err, &refused) {
		switch refused.Code {
		case "57P03", "53300", "55P03": // starting up; too many connections; somebody else migrates
			return true
		}
		return false
	}
	if errors.Is(err, ErrTarget) {
		return false
	}
	var connect *pgconn.ConnectError
	return errors.As(err, &connect)
}

// String returns the URL without its passwords.
func (t Target) String() string {
	u, err := url.Parse(t.URL)
	if err != nil {
		return "(malformed URL)"
	}
	q := u.Query()
	for _, name := range []string{"password", "sslpassword"} {
		if q.Has(name) {
			q.Set(name, "xxxxx")
			u.RawQuery = q.Encode()
		}
	}
	return u.Redacted()
}

// config checks the target. The host's network may be hostile to availability,
// but nobody on it may read or change records: TLS with verification, or no
// network at all.
func (t Target) config() (*pgxpool.Config, error) {
	if !IsURL(t.URL) {
		return nil, fmt.Errorf("%w: want postgres://USER@HOST/DATABASE", ErrTarget)
	}
	u, err := url.Parse(t.URL)
	if err != nil {
		return nil, fmt.Errorf("%w: it is malformed", ErrTarget) // url.Error repeats it
	}
	q, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return nil, fmt.Errorf("%w: what follows the ? is malformed", ErrTarget)
	}
	mode := q.Get("sslmode")
	switch {
	case mode == "":
		mode = "verify-full"
		if onlyLocal(u) {
			mode = "disable"
		}
	case mode == "disable" && !onlyLocal(u):
		return nil, fmt.Errorf("%w: sslmode=disable is for unix sockets and loopback addresses", ErrTarget)
	case mode != "disable" && mode != "verify-full" && mode != "verify-ca":
		return nil, fmt.Errorf("%w: sslmode=%s does not check whom it talks to; use verify-full, with sslrootcert if the server's CA is your own", ErrTarget, mode)
	}
	q.Set("sslmode", mode)
	if !q.Has("target_session_attrs") {
		q.Set("target_session_attrs", "read-write")
	}
	if !q.Has("connect_timeout") && os.Getenv("PGCONNECT_TIMEOUT") == "" {
		q.Set("connect_timeout", "2") // seconds for each host: the next one is to have its turn
	}
	u.RawQuery = q.Encode()
	config, err := pgxpool.ParseConfig(u.String())
	if err != nil {
		var parse *pgconn.ParseConfigError
		if errors.As(err, &parse) {
			return nil, fmt.Errorf("%w: %w", ErrTarget, err) // pgconn hides the password
		}
		return nil, fmt.Errorf("%w: %s: it is malformed", ErrTarget, t)
	}
	if t.PasswordFile != "" {
		if config.ConnConfig.Password, err = readPassword(t.PasswordFile, u); err != nil {
			return nil, err
		}
	}
	if config.ConnConfig.RuntimeParams["application_name"] == "" {
		config.ConnConfig.RuntimeParams["application_name"] = "ehsm-kms"
	}
	return config, nil
}

func readPassword(path string, u *url.URL) (string, error) {
	if _, has := u.User.Password(); has || u.Query().Has("password") {
		return "", fmt.Errorf("%w: a password in the URL and a password file", ErrTarget)
	}
	b, err := os.ReadFile(path)
	if err != nil {
		return "", fmt.Errorf("password of the database: %w", err)
	}
	password := strings.TrimRight(string(b), "\r\n")
	if password == "" {
		return "", fmt.Errorf("%w: password file %s is empty", ErrTarget, path)
	}
	return password, nil
}

// onlyLocal reports whether all hosts of u are unix sockets or loopback
// addresses. A URL without a host means the local socket, unless PGHOST says
// otherwise.
func onlyLocal(u *url.URL) bool {
	hosts := strings.Split(u.Host, ",")
	if h := u.Query().Get("host"); h != "" {
		hosts = strings.Split(h, ",")
	}
	if len(hosts) == 1 && hosts[0] == "" {
		hosts = strings.Split(os.Getenv("PGHOST"), ",")
	}
	for _, h := range hosts {
		if name, _, err := net.SplitHostPort(h); err == nil {
			h = name
		}
		ip := net.ParseIP(strings.Trim(h, "[]"))
		if h != "" && h != "localhost" && !strings.HasPrefix(h, "/") && (ip == nil || !ip.IsLoopback()) {
			return false
		}
	}
	return true
}
