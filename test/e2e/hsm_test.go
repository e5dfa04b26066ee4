package e2e

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/sha256"
	"encoding/binary"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/hsm/hsmtest"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// A sidecar is an HSM with its process.
type sidecar struct {
	*hsmtest.SoftHSM
	program string
	socket  string
	token   string // its directory
	out     *output
	process *process
}

// newSidecar makes a token without keys.
func newSidecar(t *testing.T) *sidecar {
	t.Helper()
	dir, err := os.MkdirTemp("", "hsm-*") // short: paths of sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	h := &sidecar{SoftHSM: hsmtest.New(t, dir), program: filepath.Join(dir, "ehsm-hsm"), socket: filepath.Join(dir, "s"), out: newOutput()}
	h.token = h.InitToken(t, "ehsm")
	build := exec.Command("go", "build", "-tags", "pkcs11", "-o", h.program, "./cmd/ehsm-hsm")
	build.Dir, build.Env = filepath.Join("..", ".."), append(os.Environ(), "CGO_ENABLED=1")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build ehsm-hsm: %v\n%s", err, out)
	}
	t.Cleanup(func() {
		if h.process != nil {
			h.process.kill()
		}
		if text, _ := h.out.after(0); alarm.Match(text) || bytes.Contains(text, []byte(hsmtest.PIN)) {
			t.Errorf("ehsm-hsm printed: %s", text)
		}
	})
	return h
}

func (h *sidecar) environ(mechanism string, keys ...string) []string {
	return append(os.Environ(), "SOFTHSM2_CONF="+h.Config, "EHSM_HSM_LISTEN=unix:"+h.socket, "EHSM_HSM_MODULE="+h.Library, "EHSM_HSM_TOKEN=ehsm",
		"EHSM_HSM_PIN_FILE="+h.PINFile, "EHSM_HSM_MECHANISM="+mechanism, "EHSM_HSM_KEYS="+strings.Join(keys, ","))
}

// initKey makes a key and returns the files of the token that came with it.
func (h *sidecar) initKey(t *testing.T, mechanism, label string) (files []string) {
	t.Helper()
	before, _ := filepath.Glob(filepath.Join(h.token, "*"))
	cmd := exec.Command(h.program, "init-key", label)
	cmd.Env = h.environ(mechanism, label)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ehsm-hsm init-key: %v\n%s", err, out)
	}
	after, _ := filepath.Glob(filepath.Join(h.token, "*"))
	for _, path := range after {
		if !slices.Contains(before, path) {
			files = append(files, path)
		}
	}
	return files
}

// start starts the sidecar in place of one that runs.
func (h *sidecar) start(t *testing.T, mechanism string, keys ...string) {
	t.Helper()
	if h.process != nil {
		h.process.kill()
	}
	printed := h.out.size()
	h.process = spawnFile(t, h.out, h.environ(mechanism, keys...), h.program, "serve")
	if _, err := h.process.await(printed, regexp.MustCompile(`ehsm-hsm: serves token`)); err != nil {
		t.Fatal(err)
	}
}

