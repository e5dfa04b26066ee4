package auditsink

import (
	"bytes"
	"crypto/ed25519"
	"crypto/sha256"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// A memFolder is a file system that can be told to fail.
type memFolder struct {
	mu      sync.Mutex
	files   map[string]*memFile
	syncs   int
	most    int // bytes of a file that were ever without a Sync
	create  error
	write   error
	sync    error
	closing error
	block   chan struct{} // if not nil, Sync receives from it
	takes   time.Duration // that a Sync takes, in a synctest bubble
	entered chan struct{} // gets one token when Sync begins, if there is room
}

func newMemFolder() *memFolder {
	return &memFolder{files: map[string]*memFile{}, entered: make(chan struct{}, 1)}
}

func (d *memFolder) Create(name string) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.create != nil {
		return nil, d.create
	}
	f := &memFile{dir: d}
	d.files[name] = f
	return f, nil
}

func (d *memFolder) Close() error { return d.closing }

// fail sets one of the errors of d.
func (d *memFolder) fail(which *error, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	*which = err
}

// durable returns what would be left of each file after a power cut.
func (d *memFolder) durable() map[string][]byte {
	d.mu.Lock()
	defer d.mu.Unlock()
	m := map[string][]byte{}
	for name, f := range d.files {
		m[name] = bytes.Clone(f.data[:f.synced])
	}
	return m
}

func (d *memFolder) names() []string { return slices.Sorted(maps.Keys(d.durable())) }

// all returns the durable bytes of all files in the order of their names.
func (d *memFolder) all() (b []byte) {
	m := d.durable()
	for _, name := range slices.Sorted(maps.Keys(m)) {
		b = append(b, m[name]...)
	}
	return b
}

type memFile struct {
	dir    *memFolder
	data   []byte
	synced int
	closed bool
}

func (f *memFile) Write(p []byte) (int, error) {
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	if f.dir.write != nil {
		f.data = append(f.data, p[:len(p)/2]...) // as on a full disk
		return len(p) / 2, f.dir.write
	}
	f.data = append(f.data, p...)
	f.dir.most = max(f.dir.most, len(f.data)-f.synced)
	return len(p), nil
}

func (f *memFile) Sync() error {
	select {
	case f.dir.entered <- struct{}{}:
	default:
	}
	if f.dir.block != nil {
		<-f.dir.block
	}
	if f.dir.takes > 0 {
		pass(f.dir.takes)
	}
	f.dir.mu.Lock()
	defer f.dir.mu.Unlock()
	f.dir.syncs++
	if f.dir.sync != nil {
		return f.dir.sync
	}
	f.synced = len(f.data)
	return nil
}

func (f *memFile) Close() error { f.closed = true; return nil }

var (
	testDomain = sha256.Sum256([]byte("genesis"))
	testID     = wire.UUID{0xaa, 1: 1}
	otherID    = wire.UUID{0xbb, 1: 2}
)

func testKey(text string) ed25519.PrivateKey {
	seed := sha256.Sum256([]byte(text))
	return ed25519.NewKeyFromSeed(seed[:])
}

// entries returns a trail of n entries, one to a Put, whose last is a checkpoint.
func entries(id wire.UUID, n int) []wire.Audit {
	domain, key := testKey("domain"), testKey("instance")
	chain := trail.First(testDomain, id)
	out := make([]wire.Audit, n)
	for i := range out {
		e := trail.Entry{Kind: trail.Request, Sequence: uint64(i + 1), Time: int64(i + 1), Instance: id, Action: "Encrypt", Reason: "ok"}
		switch i {
		case 0:
			e = trail.Entry{Kind: trail.Start, Sequence: 1, Time: 1, Instance: id, Domain: testDomain, Platform: "sim"}
			copy(e.PublicKey[:], key.Public().(ed25519.PublicKey))
			copy(e.Endorsement[:], ed25519.Sign(domain, trail.EndorsementMessage(testDomain, id, e.PublicKey)))
		case n - 1:
			e.Kind, e.Head = trail.Checkpoint, chain
			copy(e.Signature[:], ed25519.Sign(key, trail.CheckpointMessage(testDomain, id, e.Sequence, e.Time, chain)))
		}
		b := e.Append(nil)
		chain = trail.Chain(chain, b)
		out[i] = wire.Audit{First: e.Sequence, Count: 1, Frames: trail.AppendFrame(nil, b, chain)}
	}
	return out
}

func frames(as ...wire.Audit) (b []byte) {
	for _, a := range as {
		b = append(b, a.Frames...)
	}
	return b
}

func durably(a wire.Audit) wire.Audit { a.Durable = true; return a }

func verify(d map[string][]byte) trail.Report {
	var files []trail.File
	for name, b := range d {
		files = append(files, trail.File{Name: name, Data: bytes.NewReader(b), Size: int64(len(b))})
	}
	return trail.Verify(files, testKey("domain").Public().(ed25519.PublicKey), testDomain)
}

// put fails the test if Put does.
func put(t *testing.T, s *Sink, as ...wire.Audit) {
	t.Helper()
	for _, a := range as {
		if err := s.Put(t.Context(), a); err != nil {
			t.Fatalf("Put: %v", err)
		}
	}
}

func closeSink(t *testing.T, s *Sink) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
}

// pass lets time pass, in a synctest bubble.
func pass(d time.Duration) { <-time.After(d) }
