package fence

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/harden"
)

const role = "EHSM_TEST_FENCE_ROLE"

func TestMain(m *testing.M) {
	var err error
	switch os.Getenv(role) {
	case "files":
		err = files(os.Args[1])
	case "execute":
		err = execute(os.Args[1])
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(3)
	}
	os.Exit(0)
}

func child(t *testing.T, name, dir string) *exec.Cmd {
	t.Helper()
	if harden.Probe().Landlock == 0 {
		t.Skip("landlock is missing: it takes Linux 5.13 with CONFIG_SECURITY_LANDLOCK, and landlock in the parameter lsm")
	}
	c := exec.Command("/proc/self/exe", dir)
	c.Env = append(os.Environ(), role+"="+name, "GORACE=atexit_sleep_ms=0") // the race detector waits a second otherwise
	return c
}

// lay makes what the children work with.
func lay(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{"mine", "other", "readable"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"mine/old", "other/old", "readable/old", "single"} {
		if err := os.WriteFile(filepath.Join(dir, f), []byte("text"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func confine(dir string) (harden.Report, error) {
	in := func(name string) string { return filepath.Join(dir, name) }
	return Confine(Paths{Write: []string{in("mine")}, Read: []string{in("readable"), in("single"), in("missing")}})
}

// TestFiles has a confined process try everything on every file, as root too if
// the tests run as root.
func TestFiles(t *testing.T) {
	if out, err := child(t, "files", lay(t)).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

func files(dir string) error {
	in := func(name string) string { return filepath.Join(dir, name) }
	open, err := os.Open(in("other/old"))
	if err != nil {
		return err
	}
	var work, done = make(chan func() error), make(chan error)
	go func() { // a thread from before
		runtime.LockOSThread()
		for f := range work {
			done <- f()
		}
	}()
	r, err := confine(dir)
	if err != nil {
		return err
	}
	if len(r.Missing) > 0 || !strings.Contains(r.String(), "files closed off but for "+in("mine")) {
		return fmt.Errorf("report: %v", r)
	}
	read := func(name string) func() error {
		return func() error { _, err := os.ReadFile(name); return err }
	}
	write := func(name string) func() error {
		return func() error { return os.WriteFile(name, []byte("new"), 0o600) }
	}
	for _, row := range []struct {
		name string
		try  func() error
		goes bool
	}{
		{"read mine", read(in("mine/old")), true},
		{"make mine", write(in("mine/new")), true},
		{"change mine", write(in("mine/old")), true},
		{"cut mine", func() error { return os.Truncate(in("mine/old"), 1) }, true},
		{"rename mine", func() error { return os.Rename(in("mine/new"), in("mine/newer")) }, true},
		{"directory in mine", func() error { return os.MkdirAll(in("mine/a/b"), 0o700) }, true},
		{"below mine", write(in("mine/a/b/c")), true},
		{"remove mine", func() error { return os.RemoveAll(in("mine/a")) }, true},
		{"list mine", func() error { _, err := os.ReadDir(in("mine")); return err }, true},
		{"read readable", read(in("readable/old")), true},
		{"list readable", func() error { _, err := os.ReadDir(in("readable")); return err }, true},
		{"read single", read(in("single")), true},
		{"what was open", func() error { _, err := open.Read(make([]byte, 1)); return err }, true},

		{"change readable", write(in("readable/old")), false},
		{"make readable", write(in("readable/new")), false},
		{"remove readable", func() error { return os.Remove(in("readable/old")) }, false},
		{"change single", write(in("single")), false},
		{"read other", read(in("other/old")), false},
		{"change other", write(in("other/old")), false},
		{"make other", write(in("other/new")), false},
		{"cut other", func() error { return os.Truncate(in("other/old"), 0) }, false},
		{"list other", func() error { _, err := os.ReadDir(in("other")); return err }, false},
		{"remove other", func() error { return os.Remove(in("other/old")) }, false},
		{"directory in other", func() error { return os.Mkdir(in("other/a"), 0o700) }, false},
		{"read through a way up", read(in("mine/../other/old")), false},
		{"link to symbolically", func() error { return os.Symlink(in("other/old"), in("mine/link")) }, false},
		{"link in", func() error { return os.Link(in("other/old"), in("mine/link")) }, false},
		{"move in", func() error { return os.Rename(in("other/old"), in("mine/moved")) }, false},
		{"move out", func() error { return os.Rename(in("mine/old"), in("other/moved")) }, false},
		{"make a device", func() error { return syscall.Mknod(in("mine/null"), syscall.S_IFCHR|0o600, 1<<8|3) }, false},
		{"read passwd", read("/etc/passwd"), false},
		{"read the program", read("/proc/self/exe"), false},
		{"read own memory", read("/proc/self/mem"), false},
		{"make in /tmp", write(in("../fence-test")), false},
	} {
		work <- row.try
		err := <-done
		refused := errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EXDEV)
		if row.goes && err != nil || !row.goes && !refused {
			fmt.Printf("%s: got %v\n", row.name, err)
		}
	}
	return nil
}

// TestNoOtherPrograms has a process try to execute what it may write: the file's
// rights refuse it, and the filter ends the process.
func TestNoOtherPrograms(t *testing.T) {
	out, err := child(t, "execute", lay(t)).CombinedOutput()
	exit, ok := errors.AsType[*exec.ExitError](err)
	if !ok || exit.Sys().(syscall.WaitStatus).Signal() != syscall.SIGSYS || string(out) != "fenced: permission denied\n" {
		t.Errorf("got %v, %s, want a refusal, then SIGSYS", err, out)
	}
}

func execute(dir string) error {
	program := filepath.Join(dir, "mine/old")
	if _, err := restrict(Paths{Write: []string{filepath.Dir(program)}}); err != nil {
		return err
	}
	fmt.Println("fenced:", syscall.Exec(program, nil, nil))
	if _, err := harden.Filter(harden.Calls{}); err != nil {
		return err
	}
	return fmt.Errorf("still here: %w", syscall.Exec(program, nil, nil))
}

func TestMissingDirectory(t *testing.T) {
	if _, err := restrict(Paths{Write: []string{filepath.Join(t.TempDir(), "missing")}}); harden.Probe().Landlock > 0 && !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want a missing directory", err)
	}
}
