package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"time"
)

const (
	readyTimeout = 30 * time.Second
	stopTimeout  = 10 * time.Second // between asking a server to end and killing it
	maxKept      = 4 << 10          // bytes of a server's output that are kept
)

// child is a server that runs in a process of its own.
type child struct {
	url     string        // what its ready line told
	started time.Duration // from its start to that line
	pid     int
	cancel  context.CancelFunc
	exited  chan struct{} // closed when it has ended
}

// startChild starts a program and waits for its ready line, in which ready finds
// the address. When ctx ends, or with stop, it is interrupted.
func startChild(ctx context.Context, env []string, ready func(line string) (url string, ok bool), program string, args ...string) (*child, error) {
	own, cancel := context.WithCancel(ctx)
	out := &output{ready: ready, found: make(chan string, 1)}
	cmd := exec.CommandContext(own, program, args...)
	cmd.Env, cmd.Stdout, cmd.Stderr = env, out, out
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = stopTimeout
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	c := &child{pid: cmd.Process.Pid, cancel: cancel, exited: make(chan struct{})}
	go func() {
		cmd.Wait() // how it ends is of interest only before it is ready
		close(c.exited)
	}()
	err := c.wait(ctx, out.found)
	if err == nil {
		c.started = time.Since(begin)
		return c, nil
	}
	c.stop()
	return nil, fmt.Errorf("start %s: %w; its output:\n%s", filepath.Base(program), err, out.tail())
}

// wait returns when the child is ready, or will not be.
func (c *child) wait(ctx context.Context, found <-chan string) error {
	timeout := time.NewTimer(readyTimeout)
	defer timeout.Stop()
	select {
	case c.url = <-found:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-timeout.C:
		return fmt.Errorf("not ready after %v", readyTimeout)
	case <-c.exited:
		return errors.New("it ended before it was ready")
	}
}

// stop ends the program and waits until it has ended.
func (c *child) stop() {
	c.cancel()
	<-c.exited
}

// output takes what a child prints, finds the ready line and keeps the end.
type output struct {
	ready func(line string) (url string, ok bool)
	found chan string

	mu   sync.Mutex
	kept []byte
	line []byte // the last one, not complete yet
	done bool
}

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, b...)
	o.kept = o.kept[max(len(o.kept)-maxKept, 0):]
	for line := range bytes.Lines(b) {
		o.line = append(o.line, line...)
		if !bytes.HasSuffix(line, []byte("\n")) || o.done {
			continue
		}
		if url, ok := o.ready(string(bytes.TrimSpace(o.line))); ok {
			o.found <- url
			o.done = true
		}
		o.line = o.line[:0]
	}
	o.line = o.line[:min(len(o.line), maxKept)]
	return len(b), nil
}

func (o *output) tail() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	return bytes.Clone(o.kept)
}
