package secret

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"testing"
	"unsafe"
)

const childEnv = "EHSM_TEST_SECRET_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		childWithoutLockedMemory()
	}
	os.Exit(m.Run())
}

// memories are the kinds that this machine has. A kernel without memfd_secret is
// told of; every kernel has the others.
func memories(t testing.TB) []Memory {
	t.Helper()
	if err := hidden(); err != nil {
		t.Logf("NOT TESTED: secret memory: %v; it takes Linux with CONFIG_SECRETMEM and secretmem.enable=1", err)
		return []Memory{Heap, Locked}
	}
	return []Memory{Heap, Locked, Hidden}
}

func hidden() error {
	fd, _, errno := syscall.Syscall(sysMemfdSecret, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	return syscall.Close(int(fd))
}

func needHidden(t *testing.T) {
	t.Helper()
	if err := hidden(); err != nil {
		t.Skipf("memfd_secret is missing: %v; it takes Linux with CONFIG_SECRETMEM and secretmem.enable=1", err)
	}
}

// keep returns a Home with one key in it.
func keep(t *testing.T, m Memory) (*Home, []byte) {
	t.Helper()
	h, err := newHome(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { h.Close() })
	s, err := h.Move([]byte(marker))
	if err != nil {
		t.Fatal(err)
	}
	return h, s.Expose()
}

func TestBestMemoryIsTaken(t *testing.T) {
	needHidden(t)
	h, err := NewLocked()
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close()
	if h.Memory() != Hidden {
		t.Errorf("NewLocked: got %s, want %s", h.Memory(), Hidden)
	}
}

func readSelf(t *testing.T, at *byte, n int) ([]byte, error) {
	t.Helper()
	f, err := os.Open("/proc/self/mem")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	got := make([]byte, n)
	_, err = f.ReadAt(got, int64(uintptr(unsafe.Pointer(at))))
	return got, err
}

// TestHiddenIsNotInProcMem reads the process as a debugger does. Locked memory is
// the counter-proof: it can be read so.
func TestHiddenIsNotInProcMem(t *testing.T) {
	needHidden(t)
	_, b := keep(t, Locked)
	if got, err := readSelf(t, &b[0], len(b)); err != nil || string(got) != marker {
		t.Errorf("locked memory in /proc/self/mem: got %q, %v", got, err)
	}
	_, b = keep(t, Hidden)
	if got, err := readSelf(t, &b[0], len(b)); !errors.Is(err, syscall.EIO) || string(got) == marker {
		t.Errorf("secret memory in /proc/self/mem: got %q, %v, want EIO", got, err)
	}
	if string(b) != marker {
		t.Errorf("secret memory holds %q", b)
	}
}

// TestFlagsOfPages looks at what the kernel has noted: dd is not dumped, dc not
// copied on fork, lo locked.
func TestFlagsOfPages(t *testing.T) {
	for _, m := range memories(t)[1:] {
		_, b := keep(t, m)
		flags := pageFlags(t, uintptr(unsafe.Pointer(&b[0])))
		for _, want := range []string{"dd", "dc", "lo", "rd", "wr"} {
			if !slices.Contains(flags, want) {
				t.Errorf("%s: flags %v lack %q", m, flags, want)
			}
		}
	}
}

// pageFlags returns the VmFlags of the mapping that holds an address.
func pageFlags(t *testing.T, address uintptr) []string {
	t.Helper()
	f, err := os.Open("/proc/self/smaps")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	here := false
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var from, to uintptr
		if n, _ := fmt.Sscanf(lines.Text(), "%x-%x ", &from, &to); n == 2 {
			here = from <= address && address < to
		}
		if flags, ok := strings.CutPrefix(lines.Text(), "VmFlags:"); ok && here {
			return strings.Fields(flags)
		}
	}
	t.Fatalf("no mapping at %x", address)
	return nil
}

func TestGuardPages(t *testing.T) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	for _, m := range memories(t)[1:] {
		h, _ := keep(t, m)
		r := h.regions[0]
		page := os.Getpagesize()
		if len(r.whole) != len(r.usable)+2*page || &r.whole[page] != &r.usable[0] {
			t.Fatalf("%s: region of %d bytes in %d", m, len(r.usable), len(r.whole))
		}
		for name, at := range map[string]int{"before": page - 1, "after": page + len(r.usable)} {
			if !panics(func() { r.whole[at]++ }) {
				t.Errorf("%s: the page %s the keys is accessible", m, name)
			}
		}
	}
}

// TestForkedChildHasNoKeys forks without exec. The child may make system calls
// only: it has the kernel copy the key into a pipe, which fails for memory that
// the child does not have.
func TestForkedChildHasNoKeys(t *testing.T) {
	heap := []byte(marker)
	if errno := writtenByChild(t, heap); errno != 0 {
		t.Fatalf("ordinary memory: %v", errno) // the counter-proof
	}
	for _, m := range memories(t)[1:] {
		_, b := keep(t, m)
		if errno := writtenByChild(t, b); errno != syscall.EFAULT {
			t.Errorf("%s: a forked child reads it: %v", m, errno)
		}
	}
}

//go:norace
//go:noinline
func writtenByChild(t *testing.T, b []byte) syscall.Errno {
	t.Helper()
	var pipe [2]int
	if err := syscall.Pipe2(pipe[:], syscall.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(pipe[0])
	defer syscall.Close(pipe[1])
	pid, _, errno := syscall.RawSyscall6(syscall.SYS_CLONE, uintptr(syscall.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		t.Fatal(errno)
	}
	if pid == 0 {
		_, _, errno := syscall.RawSyscall(syscall.SYS_WRITE, uintptr(pipe[1]), uintptr(unsafe.Pointer(&b[0])), uintptr(len(b)))
		for {
			syscall.RawSyscall(syscall.SYS_EXIT_GROUP, uintptr(errno), 0, 0)
		}
	}
	var status syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(int(pid), &status, 0, nil); !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	return syscall.Errno(status.ExitStatus())
}

func TestCloseUnmaps(t *testing.T) {
	for _, m := range memories(t)[1:] {
		h, b := keep(t, m)
		if err := h.Close(); err != nil {
			t.Fatal(err)
		}
		if errno := writtenByChild(t, b); errno != syscall.EFAULT {
			t.Errorf("%s: still mapped after Close: %v", m, errno)
		}
	}
}

// TestNoLockedMemory has a process without the right to lock memory: it gets an
// error that says what to change, and no other memory.
func TestNoLockedMemory(t *testing.T) {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), childEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("RLIMIT_MEMLOCK")) || !bytes.Contains(out, []byte("16 KiB")) {
		t.Errorf("got %v, %s", err, out)
	}
}

func childWithoutLockedMemory() {
	const nobody, memlock = 65534, 8
	if os.Geteuid() == 0 { // root may lock any amount
		if err := syscall.Setuid(nobody); err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
	}
	if err := syscall.Setrlimit(memlock, &syscall.Rlimit{}); err != nil {
		fmt.Println(err)
		os.Exit(3)
	}
	h, err := NewLocked()
	fmt.Println(h, err)
	if !errors.Is(err, ErrMemory) || h != nil {
		os.Exit(4)
	}
	os.Exit(0)
}
