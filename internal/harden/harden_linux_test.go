package harden

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// What is tested is for good, so it happens in child processes. The role of one is
// in the environment.
const role = "EHSM_TEST_HARDEN_ROLE"

const (
	marker  = "what a debugger looks for"
	allBits = ^uintptr(0) // no argument that does harm, should a call get through
	nobody  = 65534
)

func TestMain(m *testing.M) {
	roles := map[string]func(args []string) error{
		"victim": victim, "spy": spy, "crash": crash, "call": call, "foreign": foreign, "work": work,
	}
	if f := roles[os.Getenv(role)]; f != nil {
		if err := f(os.Args[1:]); err != nil {
			fmt.Println("error:", err)
			os.Exit(3)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func child(name string, args ...string) *exec.Cmd {
	c := exec.Command("/proc/self/exe", args...)
	c.Env = append(os.Environ(), role+"="+name, "GORACE=atexit_sleep_ms=0") // the race detector waits a second otherwise
	return c
}

// needSeccomp is for kernels without it. Here it must be there.
func needSeccomp(t *testing.T) {
	t.Helper()
	if !Probe().Seccomp {
		t.Skip("seccomp is missing: it takes Linux with CONFIG_SECCOMP_FILTER")
	}
}

// becomeNobody gives up the rights of root, who may read any process.
func becomeNobody() error {
	if os.Geteuid() != 0 {
		return nil
	}
	return errors.Join(syscall.Setgid(nobody), syscall.Setuid(nobody))
}

// victim waits to be spied out, hidden or not.
func victim(args []string) error {
	if err := becomeNobody(); err != nil {
		return err
	}
	// As after executing a program: changing the user has hidden it already.
	if err := unix.Prctl(unix.PR_SET_DUMPABLE, 1, 0, 0, 0); err != nil {
		return err
	}
	unix.Prctl(unix.PR_SET_PTRACER, ^uintptr(0), 0, 0, 0) // where Yama asks for it
	if args[0] == "hidden" {
		if _, err := Hide(); err != nil {
			return err
		}
	}
	b := []byte(marker)
	fmt.Printf("%d\n", uintptr(unsafe.Pointer(&b[0])))
	_, err := io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(b)
	return err
}

// spy tells how each way into another process goes.
func spy(args []string) error {
	if err := becomeNobody(); err != nil {
		return err
	}
	pid, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	address, err := strconv.ParseUint(args[1], 10, 64)
	if err != nil {
		return err
	}
	proc := fmt.Sprintf("/proc/%d/", pid)
	b := make([]byte, len(marker))
	tell := func(way string, err error) { fmt.Printf("%s: %v\n", way, err) }
	found := func() error {
		if string(b) != marker {
			return errors.New("read something else")
		}
		return nil
	}

	mem, err := os.Open(proc + "mem")
	if err == nil {
		_, err = mem.ReadAt(b, int64(address))
		err = errors.Join(err, found())
	}
	tell("mem", err)
	clear(b)
	_, err = unix.ProcessVMReadv(pid, []unix.Iovec{{Base: &b[0], Len: uint64(len(b))}},
		[]unix.RemoteIovec{{Base: uintptr(address), Len: len(b)}}, 0)
	if err == nil {
		err = found()
	}
	tell("process_vm_readv", err)
	_, err = os.ReadFile(proc + "environ")
	tell("environ", err)
	_, err = os.Readlink(proc + "exe")
	tell("exe", err)
	runtime.LockOSThread()
	tell("ptrace", unix.PtraceSeize(pid)) // stops nothing, and ends with this process
	return nil
}

var ways = []string{"mem", "process_vm_readv", "environ", "exe", "ptrace"}

func TestHideFromProcessesOfTheUser(t *testing.T) {
	for _, kind := range []string{"open", "hidden"} {
		v := child("victim", kind)
		in, err := v.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := v.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := v.Start(); err != nil {
			t.Fatal(err)
		}
		address, err := bufio.NewReader(out).ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		told, err := child("spy", strconv.Itoa(v.Process.Pid), strings.TrimSpace(address)).CombinedOutput()
		in.Close()
		v.Wait()
		if err != nil {
			t.Fatalf("%v: %s", err, told)
		}
		for _, way := range ways {
			got := ""
			for line := range strings.Lines(string(told)) {
				if rest, ok := strings.CutPrefix(line, way+": "); ok {
					got = strings.TrimSpace(rest)
				}
			}
			refused := strings.HasSuffix(got, unix.EACCES.Error()) || strings.HasSuffix(got, unix.EPERM.Error())
			if kind == "open" && got != "<nil>" || kind == "hidden" && !refused {
				t.Errorf("%s process, by %s: %s", kind, way, got)
			}
		}
	}
}

// crash ends this process by a signal that dumps core, if anything does.
func crash(args []string) error {
	if err := os.Chdir(args[1]); err != nil {
		return err
	}
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return err
	}
	limit.Cur = limit.Max
	if err := unix.Setrlimit(unix.RLIMIT_CORE, &limit); err != nil {
		return err
	}
	if args[0] == "hidden" {
		if _, err := Hide(); err != nil {
			return err
		}
		// Even where something has the right to raise the limit again, nothing
		// is dumped.
		unix.Setrlimit(unix.RLIMIT_CORE, &limit)
	}
	runtime.LockOSThread()
	// Go's handlers of signals are out of the way: only the kernel decides.
	unix.Syscall(unix.SYS_RT_SIGPROCMASK, unix.SIG_UNBLOCK, uintptr(unsafe.Pointer(&[1]uint64{1 << (unix.SIGABRT - 1)})), 0)
	var byDefault [4]uint64 // struct sigaction of the kernel: SIG_DFL, no flags
	if _, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(unix.SIGABRT), uintptr(unsafe.Pointer(&byDefault)), 0, 8, 0, 0); errno != 0 {
		return errno
	}
	unix.Kill(unix.Getpid(), unix.SIGABRT)
	select {}
}

func TestNoCoreDumps(t *testing.T) {
	for _, kind := range []string{"open", "hidden"} {
		dir := t.TempDir()
		out, err := child("crash", kind, dir).CombinedOutput()
		exit, ok := errors.AsType[*exec.ExitError](err)
		if !ok || !exit.Sys().(syscall.WaitStatus).Signaled() {
			t.Fatalf("%s process: %v, %s", kind, err, out)
		}
		dumped := exit.Sys().(syscall.WaitStatus).CoreDump()
		files, _ := os.ReadDir(dir)
		switch {
		case kind == "hidden" && (dumped || len(files) > 0):
			t.Errorf("a hidden process dumped core: %v, %d files", dumped, len(files))
		case kind == "open" && !dumped:
			t.Log("NOT SHOWN: that the same process dumps core without it: the limit or core_pattern of this machine forbids that")
		}
	}
}

// call filters system calls and makes one, on a thread that was there before.
func call(args []string) error {
	if err := becomeNobody(); err != nil {
		return err
	}
	number, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return err
	}
	start, done, ready := make(chan struct{}), make(chan syscall.Errno), make(chan struct{})
	go func() {
		runtime.LockOSThread()
		close(ready)
		<-start
		_, _, errno := unix.RawSyscall6(uintptr(number), allBits, allBits, allBits, allBits, allBits, allBits)
		done <- errno
	}()
	<-ready
	if args[0] != "all" {
		r, err := Filter(Calls{Sockets: args[0] == "sockets"})
		if err != nil {
			return err
		}
		if len(r.Missing) > 0 {
			return fmt.Errorf("%v", r)
		}
	}
	close(start)
	fmt.Printf("errno %d\n", <-done)
	return nil
}

