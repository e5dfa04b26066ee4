//go:build linux && !race

package core

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
)

const memoryEnv = "EHSM_TEST_MEMORY_OF"

// TestKeysLieInOnePlace reads the whole memory of a process that has opened a
// domain and used its keys, as a debugger does, and looks for them. In secret
// memory nothing may be found at all, in locked memory one copy.
func TestKeysLieInOnePlace(t *testing.T) {
	if dir := os.Getenv(memoryEnv); dir != "" {
		useKeys(t, dir)
		return
	}
	dir := t.TempDir()
	newDomainIn(t, dir)
	needles := openBundle(t, dir)
	p := startUser(t, dir)
	copies := 0
	switch p.memory {
	case secret.Hidden.String():
	case secret.Locked.String():
		t.Log("NOT TESTED: secret memory: this kernel has no memfd_secret (CONFIG_SECRETMEM, secretmem.enable=1)")
		copies = 1
	default:
		t.Fatalf("the child has its keys in %s", p.memory)
	}
	found, size := p.count(t, needles)
	t.Logf("%d MiB read, keys in %s, temporaries erased: %v", size>>20, p.memory, secret.Erases)
	for _, n := range needles {
		switch {
		case n.decoy && found[n.name] == 0:
			t.Errorf("%s was not found: the search does not work", n.name)
		case n.decoy, n.temporary && !secret.Erases:
			t.Logf("%s: %d copies", n.name, found[n.name])
		case n.lasting && found[n.name] != copies, !n.lasting && found[n.name] != 0:
			t.Errorf("%s: %d copies outside of secret memory", n.name, found[n.name])
		}
	}
}

// A needle is what is searched for.
type needle struct {
	name      string
	bytes     []byte
	lasting   bool // has a place in the Home
	temporary bool // is in memory that only runtime/secret erases
	decoy     bool // must be found
}

// openBundle opens the sealed bundle by its layout, docs/formats.md#domainkey-bundle-v1.
func openBundle(t *testing.T, dir string) []needle {
	t.Helper()
	p, err := sim.Open(filepath.Join(dir, "sim"), tee.ProductCore, 1)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile(filepath.Join(dir, "domain", domainkey.BundleFile))
	if err != nil {
		t.Fatal(err)
	}
	const headLen = 1 + 1 + 2 + 32 + 4 + 32
	head, box := bundle[:headLen], bundle[headLen:]
	key, err := p.SealKey(tee.KeyRequest{Policy: tee.BindSigner, SVN: binary.BigEndian.Uint16(head[2:]), KeyID: [32]byte(head[4:36])})
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key.Expose())
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := aead.Open(nil, make([]byte, 12), box, append([]byte("ehsm/domainkey-bundle/v1\x00"), head...))
	if err != nil {
		t.Fatal(err)
	}
	keys, _, err := domainkey.Open(filepath.Join(dir, "domain"), p, secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	seed, dk := plain[:32], plain[36:]
	wrapping, err := keys.Key(domainkey.RecordWrapping, 1)
	if err != nil {
		t.Fatal(err)
	}
	token, err := keys.Key(domainkey.ImportToken, 1)
	if err != nil {
		t.Fatal(err)
	}
	genesis, err := os.ReadFile(filepath.Join(dir, "domain", domainkey.GenesisFile))
	if err != nil {
		t.Fatal(err)
	}
	needles := []needle{
		{name: "DomainKey", bytes: dk, lasting: true},
		{name: "record wrapping key", bytes: wrapping.Expose(), lasting: true},
		{name: "import token key", bytes: token.Expose(), lasting: true},
		{name: "domain's signing seed", bytes: seed, lasting: true, temporary: true},
		{name: "seal key", bytes: key.Expose(), temporary: true},
		{name: "text of the genesis", bytes: genesis[:32], decoy: true},
	}
	for _, n := range needles[:3] { // HMAC keeps its key xored with a constant
		for _, pad := range []byte{0x36, 0x5c} {
			xored := bytes.Clone(n.bytes)
			for i := range xored {
				xored[i] ^= pad
			}
			needles = append(needles, needle{name: fmt.Sprintf("%s xored with %#x", n.name, pad), bytes: xored, temporary: true})
		}
	}
	return needles
}

// useKeys opens the domain and works with it, until its standard input ends.
func useKeys(t *testing.T, dir string) {
	p, err := sim.Open(filepath.Join(dir, "sim"), tee.ProductCore, 1)
	if err != nil {
		t.Fatal(err)
	}
	home, err := secret.NewLocked()
	if err != nil {
		t.Fatal(err)
	}
	d := domain{dir: filepath.Join(dir, "domain"), platform: p}
	if d.keys, d.state, err = domainkey.Open(d.dir, p, home); err != nil {
		t.Fatal(err)
	}
	d.settings = d.state.Settings
	h := d.host(t, Limits{})
	c := h.enroll()
	c.createKey()
	h.cores[0] = d.start(t, h, Limits{}) // has to open what the other one has sealed
	c.createKey()
	for range 3 { // what has a finalizer or a cleanup takes more than one
		runtime.GC()
	}
	genesis, err := os.ReadFile(filepath.Join(d.dir, domainkey.GenesisFile))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("\nready: %s\n", home.Memory())
	io.Copy(io.Discard, os.Stdin)
	runtime.KeepAlive(h)
	runtime.KeepAlive(genesis)
}

// A user is a process that uses keys.
type user struct {
	pid    int
	memory string
}

func startUser(t *testing.T, dir string) user {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", "-test.run=^TestKeysLieInOnePlace$", "-test.v")
	cmd.Env = append(os.Environ(), memoryEnv+"="+dir)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); cmd.Wait() })
	said := ""
	for lines := bufio.NewScanner(out); lines.Scan(); {
		if memory, ok := strings.CutPrefix(lines.Text(), "ready: "); ok {
			return user{cmd.Process.Pid, memory}
		}
		said += lines.Text() + "\n"
	}
	t.Fatalf("the child ended: %s", said)
	return user{}
}

// count looks for needles in everything that the process may write to.
func (u user) count(t *testing.T, needles []needle) (found map[string]int, size int64) {
	t.Helper()
	maps, err := os.ReadFile(fmt.Sprintf("/proc/%d/maps", u.pid))
	if err != nil {
		t.Fatal(err)
	}
	mem, err := os.Open(fmt.Sprintf("/proc/%d/mem", u.pid))
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	found = map[string]int{}
	for line := range strings.Lines(string(maps)) {
		var from, to int64
		var flags string
		if n, _ := fmt.Sscanf(line, "%x-%x %s", &from, &to, &flags); n != 3 || !strings.HasPrefix(flags, "rw") {
			continue
		}
		b := make([]byte, to-from)
		n, err := mem.ReadAt(b, from)
		if err != nil && !strings.Contains(line, "secretmem") {
			t.Logf("not read: %s: %v", strings.TrimSpace(line), err)
		}
		size += int64(n)
		for _, s := range needles {
			found[s.name] += bytes.Count(b[:n], s.bytes)
		}
	}
	return found, size
}

// newDomainIn makes a domain in dir.
func newDomainIn(t *testing.T, dir string) {
	t.Helper()
	d := newDomainAt(t, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	for from, to := range map[string]string{d.dir: "domain", filepath.Join(filepath.Dir(d.dir), "sim"): "sim"} {
		if err := os.Rename(from, filepath.Join(dir, to)); err != nil {
			t.Fatal(err)
		}
	}
}
