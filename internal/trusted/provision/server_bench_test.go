package provision

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"runtime/pprof"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// What a benchmark tells the process of its server.
const (
	benchMachines = "EHSM_TEST_BENCH_MACHINES" // directory of the simulated machines
	benchDomain   = "EHSM_TEST_BENCH_DOMAIN"   // that of the domain
	benchProfile  = "EHSM_TEST_BENCH_PROFILE"  // file for a profile of the server, optional
)

// BenchmarkServer has dkeycaches of this process fetch the DomainKey from a dkeyserver
// in a process of its own, and reports the processor time that the dkeyserver takes
// for each: server-us/op. It includes the making of a simulated quote. The machines
// are made once in a process, so it runs with -count 1 only.
func BenchmarkServer(b *testing.B) {
	dir, err := os.MkdirTemp("", "bench")
	if err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(dir)
	b.Setenv(benchMachines, dir)
	a := newRealm(b)
	b.Setenv(benchDomain, a.dir)
	server := startServer(b)
	c := newProgram(b, 1, channel.DKeyCache, nil, nil).client(b, server.line())
	b.Run("many dkeycaches", func(b *testing.B) {
		provisionOnce(b, a, c)
		b.SetParallelism(8)
		before := server.used()
		b.ResetTimer()
		b.RunParallel(func(pb *testing.PB) {
			for pb.Next() {
				provisionOnce(b, a, c)
			}
		})
		b.StopTimer()
		b.ReportMetric(float64((server.used()-before).Microseconds())/float64(b.N), "server-us/op")
	})
}

// A benchServer is the other process. It says its address first, and then for each
// line that it is sent how much processor time it has used.
type benchServer struct {
	b   *testing.B
	in  *os.File
	out *bufio.Scanner
}

func startServer(b *testing.B) *benchServer {
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestBenchServer$")
	r, w, err := os.Pipe()
	if err != nil {
		b.Fatal(err)
	}
	cmd.Stdin, cmd.Stderr = r, os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	r.Close()
	b.Cleanup(func() {
		w.Close()
		cmd.Wait()
	})
	return &benchServer{b, w, bufio.NewScanner(out)}
}

func (s *benchServer) line() string {
	if !s.out.Scan() {
		s.b.Fatalf("the server has ended: %v", s.out.Err())
	}
	if text := s.out.Text(); !strings.HasPrefix(text, "--- FAIL") {
		return text
	}
	for s.out.Scan() {
		s.b.Log(s.out.Text())
	}
	s.b.Fatal("the server failed")
	return ""
}

func (s *benchServer) used() time.Duration {
	fmt.Fprintln(s.in)
	d, err := time.ParseDuration(s.line())
	if err != nil {
		s.b.Fatal(err)
	}
	return d
}

// TestBenchServer is that process, and else nothing.
func TestBenchServer(t *testing.T) {
	dir, ok := os.LookupEnv(benchDomain)
	if !ok {
		return
	}
	files, err := domainkey.Files(dir)
	if err != nil {
		t.Fatal(err)
	}
	a := &realm{dir: dir, files: files}
	if a.last, err = manifest.Open(files[0]); err != nil {
		t.Fatal(err)
	}
	if path := os.Getenv(benchProfile); path != "" {
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := pprof.StartCPUProfile(f); err != nil {
			t.Fatal(err)
		}
		defer pprof.StopCPUProfile()
	}
	fmt.Println(newProgram(t, 0, channel.DKeyServer, a.knowing(t), a.rooted(t)).serve(t))
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		var u syscall.Rusage
		if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
			t.Fatal(err)
		}
		fmt.Println(time.Duration(u.Utime.Nano() + u.Stime.Nano()))
	}
}