func TestFatalCalls(t *testing.T) {
	needSeccomp(t)
	numbers := append(slices.Concat(fatal[:], fatalHere[:]), unix.SYS_GETPID|foreignNumbers)
	if foreignNumbers == 0 {
		numbers = numbers[:len(numbers)-1]
	}
	for _, number := range numbers {
		out, err := child("call", "sockets", fmt.Sprint(number)).CombinedOutput()
		if !killed(err) {
			t.Errorf("call %d: got %v, %s, want SIGSYS", number, err, out)
		}
	}
	if out, err := child("call", "all", fmt.Sprint(unix.SYS_PTRACE)).CombinedOutput(); err != nil {
		t.Errorf("ptrace without a filter: %v, %s", err, out)
	}
}

// killed says whether a child was ended by a filter.
func killed(err error) bool {
	exit, ok := errors.AsType[*exec.ExitError](err)
	return ok && exit.Sys().(syscall.WaitStatus).Signal() == syscall.SIGSYS
}

func TestRefusedCalls(t *testing.T) {
	needSeccomp(t)
	for _, row := range []struct {
		keep    string
		numbers []uint32
		refused bool
	}{
		{"none", refused[:], true},
		{"sockets", refused[:], true},
		{"none", sockets[:], true},
		{"sockets", sockets[:], false},
		{"none", []uint32{unix.SYS_ACCEPT4, unix.SYS_GETPID, unix.SYS_MMAP, unix.SYS_OPENAT, unix.SYS_FUTEX}, false},
	} {
		for _, number := range row.numbers {
			out, err := child("call", row.keep, fmt.Sprint(number)).CombinedOutput()
			refused := bytes.Contains(out, fmt.Appendf(nil, "errno %d\n", unix.EPERM))
			if err != nil || refused != row.refused {
				t.Errorf("keeping %s, call %d: got %v, %s, want refusal %v", row.keep, number, err, out, row.refused)
			}
		}
	}
}

