//go:build unix && !linux

package nodes

import "syscall"

// attributes are those of all processes: a group of their own, as the terminal's
// interrupt is for `ehsm dev`, which ends them in order.
func attributes(user *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Credential: user}
}
