package harden

import (
	"errors"
	"fmt"
	"runtime"

	"golang.org/x/sys/unix"
)

// Hide keeps the memory of the process from other processes of its user: no core
// dumps, no ptrace(2), no /proc/PID/mem, and its executable is not shown. Whoever
// has CAP_SYS_PTRACE, as root, is not kept out. It is undone by executing a
// program.
func Hide() (Report, error) {
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &unix.Rlimit{}); err != nil {
		return Report{}, fmt.Errorf("forbid core dumps: %w", err)
	}
	// One attribute of the memory, and so of all threads.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0); err != nil {
		return Report{}, fmt.Errorf("forbid debuggers: %w", err)
	}
	return Report{Applied: []string{"no core dumps", "no debuggers"}}, nil
}

// Filter takes system calls from all threads of the process and its children, and
// the right to gain privileges. A call that nothing of ours tries ends the
// process; those that a library might try fail with EPERM. A kernel without
// filters is in the report.
func Filter(keep Calls) (Report, error) {
	program, err := compile(keep)
	if err == nil {
		err = install(program)
	}
	switch {
	case errors.Is(err, errors.ErrUnsupported), errors.Is(err, unix.EINVAL): // ENOSYS is the former
		return Report{Missing: []string{"filtered system calls (this kernel has no seccomp)"}}, nil
	case err != nil:
		return Report{}, fmt.Errorf("filter system calls: %w", err)
	}
	applied := []string{"no new privileges", "no other programs", "system calls filtered"}
	if !keep.Sockets {
		applied = append(applied, "no new sockets")
	}
	return Report{Applied: applied}, nil
}

// install gives the filter to all threads at once.
func install(program []unix.SockFilter) error {
	// A filter needs no_new_privs of the thread that installs it, which the
	// kernel then sets on the others too.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return err
	}
	return seccomp(unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, program)
}

// Probe asks the kernel. It changes nothing.
func Probe() Kernel {
	var k Kernel
	if v, _, errno := unix.Syscall(unix.SYS_LANDLOCK_CREATE_RULESET, 0, 0, unix.LANDLOCK_CREATE_RULESET_VERSION); errno == 0 {
		k.Landlock = int(v)
	}
	// A filter that is not there: EFAULT shows that it would have been read.
	k.Seccomp = errors.Is(seccomp(unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC, nil), unix.EFAULT)
	if fd, err := unix.MemfdSecret(unix.O_CLOEXEC); err == nil {
		k.SecretMemory = unix.Close(fd) == nil
	}
	var limit unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit) == nil {
		k.LockedMemory = limit.Cur
	}
	return k
}
