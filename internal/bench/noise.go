package bench

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// A noise is a tenant that floods a service from a process of its own, which has
// the lowest priority: what the flood's clients take of the processors is not what
// the service does to others. The process makes noise while it is told to.
type noise struct {
	in    io.WriteCloser
	out   *bufio.Scanner
	ended <-chan error
	stop  context.CancelFunc
}

// noiseJob is what the process is told first, a line of JSON. It is a pipe's, as it
// has credentials.
type noiseJob struct {
	URL       string `json:"url"`
	Operation string `json:"operation"`
	Size      int    `json:"size"`
	Conns     int    `json:"conns"`
}

// noiseCount is what it tells after each round, a line of JSON.
type noiseCount struct {
	Requests uint64  `json:"requests"` // served
	Refused  uint64  `json:"refused"`  // with code 429
	Errors   int     `json:"errors"`
	Error    string  `json:"error,omitempty"`
	Seconds  float64 `json:"seconds"`
}

// startNoise starts the process and has it prepare: it enrolls, makes what the
// operation takes and opens its connections.
func startNoise(ctx context.Context, s *starter, job noiseJob) (*noise, error) {
	own, cancel := context.WithCancel(ctx)
	cmd := exec.CommandContext(own, s.program, "bench-noise")
	cmd.Env, cmd.Stderr, cmd.WaitDelay = s.env, os.Stderr, stopTimeout
	in, err := cmd.StdinPipe()
	if err != nil {
		cancel()
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		cancel()
		return nil, fmt.Errorf("start %s: %w", filepath.Base(s.program), err)
	}
	ended := make(chan error, 1)
	n := &noise{in: in, out: bufio.NewScanner(out), ended: ended, stop: cancel}
	if _, err = n.tell(job); err != nil {
		n.close()
		cmd.Wait()
		return nil, fmt.Errorf("prepare the noise: %w", err)
	}
	go func() { ended <- cmd.Wait() }()
	return n, nil
}

// tell sends a line and reads the one that answers it.
func (n *noise) tell(line any) (count noiseCount, err error) {
	text, err := json.Marshal(line)
	if err == nil {
		_, err = n.in.Write(append(text, '\n'))
	}
	if err != nil {
		return count, err
	}
	if !n.out.Scan() {
		return count, errors.Join(errors.New("the noise has ended"), n.out.Err())
	}
	err = json.Unmarshal(n.out.Bytes(), &count)
	if err == nil && count.Error != "" {
		err = errors.New(count.Error)
	}
	return count, err
}

// begin starts a round.
func (n *noise) begin() error {
	_, err := n.tell("begin")
	return err
}

// end ends it and returns what it was.
func (n *noise) end() (noiseCount, error) { return n.tell("end") }

func (n *noise) close() {
	n.in.Close() // it ends with that
	n.stop()
}

// ServeNoise is the process of a noise: it reads its job and then the words that
// begin and end rounds from in, and answers each with a line on out. It returns
// when in ends.
func ServeNoise(ctx context.Context, in io.Reader, out io.Writer) error {
	if err := lowestPriority(); err != nil {
		return fmt.Errorf("lower the priority: %w", err)
	}
	return serveFlood(ctx, in, out)
}

func serveFlood(ctx context.Context, in io.Reader, out io.Writer) error {
	lines, answers := bufio.NewScanner(in), json.NewEncoder(out)
	if !lines.Scan() {
		return errors.Join(errors.New("no job"), lines.Err())
	}
	var job noiseJob
	if err := json.Unmarshal(lines.Bytes(), &job); err != nil {
		return fmt.Errorf("read the job: %w", err)
	}
	f, err := newFlood(ctx, job)
	if err != nil {
		return answers.Encode(noiseCount{Error: err.Error()})
	}
	defer f.side.close()
	for err = answers.Encode(noiseCount{}); err == nil && lines.Scan(); {
		switch word := lines.Text(); word {
		case `"begin"`:
			f.begin(ctx)
			err = answers.Encode(noiseCount{})
		case `"end"`:
			err = answers.Encode(f.end())
		default:
			return fmt.Errorf("read a word: got %q", word)
		}
	}
	return errors.Join(err, lines.Err())
}

// A flood is the load that a noise makes: a closed loop that takes refusals as they
// come and asks again at once.
type flood struct {
	side    *side
	refused atomic.Uint64
	began   time.Time
	stop    context.CancelFunc
	done    chan sample
}

func newFlood(ctx context.Context, job noiseJob) (*flood, error) {
	cfg := ehsm.Config{URL: job.URL, Insecure: true}
	e, err := newEndpoint(cfg)
	if err != nil {
		return nil, err
	}
	t, err := newTenant(ctx, cfg)
	if err != nil {
		return nil, err
	}
	op, err := findOperation(job.Operation)
	if err != nil {
		return nil, err
	}
	f := &flood{}
	r := &run{tenant: t, service: &service{}}
	f.side, err = r.nativeSide(ctx, op, job.Size, job.Conns, []endpoint{e})
	if err != nil {
		return nil, err
	}
	for _, w := range f.side.workers {
		w.check = f.check
	}
	return f, nil
}

// check takes a refusal because of a limit for an answer.
func (f *flood) check(body []byte) error {
	if bytes.HasPrefix(body, []byte(`{"code":429,`)) {
		f.refused.Add(1)
		return nil
	}
	return checkNative(body)
}

func (f *flood) begin(ctx context.Context) {
	own, stop := context.WithCancel(ctx)
	f.refused.Store(0)
	f.began, f.stop, f.done = time.Now(), stop, make(chan sample, 1)
	go func() { f.done <- f.loop(own) }()
}

// loop runs until ctx ends. Nobody's connection is broken at the end.
func (f *flood) loop(ctx context.Context) (total sample) {
	samples := make(chan sample, len(f.side.workers))
	for _, w := range f.side.workers {
		go func() {
			var s sample
			for ctx.Err() == nil && !w.broken && s.errors < stopAfterErrors {
				w.conn.SetDeadline(time.Now().Add(maxDuration)) // if it fails, so does the request
				part := w.run(time.Now().Add(50*time.Millisecond), 0)
				s.add(&part)
			}
			samples <- s
		}()
	}
	for range f.side.workers {
		s := <-samples
		total.add(&s)
	}
	return total
}

func (f *flood) end() noiseCount {
	f.stop()
	s := <-f.done
	c := noiseCount{Refused: f.refused.Load(), Errors: s.errors, Seconds: time.Since(f.began).Seconds()}
	c.Requests = s.requests - c.Refused
	if s.firstErr != nil {
		c.Error = s.firstErr.Error()
	}
	return c
}
