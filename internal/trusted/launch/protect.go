package launch

import (
	"errors"
	"fmt"
	"io"

	"github.com/ehsm-kms/ehsm/internal/harden"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// OpenHome chooses the memory that keys lie in on a platform. The memory of an
// enclave is protected as a whole, and its run-times have no other kind. Elsewhere
// it is what the kernel protects best. A guest without such memory does not start;
// the simulator, whose keys are in a file, only warns. Errors: secret.ErrMemory.
func (p Program) OpenHome(platform string, stderr io.Writer) (*secret.Home, error) {
	if platform == "gramine" || platform == "ego" {
		return secret.NewHeap(), nil
	}
	locked, err := secret.NewLocked()
	switch {
	case err == nil:
		return locked, nil
	case platform == "sim" && errors.Is(err, secret.ErrMemory):
		fmt.Fprintf(stderr, "%s: warning: %v\n", p.Name, err)
		return secret.NewHeap(), nil
	}
	return nil, err
}

// DescribeHome says on stderr what keys lie in.
func (p Program) DescribeHome(home *secret.Home, stderr io.Writer) {
	temporaries := "temporaries are not erased: built without GOEXPERIMENT=runtimesecret"
	if secret.Erases {
		temporaries = "temporaries are erased"
	}
	fmt.Fprintf(stderr, "%s: keys in %s; %s\n", p.Name, home.Memory(), temporaries)
}

// A Cage is what the process is kept in. In an enclave there is none: its run-time
// knows no such calls, and what lies outside has no access anyway.
type Cage struct {
	program Program
	sockets bool // remain
	open    bool // there is none
	report  harden.Report
}

// NewCage makes the cage of the process on a platform. sockets says that the
// program connects to others; the simulated platform is one of them. Not confined,
// there is none: what confines a process does so for good, which is no life for
// one that runs tests.
func (p Program) NewCage(platform string, confined, sockets bool) *Cage {
	return &Cage{program: p, sockets: sockets || platform == "sim", open: !confined || platform == "gramine" || platform == "ego"}
}

// Hide comes before there are keys, and after the simulated platform has looked at
// the executable, which is hidden with the memory.
func (c *Cage) Hide() (err error) {
	if !c.open {
		c.report, err = harden.Hide()
	}
	return err
}

// Shut comes when all is open, and says on stderr what the process has got.
func (c *Cage) Shut(stderr io.Writer) error {
	if c.open {
		return nil
	}
	filtered, err := harden.Filter(harden.Calls{Sockets: c.sockets})
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "%s: %s\n", c.program.Name, harden.Join(c.report, filtered))
	return nil
}
