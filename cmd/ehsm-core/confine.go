package main

import (
	"fmt"
	"io"

	"github.com/ehsm-kms/ehsm/internal/harden"
)

// A cage is what the process is kept in. In an enclave there is none: its run-time
// knows no such calls, and what lies outside has no access anyway.
type cage struct {
	platform string
	open     bool // there is none
	report   harden.Report
}

func newCage(platform string, confined bool) *cage {
	return &cage{platform: platform, open: !confined || platform == "gramine" || platform == "ego"}
}

// hide comes before there are keys, and after the simulated platform has looked at
// the executable, which is hidden with the memory.
func (c *cage) hide() (err error) {
	if !c.open {
		c.report, err = harden.Hide()
	}
	return err
}

// shut comes when all is open. The simulated platform may have to be connected to
// again; no other makes sockets.
func (c *cage) shut(stderr io.Writer) error {
	if c.open {
		return nil
	}
	filtered, err := harden.Filter(harden.Calls{Sockets: c.platform == "sim"})
	if err != nil {
		return err
	}
	fmt.Fprintf(stderr, "ehsm-core: %s\n", harden.Join(c.report, filtered))
	return nil
}
