package nodes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"
)

const (
	startTimeout = 60 * time.Second
	endTimeout   = 20 * time.Second // between asking a program to end and killing it
	maxTail      = 4 << 10          // bytes of a program's output that are kept for an error
)

// A part is a program of the domain: a process, and those started in its place.
type part struct {
	name    string // for people
	program string
	path    string
	args    []string
	env     []string // all of it
	dir     string   // where its log and its pid file are
	user    *syscall.Credential
	files   []*os.File     // from descriptor 3 on
	ready   *regexp.Regexp // what it prints when it runs; nil: it is not waited for
	signal  os.Signal      // by which it ends in order

	spawner *spawner
	say     func(string)

	mu      sync.Mutex
	process *process // nil: never started
}

// A process is one life of a part.
type process struct {
	cmd    *exec.Cmd
	out    *output
	asked  bool          // to end
	exited chan struct{} // closed when it has ended, and state is there
	state  string
}

// logFile is what the programs of this part print.
func (p *part) logFile() string { return filepath.Join(p.dir, p.short()+".log") }

func (p *part) pidFile() string { return filepath.Join(p.dir, p.short()+".pid") }

// short is the program's name without what all have.
func (p *part) short() string {
	return strings.TrimPrefix(p.program, "ehsm-")
}

// pid is the process id, 0 if it does not run.
func (p *part) pid() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.process == nil || isClosed(p.process.exited) {
		return 0
	}
	return p.process.cmd.Process.Pid
}

// start starts the program and returns when it has printed that it runs.
func (p *part) start(ctx context.Context) error {
	log, err := os.OpenFile(p.logFile(), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	out := &output{log: log, found: make(chan struct{}), part: p}
	if p.ready == nil {
		close(out.found)
	}
	cmd := exec.Command(p.path, p.args...)
	cmd.Env, cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = p.env, "/", out, out, p.files
	cmd.SysProcAttr = attributes(p.user)
	cmd.WaitDelay = time.Second
	x := &process{cmd: cmd, out: out, exited: make(chan struct{})}
	if err := p.spawner.start(cmd); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.name, err), log.Close())
	}
	p.mu.Lock()
	p.process = x
	p.mu.Unlock()
	if err := os.WriteFile(p.pidFile(), []byte(strconv.Itoa(cmd.Process.Pid)+"\n"), 0o600); err != nil {
		p.say(fmt.Sprintf("%s: %v", p.name, err))
	}
	go p.follow(x)
	return p.awaitReady(ctx, x)
}

// follow waits for the end of a process, and says so if nobody has asked for it.
func (p *part) follow(x *process) {
	err := x.cmd.Wait()
	x.out.log.Close()
	p.mu.Lock()
	x.state = x.cmd.ProcessState.String()
	asked := x.asked
	p.mu.Unlock()
	os.Remove(p.pidFile())
	close(x.exited)
	if !asked && isClosed(x.out.found) {
		p.say(fmt.Sprintf("%s has ended: %v", p.name, err))
	}
}

// awaitReady waits for the line in which a process says that it runs.
func (p *part) awaitReady(ctx context.Context, x *process) error {
	timeout := time.NewTimer(startTimeout)
	defer timeout.Stop()
	select {
	case <-x.out.found:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	case <-x.exited:
		return fmt.Errorf("%s has ended before it was ready: %s\n%s", p.name, x.state, x.out.tail())
	case <-timeout.C:
		return fmt.Errorf("%s is not ready after %v\n%s", p.name, startTimeout, x.out.tail())
	}
}

// end asks the program to end, and kills it if it does not.
func (p *part) end() error {
	p.mu.Lock()
	x := p.process
	if x != nil {
		x.asked = true
	}
	p.mu.Unlock()
	if x == nil || isClosed(x.exited) {
		return nil
	}
	x.cmd.Process.Signal(p.signal) // an error says that it has gone already
	timeout := time.NewTimer(endTimeout)
	defer timeout.Stop()
	select {
	case <-x.exited:
		return nil
	case <-timeout.C:
		x.cmd.Process.Kill()
		<-x.exited
		return fmt.Errorf("%s had to be killed: it did not end in %v", p.name, endTimeout)
	}
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// An output takes what a process prints: all of it goes to its log, and what people
// must see is said.
type output struct {
	log   io.WriteCloser
	part  *part
	found chan struct{} // closed when the ready line has come

	mu   sync.Mutex
	line []byte // the last one, not complete yet
	kept []byte
}

// errorLine is a line in which a program says that something is wrong with it. That
// it is not ready, or a request failed, is told to who asks.
var (
	errorLine = regexp.MustCompile(`level=ERROR msg=(?:"([^"]*)"|(\S+))(.*)`)
	askedLine = regexp.MustCompile(`msg="(request failed|not ready)"`)
)

// Write implements io.Writer.
func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.kept = append(o.kept, b...)
	o.kept = o.kept[max(len(o.kept)-maxTail, 0):]
	for line := range bytes.Lines(b) {
		o.line = append(o.line, line...)
		if bytes.HasSuffix(line, []byte("\n")) {
			o.read(bytes.TrimSpace(o.line))
			o.line = o.line[:0]
		}
	}
	o.line = o.line[:min(len(o.line), maxTail)]
	return o.log.Write(b)
}

// read looks at a line. The caller must hold o.mu.
func (o *output) read(line []byte) {
	if r := o.part.ready; r != nil && r.Match(line) && !isClosed(o.found) {
		close(o.found)
	}
	if m := errorLine.FindSubmatch(line); m != nil && !askedLine.Match(line) {
		o.part.say(fmt.Sprintf("%s: %s%s%s", o.part.name, m[1], m[2], m[3]))
	}
}

func (o *output) tail() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return string(bytes.TrimSpace(o.kept))
}
