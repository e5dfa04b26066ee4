package harden

import (
	"errors"
	"fmt"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fatal are calls that only a process that was taken over makes. unix has no
// names for what an architecture lacks; those are in fatalHere.
var fatal = [...]uint32{
	unix.SYS_PTRACE, unix.SYS_PROCESS_VM_READV, unix.SYS_PROCESS_VM_WRITEV, unix.SYS_KCMP, unix.SYS_PIDFD_GETFD, // other processes
	unix.SYS_PROCESS_MADVISE, unix.SYS_SETNS, unix.SYS_UNSHARE,
	unix.SYS_EXECVE, unix.SYS_EXECVEAT, // other programs
	unix.SYS_BPF, unix.SYS_KEXEC_LOAD, unix.SYS_INIT_MODULE, unix.SYS_FINIT_MODULE, unix.SYS_DELETE_MODULE, // the kernel
	unix.SYS_REBOOT, unix.SYS_SYSLOG, unix.SYS_ACCT, unix.SYS_SWAPON, unix.SYS_SWAPOFF,
	unix.SYS_MOUNT, unix.SYS_UMOUNT2, unix.SYS_PIVOT_ROOT, unix.SYS_CHROOT, unix.SYS_MOVE_MOUNT, unix.SYS_OPEN_TREE, // file systems
	unix.SYS_FSOPEN, unix.SYS_FSCONFIG, unix.SYS_FSMOUNT, unix.SYS_FSPICK, unix.SYS_MOUNT_SETATTR, unix.SYS_QUOTACTL,
	unix.SYS_OPEN_BY_HANDLE_AT,
	unix.SYS_SETTIMEOFDAY, unix.SYS_CLOCK_SETTIME, unix.SYS_SETHOSTNAME, unix.SYS_SETDOMAINNAME, // the machine
}

// refused are calls that some library might try and do without. They are large
// parts of the kernel, with a history of holes.
var refused = [...]uint32{
	unix.SYS_IO_URING_SETUP, unix.SYS_IO_URING_ENTER, unix.SYS_IO_URING_REGISTER,
	unix.SYS_USERFAULTFD, unix.SYS_PERF_EVENT_OPEN, unix.SYS_PERSONALITY,
	unix.SYS_KEYCTL, unix.SYS_ADD_KEY, unix.SYS_REQUEST_KEY,
	unix.SYS_NAME_TO_HANDLE_AT, unix.SYS_FANOTIFY_INIT, unix.SYS_MOVE_PAGES, unix.SYS_MIGRATE_PAGES,
	unix.SYS_ADJTIMEX, unix.SYS_CLOCK_ADJTIME,
}

// sockets are refused to programs that make no more of them.
var sockets = [...]uint32{unix.SYS_SOCKET, unix.SYS_SOCKETPAIR, unix.SYS_CONNECT, unix.SYS_BIND, unix.SYS_LISTEN}

// Offsets in struct seccomp_data of linux/seccomp.h.
const (
	offsetNumber = 0
	offsetArch   = 4
)

// compile makes the filter: a list of what is not allowed. A list of what is would
// have to follow every version of Go and of the database.
//
// Calls by the numbers of another architecture, such as those of 32-bit programs,
// end the process: they would go by every other rule.
func compile(keep Calls) ([]unix.SockFilter, error) {
	if auditArch == 0 {
		return nil, errors.ErrUnsupported
	}
	f := []unix.SockFilter{
		load(offsetArch),
		jump(unix.BPF_JEQ, auditArch, 1, 0),
		answer(unix.SECCOMP_RET_KILL_PROCESS),
		load(offsetNumber),
	}
	if foreignNumbers != 0 {
		f = append(f, jump(unix.BPF_JGE, foreignNumbers, 0, 1), answer(unix.SECCOMP_RET_KILL_PROCESS))
	}
	f = forbid(f, slices.Concat(fatal[:], fatalHere[:]), unix.SECCOMP_RET_KILL_PROCESS)
	f = forbid(f, refused[:], unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))
	if !keep.Sockets {
		f = forbid(f, sockets[:], unix.SECCOMP_RET_ERRNO|uint32(unix.EPERM))
	}
	return append(f, answer(unix.SECCOMP_RET_ALLOW)), nil
}

// forbid appends two instructions for each call.
func forbid(f []unix.SockFilter, calls []uint32, action uint32) []unix.SockFilter {
	for _, number := range calls {
		f = append(f, jump(unix.BPF_JEQ, number, 0, 1), answer(action))
	}
	return f
}

func load(offset uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: offset}
}

// jump skips yes or no instructions, by a comparison with k.
func jump(comparison uint16, k uint32, yes, no uint8) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_JMP | comparison | unix.BPF_K, Jt: yes, Jf: no, K: k}
}

func answer(action uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: action}
}

// seccomp is seccomp(2) with a filter; an empty one gives EFAULT.
func seccomp(operation, flags uintptr, program []unix.SockFilter) error {
	var p *unix.SockFprog
	if len(program) > 0 {
		p = &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	}
	thread, _, errno := unix.Syscall(unix.SYS_SECCOMP, operation, flags, uintptr(unsafe.Pointer(p)))
	if errno != 0 {
		return errno
	}
	if thread != 0 { // it has another filter, of its own
		return fmt.Errorf("thread %d cannot be synchronized", thread)
	}
	return nil
}
