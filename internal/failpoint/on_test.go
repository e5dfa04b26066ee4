//go:build failpoints

package failpoint

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
)

func TestHit(t *testing.T) {
	path := filepath.Join(t.TempDir(), "points")
	t.Setenv(Variable, path)
	if err := Hit("a.point", "detail"); err != nil {
		t.Errorf("without a file: got %v", err)
	}
	for name, row := range map[string]struct {
		line string
		full bool
	}{
		"this point":     {"a.point detail full\n", true},
		"any detail":     {"x y kill\na.point * full\n", true},
		"another point":  {"b.point detail full\n", false},
		"another detail": {"a.point other full\n", false},
		"no action":      {"a.point detail\n", false},
		"unknown action": {"a.point detail burn\n", false},
	} {
		if err := os.WriteFile(path, []byte(row.line), 0o600); err != nil {
			t.Fatal(err)
		}
		if err := Hit("a.point", "detail"); errors.Is(err, syscall.ENOSPC) != row.full {
			t.Errorf("%s: got %v, want ENOSPC: %v", name, err, row.full)
		}
	}
}

func TestBlock(t *testing.T) {
	path := filepath.Join(t.TempDir(), "points")
	t.Setenv(Variable, path)
	if err := os.WriteFile(path, []byte("p d block\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- Hit("p", "d") }()
	select {
	case <-done:
		t.Error("Hit does not block")
	default:
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("got %v", err)
	}
}

func TestKill(t *testing.T) {
	if os.Getenv("FAILPOINT_TEST_DIES") != "" {
		Hit("p", "d")
		return
	}
	path := filepath.Join(t.TempDir(), "points")
	if err := os.WriteFile(path, []byte("p * kill\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestKill$")
	cmd.Env = append(os.Environ(), "FAILPOINT_TEST_DIES=1", Variable+"="+path)
	err := cmd.Run()
	var ended *exec.ExitError
	if !errors.As(err, &ended) || ended.Sys().(syscall.WaitStatus).Signal() != syscall.SIGKILL {
		t.Errorf("got %v, want an end by SIGKILL", err)
	}
}
