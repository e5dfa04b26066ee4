package postgres

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestTargetsRefused(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(dir, "full")
	if err := os.WriteFile(full, []byte("geheim\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]Target{
		"nothing":                   {},
		"a path":                    {URL: "/var/lib/ehsm/ehsm.db"},
		"another database":          {URL: "mysql://u@h/d"},
		"malformed":                 {URL: "postgres://u:geheim@h:port/d"},
		"malformed query":           {URL: "postgres://u:geheim@h/d?sslmode=%zz"},
		"no TLS to another host":    {URL: "postgres://u:geheim@db.example.org/d?sslmode=disable"},
		"no TLS to one of them":     {URL: "postgres://u:geheim@127.0.0.1:5432,192.0.2.1:5432/d?sslmode=disable"},
		"no TLS to a host below":    {URL: "postgres:///d?host=192.0.2.1&password=geheim&sslmode=disable"},
		"unverified":                {URL: "postgres://u:geheim@h/d?sslmode=require"},
		"opportunistic":             {URL: "postgres://u:geheim@h/d?sslmode=prefer"},
		"allowed":                   {URL: "postgres://u:geheim@h/d?sslmode=allow"},
		"unknown mode":              {URL: "postgres://u:geheim@h/d?sslmode=on"},
		"unverified on loopback":    {URL: "postgres://u:geheim@127.0.0.1/d?sslmode=prefer"},
		"CA that is not there":      {URL: "postgres://u:geheim@h/d?sslrootcert=" + dir + "/none"},
		"two passwords":             {URL: "postgres://u:geheim@h/d", PasswordFile: full},
		"two passwords, in query":   {URL: "postgres://u@h/d?password=geheim", PasswordFile: full},
		"empty password file":       {URL: "postgres://u@h/d", PasswordFile: empty},
		"unknown session attribute": {URL: "postgres://u:geheim@h/d?target_session_attrs=fast"},
	} {
		_, err := Open(t.Context(), target, Options{})
		if !errors.Is(err, ErrTarget) {
			t.Errorf("%s: got %v, want ErrTarget", name, err)
		} else if strings.Contains(err.Error(), "geheim") {
			t.Errorf("%s: the error has the password: %v", name, err)
		}
	}
	if _, err := Open(t.Context(), Target{URL: "postgres://u@h/d", PasswordFile: dir + "/none"}, Options{}); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no password file: got %v", err)
	}
}

// TestErrorsHideThePassword: neither those of a server that is not there, nor what is
// said while it is waited for.
func TestErrorsHideThePassword(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("geheim"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]Target{
		"in the URL":   {URL: "postgres://u:geheim@127.0.0.1:1,127.0.0.1:2/d"},
		"in the query": {URL: "postgres://u@127.0.0.1:1/d?password=geheim&sslpassword=geheim"},
		"in a file":    {URL: "postgres://u@127.0.0.1:1/d", PasswordFile: file},
	} {
		_, err := Open(t.Context(), target, Options{})
		if !Unreachable(err) || strings.Contains(fmt.Sprintf("%v %+v", err, err), "geheim") {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestTargets(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(file, []byte("geheim\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, tt := range map[string]struct {
		target   Target
		tls      bool
		password string
		shown    string
	}{
		"default is TLS":  {Target{URL: "postgres://u:geheim@db1,db2/d"}, true, "geheim", "postgres://u:xxxxx@db1,db2/d"},
		"verify-ca":       {Target{URL: "postgresql://u@db1/d?sslmode=verify-ca"}, true, "", "postgresql://u@db1/d?sslmode=verify-ca"},
		"loopback":        {Target{URL: "postgres://u@127.0.0.1:5433/d"}, false, "", "postgres://u@127.0.0.1:5433/d"},
		"loopback, v6":    {Target{URL: "postgres://u@[::1]:5433/d"}, false, "", "postgres://u@[::1]:5433/d"},
		"TLS on loopback": {Target{URL: "postgres://u@127.0.0.1/d?sslmode=verify-full"}, true, "", "postgres://u@127.0.0.1/d?sslmode=verify-full"},
		"unix socket":     {Target{URL: "postgres:///d?host=/run/postgresql&password=geheim"}, false, "geheim", "postgres:///d?host=%2Frun%2Fpostgresql&password=xxxxx"},
		"passphrase":      {Target{URL: "postgres://u@db1/d?sslpassword=geheim"}, true, "", "postgres://u@db1/d?sslpassword=xxxxx"},
		"password file":   {Target{URL: "postgres://u@db1/d", PasswordFile: file}, true, "geheim", "postgres://u@db1/d"},
	} {
		c, err := tt.target.config()
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got := c.ConnConfig.TLSConfig; (got != nil) != tt.tls || got != nil && (got.InsecureSkipVerify && got.VerifyPeerCertificate == nil) {
			t.Errorf("%s: TLS %v, want %t and verified", name, got != nil, tt.tls)
		}
		for _, f := range c.ConnConfig.Fallbacks {
			if (f.TLSConfig != nil) != tt.tls {
				t.Errorf("%s: falls back to TLS %t", name, f.TLSConfig != nil)
			}
		}
		if c.ConnConfig.Password != tt.password || tt.target.String() != tt.shown {
			t.Errorf("%s: got password %q, shown as %s", name, c.ConnConfig.Password, tt.target)
		}
		if c.ConnConfig.ValidateConnect == nil {
			t.Errorf("%s: any server will do, want one that takes changes", name)
		}
	}
}
