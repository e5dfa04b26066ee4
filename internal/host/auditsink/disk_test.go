package auditsink

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

func openDisk(t *testing.T, dir string) *Sink {
	t.Helper()
	s, err := Open(dir, Options{})
	if err != nil {
		t.Fatalf("Open: %v", err)
	}
	return s
}

func TestDisk(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "audit")
	as := entries(testID, 8)
	s := openDisk(t, dir)
	put(t, s, as[0], durably(as[1]), as[2])
	closeSink(t, s)
	s = openDisk(t, dir) // the manager is started anew, the core goes on
	put(t, s, as[3:]...)
	closeSink(t, s)

	want := map[string][]byte{
		"aa010000-0000-0000-0000-000000000000-00000000000000000001.trail": frames(as[:3]...),
		"aa010000-0000-0000-0000-000000000000-00000000000000000004.trail": frames(as[3:]...),
	}
	got := map[string][]byte{}
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		info, err := e.Info()
		if err != nil || info.Mode() != 0o600 {
			t.Errorf("file %s has mode %v, want 0600", e.Name(), info.Mode())
		}
		if got[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil || !bytes.Equal(got[e.Name()], want[e.Name()]) {
			t.Errorf("file %s has %d bytes, want %d", e.Name(), len(got[e.Name()]), len(want[e.Name()]))
		}
	}
	if len(got) != 2 {
		t.Errorf("got %d files, want 2", len(got))
	}
	if info, err := os.Stat(dir); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the directory has mode %v, %v, want 0700", info.Mode(), err)
	}
	if r := verify(got); !r.Intact() {
		t.Errorf("Verify: got %+v", r)
	}
}

