package main

import (
	"fmt"
	"strings"
)

// States of a check.
const (
	stateOK      = "ok"
	stateNote    = "note"    // worth knowing; nothing is wrong
	stateProblem = "problem" // something does not work, or will not for long
	stateSkipped = "skipped" // not looked at, as something else must work first
)

// A check is one thing that attest doctor looked at.
type check struct {
	Name  string `json:"name"`
	State string `json:"state"`
	Found string `json:"found"`
	Do    string `json:"do,omitempty"` // what a person can do about it
}

func passed(name, format string, v ...any) check {
	return check{Name: name, State: stateOK, Found: fmt.Sprintf(format, v...)}
}

func noted(name, format string, v ...any) check {
	return check{Name: name, State: stateNote, Found: fmt.Sprintf(format, v...)}
}

func problem(name, do, format string, v ...any) check {
	return check{Name: name, State: stateProblem, Do: do, Found: fmt.Sprintf(format, v...)}
}

func skipped(name, format string, v ...any) check {
	return check{Name: name, State: stateSkipped, Found: fmt.Sprintf(format, v...)}
}

// with returns the check with what to do about it.
func (c check) with(do string) check { c.Do = do; return c }

// A section is a part of the way from a machine to an accepted quote.
type section struct {
	Name   string  `json:"name"`
	Checks []check `json:"checks"`
}

// write prints the section as lines of state, name and finding.
func (s *section) write(b *strings.Builder) {
	fmt.Fprintf(b, "%s\n", s.Name)
	for _, c := range s.Checks {
		state := c.State
		if state == stateProblem {
			state = "PROBLEM"
		}
		fmt.Fprintf(b, "  %-8s %s: %s\n", state, c.Name, c.Found)
		if c.Do != "" {
			fmt.Fprintf(b, "  %-8s %s\n", "", "-> "+c.Do)
		}
	}
}

// count returns how many checks have a state.
func count(sections []section, state string) (n int) {
	for _, s := range sections {
		for _, c := range s.Checks {
			if c.State == state {
				n++
			}
		}
	}
	return n
}
