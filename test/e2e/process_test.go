package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

const (
	readyTimeout = 30 * time.Second
	stopTimeout  = 20 * time.Second
)

// A process is one program under test.
type process struct {
	name   string
	cmd    *exec.Cmd
	out    *output
	exited chan struct{} // closed after err is set
	err    error
}

// spawn starts one of the programs under test. The caller ends it; it is killed
// just before the deadline of the test binary, so that none is left behind.
func spawn(t testing.TB, out *output, env []string, name string, args ...string) *process {
	t.Helper()
	return spawnFile(t, out, env, filepath.Join(bin, name), args...)
}

// spawnFile is spawn for any executable.
func spawnFile(t testing.TB, out *output, env []string, path string, args ...string) *process {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	if d, ok := deadline(t); ok {
		ctx, cancel = context.WithDeadline(context.Background(), d.Add(-5*time.Second))
	}
	p := &process{name: filepath.Base(path), out: out, exited: make(chan struct{})}
	p.cmd = exec.CommandContext(ctx, path, args...)
	p.cmd.Env, p.cmd.Stdout, p.cmd.Stderr = env, out, out
	p.cmd.WaitDelay = time.Second
	if err := p.cmd.Start(); err != nil {
		cancel()
		t.Fatalf("start %s: %v", path, err)
	}
	go func() {
		p.err = p.cmd.Wait()
		cancel()
		close(p.exited)
	}()
	return p
}

func deadline(t testing.TB) (time.Time, bool) {
	if t, ok := t.(*testing.T); ok {
		return t.Deadline()
	}
	return time.Time{}, false
}

// kill is kill -9. It returns when the process has gone.
func (p *process) kill() {
	p.cmd.Process.Kill() // an error says that it has gone already
	<-p.exited
}

// stop asks the process to end, as an operator does, and returns how it ended.
func (p *process) stop() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	select {
	case <-p.exited:
		return p.err
	case <-time.After(stopTimeout):
		p.kill()
		return fmt.Errorf("%s has not ended %s after SIGTERM", p.name, stopTimeout)
	}
}

func (p *process) running() bool {
	select {
	case <-p.exited:
		return false
	default:
		return true
	}
}

// memory returns the resident size now and the largest so far, in bytes, or 0
// where the system does not tell.
func (p *process) memory() (now, peak int64) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	if err != nil {
		return 0, 0
	}
	for line := range strings.Lines(string(status)) {
		f := strings.Fields(line)
		switch {
		case len(f) < 2:
		case f[0] == "VmRSS:":
			now = kilobytes(f[1])
		case f[0] == "VmHWM:":
			peak = kilobytes(f[1])
		}
	}
	return now, peak
}

func kilobytes(s string) int64 {
	n, _ := strconv.ParseInt(s, 10, 64)
	return n << 10
}

// An output is what a process, and those restarted in its place, have printed.
type output struct {
	mu      sync.Mutex
	text    []byte
	changed chan struct{} // closed at the next write
}

func newOutput() *output { return &output{changed: make(chan struct{})} }

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	close(o.changed)
	o.changed = make(chan struct{})
	return len(b), nil
}

// size is how much has been printed so far.
func (o *output) size() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	return len(o.text)
}

// after returns what was printed after the first n bytes, and a channel that is
// closed when there is more.
func (o *output) after(n int) ([]byte, <-chan struct{}) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.text[n:]), o.changed
}

// await returns the first match of re in what p prints after the first n bytes.
func (p *process) await(n int, re *regexp.Regexp) (string, error) {
	timeout := time.After(readyTimeout)
	for {
		text, changed := p.out.after(n)
		if m := re.Find(text); m != nil {
			return string(m), nil
		}
		select {
		case <-changed:
		case <-p.exited:
			return "", fmt.Errorf("%s ended before it was ready: %v", p.name, p.err)
		case <-timeout:
			return "", fmt.Errorf("%s is not ready after %s", p.name, readyTimeout)
		}
	}
}
