// Package harden takes from the running process what it does not need: core
// dumps, debuggers, and the system calls that no program of ours makes. What is
// taken cannot be had back.
//
// It trusts the kernel. Against the kernel's owner, and so against the host of a
// TEE, it is worth nothing; it holds up other processes of the same user, and an
// attacker who has taken over the process through a bug.
package harden

import "strings"

// A Report is what was applied, for the line that a program prints at start.
type Report struct {
	Applied []string // such as "no core dumps"
	Missing []string // what this kernel lacks, and with it the protection
}

// String is one line without its end.
func (r Report) String() string {
	s := "confined: " + strings.Join(r.Applied, ", ")
	if len(r.Applied) == 0 {
		s = "not confined"
	}
	if len(r.Missing) > 0 {
		s += "; NOT: " + strings.Join(r.Missing, ", ")
	}
	return s
}

// Calls are groups of system calls that a program may keep. The zero value takes
// all of them.
type Calls struct {
	Sockets bool // make new sockets; those that are open, and accepting on them, always remain
}

// A Kernel is what the machine has to offer, whatever the process has of it.
type Kernel struct {
	Landlock     int    // version of its interface, 0: none
	Seccomp      bool   // filters of system calls
	SecretMemory bool   // memfd_secret(2)
	LockedMemory uint64 // bytes that the process may lock, RLIMIT_MEMLOCK
}

// Join puts reports together, in their order.
func Join(reports ...Report) Report {
	var all Report
	for _, r := range reports {
		all.Applied = append(all.Applied, r.Applied...)
		all.Missing = append(all.Missing, r.Missing...)
	}
	return all
}
