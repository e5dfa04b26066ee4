package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// A devSite is `ehsm dev --nodes 3`, as a user sees it.
type devSite struct {
	t    *testing.T
	home *target // of which only the environment is used
	dev  *process
	out  *output
}

var (
	devTable = regexp.MustCompile(`(?m)^  node-(\d)  (https://127\.0\.0\.1:\d+)( not admitted)? +(\d+) +(\d+) +(\d+) +(?:(\d+) root|(\d+) worker|-) +(\d+)$`)
	devReady = regexp.MustCompile(`starts again what has ended\n`)
	devField = regexp.MustCompile(`(?m)^  (domain|fingerprint|next): +(.*)$`)
)

func newDevSite(t *testing.T) *devSite {
	t.Helper()
	dir, err := os.MkdirTemp("", "nodes-*") // short: paths of unix sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := &devSite{t: t, home: &target{dir: dir}}
	s.start()
	return s
}

// start starts the site and returns when it says that it is ready.
func (s *devSite) start() {
	s.t.Helper()
	s.out = newOutput()
	s.dev = spawn(s.t, s.out, s.home.environ(), "ehsm", "dev", "--nodes", "3", "--listen", "127.0.0.1:0", "--data", s.path())
	if _, err := s.dev.await(0, devReady); err != nil {
		s.t.Fatalf("%v\n%s", err, s.text())
	}
}

func (s *devSite) path(names ...string) string {
	return filepath.Join(append([]string{s.home.dir, "d"}, names...)...)
}

func (s *devSite) text() string {
	b, _ := s.out.after(0)
	return string(b)
}

// field is a line of the screen.
func (s *devSite) field(name string) string {
	for _, m := range devField.FindAllStringSubmatch(s.text(), -1) {
		if m[1] == name {
			return m[2]
		}
	}
	s.t.Fatalf("no %s in\n%s", name, s.text())
	return ""
}

// pids are the processes in the table.
func (s *devSite) pids() (all []int) {
	for _, row := range devTable.FindAllStringSubmatch(s.text(), -1) {
		for _, text := range row[4:] {
			if text != "" {
				pid, err := strconv.Atoi(text)
				if err != nil {
					s.t.Fatal(err)
				}
				all = append(all, pid)
			}
		}
	}
	return all
}

// ehsm runs the command line, with input, and returns what it prints.
func (s *devSite) ehsm(input string, args ...string) (string, error) {
	cmd := exec.Command(filepath.Join(bin, "ehsm"), args...)
	cmd.Env, cmd.Stdin = s.home.environ(), strings.NewReader(input)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("ehsm %s: %w: %s", strings.Join(args, " "), err, &stderr)
	}
	return strings.TrimSpace(string(out)), err
}

func (s *devSite) must(input string, args ...string) string {
	s.t.Helper()
	out, err := s.ehsm(input, args...)
	if err != nil {
		s.t.Fatal(err)
	}
	return out
}

// gone waits until none of some processes runs.
func (s *devSite) gone(pids []int) {
	s.t.Helper()
	end := time.Now().Add(stopTimeout)
	for _, pid := range pids {
		for {
			stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			if err != nil || strings.Contains(string(stat), ") Z ") {
				break
			}
			if time.Now().After(end) {
				s.t.Fatalf("process %d still runs: %s", pid, stat)
			}
			<-time.After(10 * time.Millisecond)
		}
	}
}

// TestDevNodes has the domain of `ehsm dev --nodes 3` survive what a user tries with
// it: the root is killed, all is killed, dev itself is killed, and it is started again.
func TestDevNodes(t *testing.T) {
	t.Parallel()
	s := newDevSite(t)
	rows := devTable.FindAllString(s.text(), -1)
	if len(rows) != 3 || len(s.pids()) != 14 {
		t.Fatalf("the table is not there:\n%s", s.text())
	}
	key := s.must("", "key", "create")
	sealed := s.must("any node", "encrypt", "--key", key)
	domain, printed := s.field("domain"), s.field("fingerprint")
	decrypts := func(node int) error {
		out, err := s.ehsm(sealed, "decrypt", "--profile", fmt.Sprint("dev-", node))
		if err == nil && out != "any node" {
			err = fmt.Errorf("node %d decrypts to %q", node, out)
		}
		return err
	}
	var wg sync.WaitGroup
	for node := 1; node <= 3; node++ {
		wg.Go(func() {
			for range 15 {
				if err := decrypts(node); err != nil {
					t.Errorf("while the dkeyservers are killed: %v", err)
				}
			}
		})
	}
	for n := 1; n <= 2; n++ {
		s.kill(fmt.Sprintf("node%d/dkeyserver.pid", n))
		s.said(fmt.Sprintf(`node-%d ehsm-dkeyserver has ended: signal: killed`, n))
	}
	wg.Wait()

	s.kill("node*/*.pid", "postgres.pid")
	s.said(`PostgreSQL has ended`)
	if err := s.dev.cmd.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	s.said(`node-3 ehsm-kms is started again`)
	s.eventually(func() error { return decrypts(3) })
	s.eventually(func() error { return decrypts(1) })

	pids := s.pids()
	s.dev.kill()
	s.gone(pids)
	s.start()
	if s.field("domain") != domain || s.field("fingerprint") != printed {
		t.Errorf("the second start has another domain:\n%s", s.text())
	}
	if err := decrypts(2); err != nil {
		t.Errorf("after the second start: %v", err)
	}
	if out, err := s.ehsm("", "dev", "--nodes", "3", "--data", s.path()); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("process %d runs the domain", s.dev.cmd.Process.Pid)) {
		t.Errorf("a second dev on the same directory: %s, %v", out, err)
	}
	pids = s.pids()
	if err := s.dev.stop(); err != nil {
		t.Errorf("ehsm dev: %v\n%s", err, s.text())
	}
	s.gone(pids)
	if left, _ := filepath.Glob(s.path("node*", "*.pid")); len(left) > 0 {
		t.Errorf("left are %q", left)
	}
	if m := alarm.FindString(s.text()); m != "" {
		t.Errorf("it printed %s", m)
	}
}

// kill is kill -9 for the processes whose ids are in files.
func (s *devSite) kill(patterns ...string) {
	s.t.Helper()
	for _, pattern := range patterns {
		files, err := filepath.Glob(s.path(pattern))
		if err != nil || len(files) == 0 {
			s.t.Fatalf("%s: %v", pattern, err)
		}
		for _, file := range files {
			b, err := os.ReadFile(file)
			if err != nil {
				s.t.Fatal(err)
			}
			pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
			if err != nil {
				s.t.Fatal(err)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				s.t.Fatal(err)
			}
		}
	}
}

// said waits until people have been told something.
func (s *devSite) said(what string) {
	s.t.Helper()
	if _, err := s.dev.await(0, regexp.MustCompile(what)); err != nil {
		s.t.Fatalf("nobody said %q: %v\n%s", what, err, s.text())
	}
}

// eventually repeats what may fail for a while.
func (s *devSite) eventually(f func() error) {
	s.t.Helper()
	end := time.Now().Add(readyTimeout)
	for err := f(); err != nil; err = f() {
		if time.Now().After(end) {
			s.t.Fatalf("%v\n%s", err, s.text())
		}
	}
}