// ask is what everybody can ask who has the token and its PIN.
func (h *sidecar) ask(t *testing.T, m *hsm.Message) *hsm.Message {
	t.Helper()
	conn, err := net.Dial("unix", h.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := hsm.Write(conn, m); err != nil {
		t.Fatal(err)
	}
	a, err := hsm.Read(conn)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// serverRefuses runs the machine's dkeyserver as a root, which must end by itself and
// say why.
func (n *node) serverRefuses(t *testing.T, name, says string, more ...string) {
	t.Helper()
	out := newOutput()
	p := spawnFile(t, out, n.g.environ(n.serverSettings(more...)...), n.program(partServer), "serve")
	select {
	case <-p.exited:
	case <-time.After(readyTimeout):
		p.kill()
		t.Fatalf("%s: it runs", name)
	}
	if text, _ := out.after(0); p.err == nil || !bytes.Contains(text, []byte(says)) {
		t.Errorf("%s: got %v, want an error with %q: %s", name, p.err, says, text)
	}
}

// command runs the machine's dkeyserver with arguments.
func (n *node) command(args ...string) (string, error) {
	cmd := exec.Command(n.program(partServer), args...)
	cmd.Env = n.g.environ(n.serverSettings()...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

const (
	noHalf   = "the HSM does not give its half of the seal key"
	bundle   = "domainkey.sealed"
	wrongTEE = "sealed on another machine"
)

// TestHSMRoot has a domain whose DomainKey is kept under a TEE and an HSM, from its
// making to the HSM's next key, and everything that must not open it.
func TestHSMRoot(t *testing.T) {
	t.Parallel()
	h := newSidecar(t)
	k1 := h.initKey(t, "gcm", "k1")
	h.start(t, "gcm", "k1")
	s, settings := emptySite(t, bin, 2)
	n := s.machines[0]
	refusedDrafts(t, s, settings, "unix:"+h.socket)
	n.hsm, settings.HSMWithoutTEE = "unix:"+h.socket, true
	s.found(t, settings)
	n.start(t, partServer)
	n.start(t, partCache)
	n.g.start(t)
	n.said(t, 0, `warning: hsmWithoutTEE: no protection against this host`)
	if out, errs, err := n.operator("status"); err != nil || !strings.Contains(out, "no protection against this host") {
		t.Errorf("status: %v: %s%s", err, out, errs)
	}
	tenant := n.g.enroll(t)
	key := tenant.createAES(t)
	sealed := sealedBy(t, tenant, key)
	server := func() { n.start(t, partServer); opens(t, tenant, key, sealed) }
	n.parts[partServer].kill()
	server()

	t.Run("worker without the HSM", func(t *testing.T) {
		two := s.machines[1]
		two.start(t, partServer)
		two.said(t, 0, `the DomainKey is kept in memory only.*its root is hsm`)
		if _, err := os.Stat(filepath.Join(two.path("domain"), bundle)); err == nil {
			t.Error("it keeps a bundle that takes no HSM")
		}
		two.parts[partServer].kill()
	})
	t.Run("token pulled", func(t *testing.T) {
		away := filepath.Join(h.Dir, "away")
		rename(t, h.token, away)
		opens(t, tenant, key, sealedBy(t, tenant, key)) // nobody needs it now
		n.parts[partServer].kill()
		n.serverRefuses(t, "pulled", noHalf)
		rename(t, away, h.token)
		server()
		n.parts[partServer].kill()
		rename(t, h.token, away)
		other := h.InitToken(t, "ehsm")
		h.initOther(t, "k1")
		n.serverRefuses(t, "another token with label and key of the same names", noHalf)
		os.RemoveAll(other)
		rename(t, away, h.token)
		server()
	})
	t.Run("PIN", func(t *testing.T) {
		n.parts[partServer].kill()
		h.WritePIN(t, "1234-wrong")
		h.start(t, "gcm", "k1")
		n.serverRefuses(t, "wrong", noHalf)
		n.serverRefuses(t, "wrong again", noHalf)
		h.WritePIN(t, hsmtest.PIN)
		server() // with the same sidecar
		if text, _ := h.out.after(0); !bytes.Contains(text, []byte("is not tried again")) {
			t.Errorf("a wrong PIN is tried twice: %s", text)
		}
	})
	t.Run("bundle", func(t *testing.T) {
		n.parts[partServer].kill()
		path := filepath.Join(n.path("domain"), bundle)
		right := s.read(t, path)
		for name, row := range map[string]struct {
			b    []byte
			says string
		}{
			"the HSM's part changed": {flipped(right, 60), noHalf},
			"KEYID changed":          {flipped(right, 10), noHalf},
			"the rest changed":       {flipped(right, len(right)-1), "does not open"},
			"another domain's":       {foreignBundle(t, n, settings), "it is sealed for domain"},
		} {
			replace(t, path, row.b)
			n.serverRefuses(t, name, row.says)
		}
		replace(t, path, right)
		n.hsm = ""
		n.serverRefuses(t, "without the HSM", "its root is hsm, and this program has none")
		n.hsm = "unix:" + h.socket
		server()
	})
	t.Run("rotation", func(t *testing.T) {
		path, away := filepath.Join(n.path("domain"), bundle), filepath.Join(h.Dir, "away")
		before := s.read(t, path)
		rename(t, h.token, away)
		printed := n.g.out.size()
		s.change(t, n, func(m *manifest.Settings) { m.DomainKey.Version = 2 })
		n.said(t, printed, noHalf)
		opens(t, tenant, key, sealedBy(t, tenant, key))
		if !bytes.Equal(s.read(t, path), before) {
			t.Error("the bundle was written without the HSM")
		}
		rename(t, away, h.token)
		n.said(t, printed, `the DomainKey has a new version.*version=2`)
		if bytes.Equal(s.read(t, path), before) {
			t.Error("the bundle was not written")
		}
		n.said(t, printed, `has the DomainKey.*versions=2`) // the dkeycache
		n.parts[partServer].kill()
		server()
		opens(t, tenant, key, sealedBy(t, tenant, key))

		// An older bundle opens, as its key is still in the HSM. The root that had it
		// put under its feet makes no second version 2.
		n.parts[partServer].kill()
		now := s.read(t, path)
		replace(t, path, before)
		printed = n.g.out.size()
		n.start(t, partServer)
		n.said(t, printed, `others have a version of the DomainKey that this root has not`)
		opens(t, tenant, key, sealedBy(t, tenant, key))
		n.parts[partServer].kill()
		if !bytes.Equal(s.read(t, path), before) {
			t.Error("the root has written another bundle over an older one")
		}
		replace(t, path, now)
		server()
	})
	t.Run("host with the PIN", func(t *testing.T) { hostWithPIN(t, s, h) })
	t.Run("rewrap", func(t *testing.T) {
		h.initKey(t, "key-wrap-pad", "k2")
		h.start(t, "key-wrap-pad", "k2", "k1")
		if out, err := n.command("hsm", "rewrap", "--to", "k2"); err == nil || !strings.Contains(out, "end ehsm-dkeyserver serve first") {
			t.Errorf("beside a server: got %v, %s", err, out)
		}
		n.parts[partServer].kill()
		path := filepath.Join(n.path("domain"), bundle)
		old := s.read(t, path)
		if out, err := n.command("hsm", "rewrap", "--to", "k3"); err == nil || !strings.Contains(out, noHalf) || !bytes.Equal(s.read(t, path), old) {
			t.Errorf("to a key that is not there: got %v, %s", err, out)
		}
		if out, err := n.command("hsm", "rewrap", "--to", "k2"); err != nil || !strings.Contains(out, "wrapped with the key k2 now") {
			t.Fatalf("got %v, %s", err, out)
		}
		for _, f := range k1 { // the old key is destroyed
			if err := os.Remove(f); err != nil {
				t.Fatal(err)
			}
		}
		h.start(t, "key-wrap-pad", "k2", "k1")
		server()
		n.parts[partServer].kill()
		replace(t, path, old)
		n.serverRefuses(t, "an older bundle, under a key that was destroyed", noHalf)
	})
}

// refusedDrafts has domains that this machine must not make.
func refusedDrafts(t *testing.T, s *site, settings manifest.Settings, address string) {
	t.Helper()
	n := s.machines[0]
	for _, row := range []struct {
		name, hsm, says string
		root            manifest.Root
		withoutTEE      bool
	}{
		{"without a TEE", address, "hsmWithoutTEE is not set", manifest.HSM, false},
		{"without an HSM", "", "this program has none", manifest.HSM, true},
		{"an HSM for nothing", address, "this program has hsm", manifest.Seal, false},
	} {
		d, _, err := manifest.ThrowAway(settings)
		if err != nil {
			t.Fatal(err)
		}
		d.Root, d.Settings.HSMWithoutTEE = row.root, row.withoutTEE
		b, err := d.Encode()
		if err != nil {
			t.Fatal(err)
		}
		replace(t, n.path("draft.json"), b)
		n.hsm = row.hsm
		if out, err := n.command("init", "--no-recovery", n.path("draft.json")); err == nil || !strings.Contains(out, row.says) {
			t.Errorf("init %s: got %v, %s", row.name, err, out)
		}
		if _, err := os.Stat(n.path("domain")); err == nil {
			t.Fatalf("init %s has made a domain", row.name)
		}
	}
	n.hsm = ""
}

// initOther makes a key in a token that is not the sidecar's own.
func (h *sidecar) initOther(t *testing.T, label string) {
	t.Helper()
	cmd := exec.Command(h.program, "init-key", label)
	cmd.Env = h.environ("gcm", label)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ehsm-hsm init-key: %v\n%s", err, out)
	}
}

// foreignBundle is of another domain, made on the same machine with the same HSM.
func foreignBundle(t *testing.T, n *node, settings manifest.Settings) []byte {
	t.Helper()
	d, _, err := manifest.ThrowAway(settings)
	if err != nil {
		t.Fatal(err)
	}
	d.Root = manifest.HSM
	b, err := d.Encode()
	if err != nil {
		t.Fatal(err)
	}
	replace(t, n.path("other.json"), b)
	cmd := exec.Command(n.program(partServer), "init", "--no-recovery", n.path("other.json"))
	cmd.Env = n.g.environ(n.serverSettings("EHSM_DKEYSERVER_DOMAIN=" + n.path("other"))...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	if b, err = os.ReadFile(filepath.Join(n.path("other"), bundle)); err != nil {
		t.Fatal(err)
	}
	return b
}

// hostWithPIN is root of the host with the PIN, the token and every file, but without
// the TEE, which the simulation has in the file machine.secret.
func hostWithPIN(t *testing.T, s *site, h *sidecar) {
	n := s.machines[0]
	// With the genuine programs, on a processor of his own.
	thief := s.addMachine(t, 2, n.bin, "fleet")
	s.machines = s.machines[:2]
	thief.hsm = n.hsm
	if err := os.Mkdir(thief.path("domain"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{manifest.GenesisFile, bundle} {
		copyFile(t, filepath.Join(n.path("domain"), name), filepath.Join(thief.path("domain"), name))
	}
	thief.serverRefuses(t, "genuine program on another machine", wrongTEE)

	// With programs of his own: the HSM gives him its half, which alone opens nothing.
	sealed := s.read(t, filepath.Join(n.path("domain"), bundle))
	b := openBundle(t, sealed)
	a := h.ask(t, &hsm.Message{Kind: hsm.Unwrap, Context: b.request.KeyID, Wrapped: b.wrapped})
	if a.Kind != hsm.UnwrapKey {
		t.Fatalf("the HSM refuses its owner: %+v", a)
	}
	half, zeros := a.Key[:], make([]byte, 32)
	for name, key := range map[string][]byte{
		"the half":             half,
		"zeros":                zeros,
		"the half and zeros":   b.derive(t, zeros, half),
		"the half twice":       b.derive(t, half, half),
		"the half alone":       b.derive(t, nil, half),
		"KEYID and the half":   b.derive(t, b.request.KeyID[:], half),
		"the half and nothing": b.derive(t, half, nil),
	} {
		if b.opens(t, key) {
			t.Errorf("%s: opens the DomainKey", name)
		}
	}
	// All that he lacks is what the TEE gives to the genuine program on this machine,
	// which shows that the attempts above were no others than the real one.
	program, err := sim.MeasureFile(n.program(partServer))
	if err != nil {
		t.Fatal(err)
	}
	m, err := n.cpu.Load(program, tee.ProductDKeyServer, 1)
	if err != nil {
		t.Fatal(err)
	}
	inner, err := m.SealKey(tee.KeyRequest{Policy: b.request.Policy, SVN: b.request.SVN, KeyID: b.request.KeyID})
	if err != nil {
		t.Fatal(err)
	}
	if !b.opens(t, b.derive(t, inner.Expose(), half)) {
		t.Error("TEE and HSM together do not open the DomainKey")
	}
	if b.opens(t, inner.Expose()) || b.opens(t, b.derive(t, inner.Expose(), zeros)) {
		t.Error("the TEE alone opens the DomainKey")
	}
}

// A sealedBundle is domainkey-bundle-v1 with the key information of an HSM, taken
// apart as docs/formats.md has it.
type sealedBundle struct {
	request tee.KeyRequest
	wrapped hsm.Wrapped
	head    []byte
	sealed  []byte
}

func openBundle(t *testing.T, file []byte) sealedBundle {
	t.Helper()
	r := pack.NewReader(file)
	r.Uint8()
	b := sealedBundle{request: tee.KeyRequest{Policy: tee.Policy(r.Uint8()), SVN: r.Uint16()}}
	r.Array(b.request.KeyID[:])
	b.request.Info = r.Bytes(1024)
	r.Fixed(32) // domain
	b.head, b.sealed = file[:len(file)-r.Len()], r.Rest()
	info := pack.NewReader(b.request.Info)
	info.Uint8()
	b.wrapped = hsm.ReadWrapped(info)
	if r.Err() != nil || info.Close() != nil {
		t.Fatalf("the bundle: %v, %v", r.Err(), info.Err())
	}
	return b
}

// derive makes a seal key of two halves.
func (b sealedBundle) derive(t *testing.T, inner, half []byte) []byte {
	t.Helper()
	info := append([]byte("ehsm/hsm-seal/v1\x00"), byte(b.request.Policy))
	info = binary.BigEndian.AppendUint16(info, b.request.SVN)
	info = pack.AppendBytes(info, b.request.Info)
	key, err := hkdf.Key(sha256.New, slices.Concat(inner, half), b.request.KeyID[:], string(info), 32)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func (b sealedBundle) opens(t *testing.T, key []byte) bool {
	t.Helper()
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	_, err = aead.Open(nil, make([]byte, 12), b.sealed, append([]byte("ehsm/domainkey-bundle/v1\x00"), b.head...))
	return err == nil
}

func flipped(b []byte, at int) []byte {
	c := bytes.Clone(b)
	c[at] ^= 1
	return c
}

func replace(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

func rename(t *testing.T, from, to string) {
	t.Helper()
	if err := os.Rename(from, to); err != nil {
		t.Fatal(err)
	}
}
