package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
)

// An acceptedCore is the program in the TEE, and how it is started.
type acceptedCore struct {
	command []string
	domain  string        // directory of the host that the program sees as its domain
	timeout time.Duration // of a run
}

const (
	maxCoreOutput = 4 * acceptance.MaxStatement // with what run-times print around it
	maxCoreLog    = 8 << 10                     // bytes of its end that are kept
	coreStop      = 10 * time.Second            // between asking it to end and killing it
)

// errCore says that the program in the TEE gave no statement.
var errCore = errors.New("the core gave no statement")

// run starts the program with a request and returns its statement, and the end
// of what it logged, also if it fails.
func (c *acceptedCore) run(ctx context.Context, q *acceptance.Request) (*acceptance.Statement, string, error) {
	remove, err := c.ask(q)
	if err != nil {
		return nil, "", err
	}
	defer remove()
	limited, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	stdout, stderr := &ending{limit: maxCoreOutput}, &ending{limit: maxCoreLog}
	cmd := exec.CommandContext(limited, c.command[0], c.command[1:]...)
	// An enclave does not see it: there the directory is a part of what is measured.
	cmd.Env = append(os.Environ(), "EHSM_CORE_DOMAIN="+c.domain)
	cmd.Stdout, cmd.Stderr = stdout, stderr
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = coreStop
	err = cmd.Run()
	log := acceptance.Text(plainLines(stderr.kept), maxCoreLog)
	if err := ctx.Err(); err != nil { // the user's wish
		return nil, log, err
	}
	if limited.Err() != nil {
		return nil, log, fmt.Errorf("%w: it did not end within %v", errCore, c.timeout)
	}
	s, found := statementIn(stdout.kept)
	switch {
	case found == nil:
		return s, log, nil // whatever else it or its run-time complains about
	case err != nil:
		return nil, log, fmt.Errorf("%w: %w", errCore, err)
	}
	return nil, log, fmt.Errorf("%w: %w", errCore, found)
}

// ask puts the request into the domain directory, which must be there and empty:
// a program that holds a domain is in service.
func (c *acceptedCore) ask(q *acceptance.Request) (remove func(), err error) {
	entries, err := os.ReadDir(c.domain)
	if err != nil {
		return nil, withHint(fmt.Errorf("read the domain directory: %w", err), "make it, or name another one with --domain; an enclave reads the one that its configuration mounts")
	}
	if len(entries) > 0 {
		return nil, withHint(fmt.Errorf("the domain directory %s is not empty: it has %s", c.domain, entries[0].Name()),
			"an acceptance run is for a machine that serves no domain yet: move these files away, and put them back afterwards")
	}
	b, err := json.Marshal(q)
	if err != nil {
		return nil, fmt.Errorf("encode the request: %w", err)
	}
	path := filepath.Join(c.domain, acceptance.RequestFile)
	if err := os.WriteFile(path, b, 0o644); err != nil {
		return nil, fmt.Errorf("write the request: %w", err)
	}
	return func() { os.Remove(path) }, nil
}

// statementIn finds the line that is a statement; run-times print others.
func statementIn(stdout []byte) (*acceptance.Statement, error) {
	const prefix = `{"format":"` + acceptance.StatementFormat
	for text := range bytes.Lines(stdout) {
		if bytes.HasPrefix(text, []byte(prefix)) {
			return acceptance.DecodeStatement(bytes.TrimSpace(text))
		}
	}
	return nil, errors.New("none on its standard output")
}

// ending keeps the end of what is written to it.
type ending struct {
	limit int
	kept  []byte
}

// Write implements io.Writer.
func (e *ending) Write(b []byte) (int, error) {
	e.kept = append(e.kept, b...)
	e.kept = e.kept[max(len(e.kept)-e.limit, 0):]
	return len(b), nil
}

// plainLines is plain of each line.
func plainLines(b []byte) string {
	var out strings.Builder
	for text := range strings.Lines(string(b)) {
		out.WriteString(plain(text) + "\n")
	}
	return out.String()
}
