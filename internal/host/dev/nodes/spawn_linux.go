package nodes

import "syscall"

// attributes are those of all processes: a group of their own, as the terminal's
// interrupt is for `ehsm dev`, which ends them in order; and none is left behind.
func attributes(user *syscall.Credential) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM, Credential: user}
}