// foreign makes a call as 32-bit programs do.
func foreign(args []string) error {
	if args[0] == "filtered" {
		if _, err := Filter(Calls{}); err != nil {
			return err
		}
	}
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE|unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	copy(page, []byte{0xb8, 20, 0, 0, 0, 0xcd, 0x80, 0xc3}) // mov eax, 20 (getpid); int 0x80; ret
	at := &page[0]
	entry := &at
	(*(*func())(unsafe.Pointer(&entry)))()
	return nil
}

func TestCallsOf32BitPrograms(t *testing.T) {
	needSeccomp(t)
	if runtime.GOARCH != "amd64" {
		t.Logf("NOT TESTED: calls of 32-bit programs on %s", runtime.GOARCH)
		return
	}
	if out, err := child("foreign", "open").CombinedOutput(); err != nil {
		t.Logf("NOT TESTED: calls of 32-bit programs: this kernel has none: %v, %.80s", err, out)
		return
	}
	if out, err := child("foreign", "filtered").CombinedOutput(); !killed(err) {
		t.Errorf("got %v, %s, want SIGSYS", err, out)
	}
}

// work does after the filter what our programs do.
func work([]string) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	if _, err := Hide(); err != nil {
		return err
	}
	if _, err := Filter(Calls{}); err != nil {
		return err
	}
	fmt.Println(ln.Addr())
	conn, err := ln.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := os.ReadFile("/proc/self/status"); err != nil {
		return err
	}
	done := make(chan error)
	for range 32 { // more threads than there are
		go func() {
			runtime.LockOSThread()
			_, err := os.Stat("/")
			done <- err
		}()
	}
	for range 32 {
		if err := <-done; err != nil {
			return err
		}
	}
	runtime.GC()
	<-time.After(time.Millisecond)
	if _, err := net.Dial("tcp", ln.Addr().String()); !errors.Is(err, unix.EPERM) {
		return fmt.Errorf("a new socket: got %w, want EPERM", err)
	}
	_, err = io.Copy(conn, conn)
	return err
}

func TestWorkGoesOn(t *testing.T) {
	needSeccomp(t)
	c := child("work")
	out, err := c.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewReader(out)
	address, err := lines.ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", strings.TrimSpace(address))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(conn, "echo")
	conn.(*net.TCPConn).CloseWrite()
	got, err := io.ReadAll(conn)
	rest, _ := io.ReadAll(lines)
	if werr := c.Wait(); werr != nil || err != nil || string(got) != "echo" {
		t.Errorf("got %q, %v, %v, %s", got, err, werr, rest)
	}
}

// TestFilterTable has each call in one list only, once.
func TestFilterTable(t *testing.T) {
	all := slices.Concat(fatal[:], fatalHere[:], refused[:], sockets[:])
	for i, number := range all {
		if slices.Contains(all[:i], number) {
			t.Errorf("call %d is listed twice", number)
		}
	}
	few, err := compile(Calls{})
	if err != nil {
		t.Fatal(err)
	}
	if more, err := compile(Calls{Sockets: true}); err != nil || len(few)-len(more) != 2*len(sockets) || len(few) > 4096 {
		t.Errorf("filters of %d and %d instructions, %v", len(few), len(more), err)
	}
}

// TestProbe holds on the machines that we test on; others are told what they lack.
func TestProbe(t *testing.T) {
	k := Probe()
	t.Logf("%+v", k)
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	if !k.Seccomp {
		t.Logf("NOT TESTED: seccomp: missing in Linux %s", unix.ByteSliceToString(u.Release[:]))
	}
	if k.LockedMemory < 16<<10 {
		t.Errorf("only %d bytes may be locked", k.LockedMemory)
	}
}
