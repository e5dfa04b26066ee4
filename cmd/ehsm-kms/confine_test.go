package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/harden"
)

const confinedEnv = "EHSM_TEST_CONFINED_IN"

// TestConfine has a child process that is confined as the manager tell what it can
// do.
func TestConfine(t *testing.T) {
	if dir := os.Getenv(confinedEnv); dir != "" {
		confinedProcess(t, dir)
		return
	}
	if k := harden.Probe(); !k.Seccomp || k.Landlock == 0 {
		t.Skipf("seccomp or landlock is missing: %+v; it takes Linux 5.13 with both", k)
	}
	dir := t.TempDir()
	for _, d := range []string{"audit", "data", "link", "other"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"data/ehsm.db", "other/tls.key"} {
		if err := os.WriteFile(filepath.Join(dir, f), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(filepath.Join(dir, "data/ehsm.db"), filepath.Join(dir, "link/ehsm.db")); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestConfine$", "-test.v")
	cmd.Env = append(os.Environ(), confinedEnv+"="+dir)
	out, err := cmd.CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSYS {
		t.Errorf("executing a program: got %v, want SIGSYS: %s", err, out)
	}
	for _, want := range []string{
		"ehsm-kms: confined: no core dumps, no debuggers, ", "files closed off but for ",
		"audit: <nil>\n", "database: <nil>\n", "log: <nil>\n",
		"other: permission denied\n", "key: permission denied\n", "passwd: permission denied\n",
	} {
		if !bytes.Contains(out, []byte(want)) {
			t.Errorf("no %q in %s", want, out)
		}
	}
}

func confinedProcess(t *testing.T, dir string) {
	in := func(name string) string { return filepath.Join(dir, name) }
	settings := config.KMS{Audit: in("audit"), Database: in("link/ehsm.db"), Collateral: config.Collateral{Source: config.CollateralNone}}
	report, err := shut()
	if err != nil {
		t.Fatal(err)
	}
	if err := fenceIn(settings, report, os.Stdout); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		name, file string
		flags      int
	}{
		{"audit", in("audit/new"), os.O_CREATE | os.O_WRONLY},
		{"database", in("link/ehsm.db"), os.O_RDWR},
		{"log", in("data/ehsm.db-wal"), os.O_CREATE | os.O_RDWR},
		{"other", in("other/new"), os.O_CREATE | os.O_WRONLY},
		{"key", in("other/tls.key"), os.O_RDONLY},
		{"passwd", "/etc/passwd", os.O_RDONLY},
	} {
		said := "<nil>"
		if _, err := os.OpenFile(row.file, row.flags, 0o600); err != nil {
			said = errors.Unwrap(err).Error()
		}
		os.Stdout.WriteString(row.name + ": " + said + "\n")
	}
	syscall.Exec("/nonexistent", nil, nil)
}

func TestNeededFiles(t *testing.T) {
	file := filepath.Join(t.TempDir(), "ehsm.db")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	with := func(source string) config.Collateral {
		return config.Collateral{Source: source, Dir: "/collateral", Bundle: "/bundles/b.json"}
	}
	for _, row := range []struct {
		name     string
		settings config.KMS
		write    string
		bundles  bool
	}{
		{"SQLite", config.KMS{Audit: "/audit", Database: file, Collateral: with(config.CollateralNone)}, "/audit " + filepath.Dir(file), false},
		{"PostgreSQL", config.KMS{Audit: "/audit", Database: "postgres://u@h/d", Collateral: with(config.CollateralNone)}, "/audit", false},
		{"collateral of Intel", config.KMS{Audit: "/audit", Database: "postgres://u@h/d", Collateral: with(config.CollateralPCS)}, "/audit /collateral", false},
		{"collateral of a file", config.KMS{Audit: "/audit", Database: "postgres://u@h/d", Collateral: with(config.CollateralBundle)}, "/audit /collateral", true},
	} {
		p, err := needed(row.settings)
		if got := strings.Join(p.Write, " "); err != nil || got != row.write || slices.Contains(p.Read, "/bundles") != row.bundles {
			t.Errorf("%s: got %q, %v, %v, want %q", row.name, got, p.Read, err, row.write)
		}
	}
	if _, err := needed(config.KMS{Database: file + "x"}); err == nil {
		t.Error("a database that is missing is not missed")
	}
}