// A file in use has unused space behind its entries, which is no finding: not in
// a copy of the file, and not after a crash.
func TestUnusedSpace(t *testing.T) {
	dir := t.TempDir()
	s := openDisk(t, dir)
	name := filepath.Join(dir, testID.String()+"-00000000000000000001.trail")
	written, count := 0, uint64(0)
	for chunk := range slices.Chunk(entries(testID, 4000), 500) { // over several allotments
		last := len(chunk) - 1
		put(t, s, chunk[:last]...)
		put(t, s, durably(chunk[last]))
		written += len(frames(chunk...))
		count += uint64(len(chunk))
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		if len(b)%allot != 0 || len(b) <= written || len(b) > written+allot || len(bytes.Trim(b[written:], "\x00")) > 0 {
			t.Fatalf("after %d entries the file has %d bytes, want zeros from %d on to a multiple of %d", count, len(b), written, allot)
		}
		if r := verify(map[string][]byte{"copy": b}); !r.Intact() || r.Instances[0].Entries != count {
			t.Fatalf("Verify of a copy after %d entries: got %+v", count, r)
		}
	}
	closeSink(t, s)
	if info, err := os.Stat(name); err != nil || info.Size() != int64(written) {
		t.Errorf("the closed file has %d bytes, %v, want %d", info.Size(), err, written)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	plain := filepath.Join(dir, "file")
	if err := os.WriteFile(plain, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	blocked := filepath.Join(dir, "blocked")
	if err := os.MkdirAll(filepath.Join(blocked, ".writable"), 0o700); err != nil {
		t.Fatal(err)
	}
	for name, path := range map[string]string{
		"a file":            plain,
		"below a file":      filepath.Join(plain, "audit"),
		"cannot be created": filepath.Join(dir, "x\x00y"),
		"not writable":      blocked,
	} {
		if s, err := Open(path, Options{}); err == nil {
			t.Errorf("%s: Open succeeds", name)
			s.Close()
		}
	}
}

func TestOpenReadOnly(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o500); err != nil {
		t.Fatal(err)
	}
	asNobody(t)
	if _, err := Open(dir, Options{}); !errors.Is(err, fs.ErrPermission) {
		t.Errorf("Open: got %v, want no permission", err)
	}
}

// asNobody makes file permissions bind the rest of the test, also as root, by
// taking the file system rights from its thread, which ends with the test.
func asNobody(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	if err := os.Chmod(filepath.Dir(t.TempDir()), 0o755); err != nil { // parent of all its directories
		t.Fatal(err)
	}
	const root, nobody = 0, 65534
	runtime.LockOSThread() // and never unlocked: the thread is not used again
	syscall.RawSyscall(syscall.SYS_SETFSUID, nobody, 0, 0)
	t.Cleanup(func() { syscall.RawSyscall(syscall.SYS_SETFSUID, root, 0, 0) })
}

// Writing to a file that is gone succeeds as far as the kernel is concerned.
func TestFileIsGone(t *testing.T) {
	for name, act := range map[string]func(dir, file string) error{
		"directory deleted": func(dir, _ string) error { return os.RemoveAll(dir) },
		"file deleted":      func(_, file string) error { return os.Remove(file) },
		"file moved away":   func(_, file string) error { return os.Rename(file, file+".old") },
		"file replaced": func(_, file string) error {
			return errors.Join(os.WriteFile(file+".new", nil, 0o600), os.Rename(file+".new", file))
		},
	} {
		dir, as := filepath.Join(t.TempDir(), "audit"), entries(testID, 4)
		s := openDisk(t, dir)
		put(t, s, durably(as[0]))
		if err := act(dir, filepath.Join(dir, testID.String()+"-00000000000000000001.trail")); err != nil {
			t.Fatal(err)
		}
		for _, a := range as[1:] {
			if err := s.Put(t.Context(), durably(a)); !errors.Is(err, ErrSpool) {
				t.Errorf("%s: Put: got %v, want ErrSpool", name, err)
			}
		}
		if err := s.Close(); !errors.Is(err, ErrSpool) {
			t.Errorf("%s: Close: got %v, want ErrSpool", name, err)
		}
	}
}

// Before the first entry there is no file, but there may be no directory either.
func TestDirectoryIsGone(t *testing.T) {
	dir, as := filepath.Join(t.TempDir(), "audit"), entries(testID, 2)
	s := openDisk(t, dir)
	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if err := s.Put(t.Context(), durably(as[0])); !errors.Is(err, ErrSpool) {
		t.Errorf("Put: got %v, want ErrSpool", err)
	}
	s.Close()
}

// A file that exists is never written to.
func TestFileExists(t *testing.T) {
	dir, as := t.TempDir(), entries(testID, 2)
	name := filepath.Join(dir, testID.String()+"-00000000000000000001.trail")
	if err := os.WriteFile(name, []byte("evidence"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := openDisk(t, dir)
	if err := s.Put(t.Context(), durably(as[0])); !errors.Is(err, ErrSpool) || !errors.Is(err, fs.ErrExist) {
		t.Errorf("Put: got %v, want ErrSpool", err)
	}
	s.Close()
	if b, err := os.ReadFile(name); err != nil || string(b) != "evidence" {
		t.Errorf("the file has become %q, %v", b, err)
	}
}

// numbered returns a frame and what makes it the frame of entry n.
func numbered() (frame []byte, set func(frame []byte, n uint64)) {
	e := trail.Entry{Kind: trail.Request, Sequence: 1, Instance: testID, RequestID: "0123456789abcdef", Action: "Encrypt", Code: 200, Reason: "ok"}
	frame = trail.AppendFrame(nil, e.Append(nil), [32]byte{})
	return frame, func(b []byte, n uint64) {
		e.Sequence = n
		e.Append(b[:4])
	}
}

func BenchmarkPut(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	frame, set := numbered()
	b.ReportAllocs()
	n := uint64(0)
	for b.Loop() {
		n++
		set(frame, n)
		if err := s.Put(b.Context(), wire.Audit{First: n, Count: 1, Frames: frame}); err != nil {
			b.Fatal(err)
		}
	}
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
}

// BenchmarkPutDurable has 32 requests in flight, as of clients that change keys.
func BenchmarkPutDurable(b *testing.B) {
	s, err := Open(b.TempDir(), Options{})
	if err != nil {
		b.Fatal(err)
	}
	var n atomic.Uint64
	b.SetParallelism(16)
	b.RunParallel(func(pb *testing.PB) {
		frame, set := numbered()
		for pb.Next() {
			i := n.Add(1)
			set(frame, i)
			if err := s.Put(b.Context(), wire.Audit{First: i, Count: 1, Frames: frame, Durable: true}); err != nil {
				b.Error(err)
			}
		}
	})
	if err := s.Close(); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.N)/float64(s.Stats().Flushes), "puts/fsync")
}
