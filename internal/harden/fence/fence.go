// Package fence confines a process of the host: what package harden takes, and
// all files that it does not need, by landlock.
//
// It is apart from package harden because of the module that it needs, which the
// core does not link.
package fence

import "github.com/ehsm-kms/ehsm/internal/harden"

// Paths are the files that remain accessible. What is open already remains open.
type Paths struct {
	Write []string // directories: all below may be read, written, made and removed
	Read  []string // directories and files; those that do not exist are skipped
}

// Network are the files that a client of other services reads: how to find them,
// and the certificates of who vouches for them.
func Network() []string {
	return []string{
		"/etc/resolv.conf", "/run/systemd/resolve", "/etc/hosts", "/etc/nsswitch.conf", "/etc/gai.conf", "/etc/services",
		"/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/usr/share/ca-certificates", "/usr/local/share/ca-certificates",
	}
}

// clock are the files of the local time zone, which logs show.
var clock = [...]string{"/etc/localtime", "/usr/share/zoneinfo"}

// Confine hides the process's memory, closes off all files but paths, and filters
// system calls, sockets excepted. No file may be executed afterwards. It is for
// all threads and for good.
func Confine(p Paths) (harden.Report, error) {
	hidden, err := harden.Hide()
	if err != nil {
		return hidden, err
	}
	fenced, err := restrict(p)
	if err != nil {
		return hidden, err
	}
	filtered, err := harden.Filter(harden.Calls{Sockets: true})
	return harden.Join(hidden, fenced, filtered), err
}

// Files is the part of Confine that closes off files: for a program that has to be
// filtered before all that it needs is open.
func Files(p Paths) (harden.Report, error) { return restrict(p) }
