package e2e

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hpke"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"math/big"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// TestDomainAttacks lets the host and strangers on the network do what they can to a
// running domain. All of them are refused, and it serves on. docs/attacks.md lists
// these and others.
func TestDomainAttacks(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	a := &attack{site: s, one: s.machines[0], two: s.machines[1]}
	a.tenant = a.one.g.enroll(t)
	a.key = a.tenant.createAES(t)
	a.sealed = sealedBy(t, a.tenant, a.key)
	for _, row := range []struct {
		name string
		try  func(*testing.T)
	}{
		{"programs", a.programs},
		{"machines", a.machines},
		{"strangers", a.strangers},
		{"a man in the middle", a.middle},
		{"reflection", a.reflection},
		{"a recorded session", a.recorded},
		{"a GenerateQuote answer", a.quote},
		{"a thousand at once", a.thousand},
		{"rows that are put back", a.rows},
		{"files of a dkeyserver", a.files},
		{"manifests", a.manifests},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.try(t)
			for _, n := range s.machines {
				if err := n.g.awaitReady(); err != nil {
					t.Fatal(err)
				}
				opens(t, a.tenant.on(n.g), a.key, a.sealed)
			}
		})
	}
}

type attack struct {
	*site
	one, two    *node
	tenant      *tenant
	key, sealed string
}

// build signs a copy of a program with the signer's key.
func (a *attack) build(t *testing.T, name, program string, args ...string) string {
	t.Helper()
	dir := filepath.Join(a.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, program)
	copyFile(t, filepath.Join(bin, program), path)
	args = append([]string{"sign", "--key", filepath.Join(a.dir, "signer.seed")}, append(args, path)...)
	if out, err := exec.Command(filepath.Join(bin, partTEE), args...).CombinedOutput(); err != nil {
		t.Fatalf("sign %s: %v\n%s", program, err, out)
	}
	return path
}

// another is a program on the second machine, beside its own and with directories of
// its own. by is who has to refuse it, and says so.
func (a *attack) another(t *testing.T, path string, by *node, says string) {
	t.Helper()
	own := []string{"unix:" + a.two.path("x.sock"), a.two.path("x")}
	env := map[string][]string{
		partCore:   append(a.two.coreSettings(own[0]), "EHSM_CORE_DKEYCACHE=unix:"+by.path("cache.sock")),
		partCache:  append(a.two.cacheSettings(), "EHSM_DKEYCACHE_LISTEN="+own[0], "EHSM_DKEYCACHE_SERVERS="+by.server),
		partServer: append(a.two.serverEnv(), "EHSM_DKEYSERVER_LISTEN=127.0.0.1:0", "EHSM_DKEYSERVER_DOMAIN="+own[1], "EHSM_DKEYSERVER_PEERS="+by.server),
	}[filepath.Base(path)]
	var args []string
	if filepath.Base(path) == partServer {
		args = []string{"serve"}
	}
	a.distract(t)
	printed, out := by.g.out.size(), newOutput()
	p := spawnFile(t, out, a.two.g.environ(env...), path, args...)
	defer os.RemoveAll(own[1])
	defer p.kill()
	by.said(t, printed, `peer refused.*`+says)
	if text, _ := out.after(0); regexp.MustCompile(`has the DomainKey|ehsm-core: serves`).Match(text) {
		t.Errorf("it has the DomainKey: %s", text)
	}
}

// programs are those of the signer that the manifest does not want.
func (a *attack) programs(t *testing.T) {
	for i, row := range []struct{ name, program, product, svn, flag, says string }{
		{"a debug core", partCore, "1", "1", "--debug", "enclave runs in debug mode"},
		{"a debug dkeycache", partCache, "2", "1", "--debug", "enclave runs in debug mode"},
		{"a debug dkeyserver", partServer, "3", "1", "--debug", "enclave runs in debug mode"},
	} {
		t.Run(row.name, func(t *testing.T) {
			path := a.build(t, fmt.Sprint("build-", i), row.program, "--product", row.product, "--svn", row.svn, row.flag)
			by := a.one
			if row.program == partCore {
				by = a.two // cores are judged by the dkeycache of their machine
			}
			a.another(t, path, by, row.says)
		})
	}
}

// machines are admitted, but something else is wrong with them.
func (a *attack) machines(t *testing.T) {
	defer a.two.collate(t, func(*issue.Terms) {})
	terms := a.two.cpu.Terms(time.Now())
	serial, ok := new(big.Int).SetString(terms.Platform.Serial, 16)
	if !ok {
		t.Fatalf("serial number %q", terms.Platform.Serial)
	}
	for _, row := range []struct {
		name string
		edit func(*issue.Terms)
		says string
	}{
		{"a revoked PCK", func(x *issue.Terms) { x.RevokedPCKs = []*big.Int{serial} }, `PCK certificate (is|has been) revoked|revoked`},
		{"a revoked TCB", func(x *issue.Terms) { x.Status = verify.Revoked }, `revoked`},
		{"OutOfDate for too long", func(x *issue.Terms) { x.Status = verify.OutOfDate }, `TCB is out of date and the grace period has ended`},
		{"an OutOfDate quoting enclave", func(x *issue.Terms) { x.QEStatus = verify.OutOfDate }, `TCB is out of date and the grace period has ended`},
		{"hardening needed", func(x *issue.Terms) { x.Status, x.Advisories = verify.SWHardeningNeeded, []string{"INTEL-SA-00615"} }, `TCB status is not accepted: SWHardeningNeeded`},
		{"expired collateral", func(x *issue.Terms) { x.Issued, x.Next = x.Issued.AddDate(0, -2, 0), x.Issued.AddDate(0, -1, 0) }, `expired`},
		{"collateral of the future", func(x *issue.Terms) { x.Issued = x.Issued.AddDate(0, 0, 7) }, `not yet`},
	} {
		t.Run(row.name, func(t *testing.T) {
			a.two.collate(t, row.edit)
			a.another(t, a.two.program(partCache), a.one, row.says)
		})
	}
	t.Run("no collateral", func(t *testing.T) {
		if err := os.WriteFile(a.two.path("collateral.bin"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		a.another(t, a.two.program(partCache), a.one, `.`)
	})
}

// selfSigned is a certificate of the form that channels ask for.
func selfSigned(t *testing.T) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, c, c, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// channelTLS is the configuration of a stranger with the form that channels ask for.
func channelTLS(t *testing.T) *tls.Config {
	t.Helper()
	return &tls.Config{
		Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{"ehsm-attest/1"},
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768}, MinVersion: tls.VersionTLS13,
		InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert, SessionTicketsDisabled: true,
	}
}

// dial begins a channel with the root.
func (a *attack) dial(t *testing.T) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", a.one.server)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(30 * time.Second))
	if _, err := conn.Write([]byte{2}); err != nil {
		t.Fatal(err)
	}
	return conn
}

// ended reads to the end of a connection that the other side has to close.
func ended(t *testing.T, r io.Reader) {
	t.Helper()
	if _, err := io.Copy(io.Discard, r); err != nil && strings.Contains(err.Error(), "timeout") {
		t.Errorf("the connection is still open: %v", err)
	}
}

// distract has the root refuse somebody for a reason that it has not had before, as it
// does not say the same twice in a row. It returns from where on to read.
func (a *attack) distract(t *testing.T) (printed int) {
	t.Helper()
	cfg := channelTLS(t)
	cfg.NextProtos = []string{hex.EncodeToString(randomBytes(8))}
	c := tls.Client(a.dial(t), cfg)
	c.Handshake() // is refused
	c.Close()
	a.one.said(t, 0, `peer refused.*`+cfg.NextProtos[0])
	return a.one.g.out.size()
}

// strangers speak no TLS, or not ours.
func (a *attack) strangers(t *testing.T) {
	for name, edit := range map[string]func(*tls.Config){
		"no certificate":    func(c *tls.Config) { c.Certificates = nil },
		"TLS 1.2":           func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"no ML-KEM":         func(c *tls.Config) { c.CurvePreferences = []tls.CurveID{tls.X25519} },
		"another protocol":  func(c *tls.Config) { c.NextProtos = []string{"h2"} },
		"the local channel": func(c *tls.Config) { c.NextProtos = []string{"ehsm-local/1"} },
	} {
		t.Run(name, func(t *testing.T) {
			printed := a.distract(t)
			cfg := channelTLS(t)
			edit(cfg)
			c := tls.Client(a.dial(t), cfg)
			c.Handshake() // the client's side may be satisfied
			ended(t, c)
			a.one.said(t, printed, `peer refused.*TLS`)
		})
	}
	for name, sent := range map[string]string{"HTTP": "GET / HTTP/1.1\r\n\r\n", "zeros": strings.Repeat("\x00", 64)} {
		t.Run(name, func(t *testing.T) {
			printed := a.distract(t)
			c := a.dial(t)
			io.WriteString(c, sent)
			ended(t, c)
			a.one.said(t, printed, `peer refused`)
		})
	}
}

// fetchVia starts a dkeycache on the second machine that knows one dkeyserver only,
// which is ours.
func (a *attack) fetchVia(t *testing.T, address string, says string) {
	t.Helper()
	out := newOutput()
	env := append(a.two.cacheSettings(), "EHSM_DKEYCACHE_LISTEN=unix:"+a.two.path("x.sock"), "EHSM_DKEYCACHE_SERVERS="+address)
	p := spawnFile(t, out, a.two.g.environ(env...), a.two.program(partCache))
	defer p.kill()
	if _, err := p.await(0, regexp.MustCompile(`server not usable.*`+says)); err != nil {
		text, _ := out.after(0)
		t.Errorf("%v: %s", err, text)
	}
	if text, _ := out.after(0); strings.Contains(string(text), "has the DomainKey") {
		t.Errorf("it has the DomainKey: %s", text)
	}
}

// serveTCP has f deal with each connection.
func serveTCP(t *testing.T, f func(net.Conn)) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(30 * time.Second))
				f(c)
			})
		}
	})
	t.Cleanup(func() { ln.Close(); wg.Wait() })
	return ln.Addr().String()
}

// introduce passes on what comes before a channel, with the byte that begins it.
func introduce(near, far net.Conn) bool {
	ask := make([]byte, 1)
	for {
		if _, err := io.ReadFull(near, ask); err != nil {
			return false
		}
		if _, err := far.Write(ask); err != nil || ask[0] == 2 {
			return err == nil
		}
		size := make([]byte, 4)
		if _, err := io.ReadFull(far, size); err != nil {
			return false
		}
		near.Write(size)
		if _, err := io.CopyN(near, far, int64(binary.BigEndian.Uint32(size))); err != nil {
			return false
		}
	}
}

// middle ends TLS on both sides between two honest programs, and passes on all that
// they say within.
func (a *attack) middle(t *testing.T) {
	cfg := channelTLS(t)
	address := serveTCP(t, func(near net.Conn) {
		far, err := net.Dial("tcp", a.one.server)
		if err != nil {
			return
		}
		defer far.Close()
		if !introduce(near, far) {
			return
		}
		client, server := tls.Server(near, cfg), tls.Client(far, cfg)
		var wg sync.WaitGroup
		wg.Go(func() { io.Copy(server, client); server.CloseWrite() })
		io.Copy(client, server)
		client.CloseWrite()
		wg.Wait()
	})
	printed := a.distract(t)
	a.fetchVia(t, address, `refused`)
	a.one.said(t, printed, `peer refused.*made for another purpose or peer`)
}

// reflection sends a program its own messages.
func (a *attack) reflection(t *testing.T) {
	cfg := channelTLS(t)
	address := serveTCP(t, func(near net.Conn) {
		far, err := net.Dial("tcp", a.one.server)
		if err != nil || !introduce(near, far) {
			return
		}
		far.Close()
		c := tls.Server(near, cfg)
		io.Copy(c, c)
	})
	a.fetchVia(t, address, `come back from the peer`)
}

// recorded sends again what an admitted program has sent.
func (a *attack) recorded(t *testing.T) {
	said := make(chan []byte, 1)
	address := serveTCP(t, func(near net.Conn) {
		far, err := net.Dial("tcp", a.one.server)
		if err != nil || !introduce(near, far) {
			return
		}
		go func() { io.Copy(near, far); near.Close() }()
		b := make([]byte, 0, 1<<20)
		io.Copy(io.MultiWriter(far, writerFunc(func(p []byte) { b = append(b, p...) })), near)
		far.Close()
		select {
		case said <- b:
		default:
		}
	})
	out := newOutput()
	env := append(a.two.cacheSettings(), "EHSM_DKEYCACHE_LISTEN=unix:"+a.two.path("x.sock"), "EHSM_DKEYCACHE_SERVERS="+address)
	p := spawnFile(t, out, a.two.g.environ(env...), a.two.program(partCache))
	_, err := p.await(0, regexp.MustCompile(`has the DomainKey`))
	p.kill()
	if err != nil {
		t.Fatal(err)
	}
	session := <-said
	printed := a.distract(t)
	c := a.dial(t)
	go io.Copy(io.Discard, c)
	c.Write(session)
	a.one.said(t, printed, `peer refused.*TLS`)
}

type writerFunc func([]byte)

func (f writerFunc) Write(p []byte) (int, error) { f(p); return len(p), nil }

// quote offers a quote that a tenant has had made, in a correct handshake up to there.
func (a *attack) quote(t *testing.T) {
	_, quote := a.tenant.on(a.two.g).quote(t, randomBytes(64))
	for name, role := range map[string]string{"as a dkeycache": "dkeycache", "as a dkeyserver": "dkeyserver"} {
		t.Run(name, func(t *testing.T) {
			printed := a.distract(t)
			c := tls.Client(a.dial(t), channelTLS(t))
			domain, err := hex.DecodeString(a.domain)
			if err != nil {
				t.Fatal(err)
			}
			send := func(kind byte, payload []byte) {
				b := binary.BigEndian.AppendUint64([]byte{kind}, 1)
				b = binary.BigEndian.AppendUint32(b, uint32(len(payload)))
				if _, err := c.Write(append(b, payload...)); err != nil {
					t.Fatal(err)
				}
			}
			opening := append([]byte{0, 1, 1, 0, byte(len(role))}, role...)
			opening = append(append(append(opening, domain...), randomBytes(32)...), 1, 0, 0, 0, 0)
			send(1, opening)
			head := make([]byte, 13)
			if _, err := io.ReadFull(c, head); err != nil || head[0] != 1 {
				t.Fatalf("its opening: %v, %x", err, head)
			}
			io.CopyN(io.Discard, c, int64(binary.BigEndian.Uint32(head[9:])))
			part := func(b, p []byte) []byte {
				return append(binary.BigEndian.AppendUint32(b, uint32(len(p))), p...)
			}
			key, err := hpke.MLKEM768X25519().GenerateKey()
			if err != nil {
				t.Fatal(err)
			}
			evidence := part([]byte{1, 1}, quote)
			send(2, part(part(key.PublicKey().Bytes(), evidence), a.read(t, a.two.path("collateral.bin"))))
			ended(t, c)
			a.one.said(t, printed, `peer refused.*made for another purpose or peer`)
		})
	}
}

// thousand has strangers connect and stop at several steps, while a dkeycache that
// has just started gets what it needs.
func (a *attack) thousand(t *testing.T) {
	var wg sync.WaitGroup
	cfg := channelTLS(t)
	for i := range 1000 {
		conn, err := net.Dial("tcp", a.one.server)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		wg.Go(func() {
			switch i % 4 {
			case 0: // nothing at all
			case 1: // the manifests, and no more
				conn.Write([]byte{1})
			case 2: // half a ClientHello
				conn.Write([]byte{2, 22, 3, 1, 1, 0, 1, 0})
			case 3: // TLS, and no more
				conn.Write([]byte{2})
				conn.SetDeadline(time.Now().Add(5 * time.Second))
				tls.Client(conn, cfg).Handshake()
			}
		})
	}
	printed := a.two.g.out.size()
	begin := time.Now()
	a.two.parts[partServer].kill() // only the root is left
	a.two.restartsCache(t)
	a.two.said(t, printed, `has the DomainKey`)
	t.Logf("a dkeycache has the DomainKey after %v", time.Since(begin))
	wg.Wait()
	a.two.start(t, partServer)
}

// rows puts back what the database had before a key was disabled and another deleted.
func (a *attack) rows(t *testing.T) {
	ctx := context.Background()
	db, err := pgx.Connect(ctx, a.database)
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(ctx)
	do := func(sql string) {
		t.Helper()
		if _, err := db.Exec(ctx, sql); err != nil {
			t.Fatalf("%s: %v", sql, err)
		}
	}
	disabled, deleted := a.tenant.createAES(t), a.tenant.createAES(t)
	sealed := map[string]string{disabled: sealedBy(t, a.tenant, disabled), deleted: sealedBy(t, a.tenant, deleted)}
	do(`CREATE TABLE before AS TABLE records`)
	defer do(`DROP TABLE before`)
	for action, key := range map[string]string{"DisableKey": disabled, "DeleteKey": deleted} {
		if r := a.tenant.call(t, action, fields{"keyid": key}); r.Code != 200 {
			t.Fatalf("%s: %s", action, r.body)
		}
		read := func(c *tenant) reply {
			return c.call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed[key]})
		}
		if _, ok := await(a.tenant.on(a.two.g), read, func(r reply) bool { return r.Code != 200 }, time.Now()); !ok {
			t.Fatalf("%s is not known to the other node", action)
		}
	}
	put := func(where string) {
		do(`UPDATE records r SET revision = b.revision, used = b.used, hidden = b.hidden, due = b.due, sealed = b.sealed
			FROM before b WHERE (r.tenant, r.id, r.type, r.version) = (b.tenant, b.id, b.type, b.version) AND ` + where)
	}
	refused := func(t *testing.T, what string) {
		t.Helper()
		for i, n := range a.site.machines {
			for key, sealed := range sealed {
				if r := a.tenant.on(n.g).call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed}); r.Code == 200 {
					t.Errorf("%s, machine %d: a key that was disabled or deleted decrypts", what, i)
				}
			}
		}
	}
	t.Run("single rows", func(t *testing.T) {
		put(`r.id = '` + disabled + `'`)
		refused(t, "a row")
		put(`r.id = '` + deleted + `'`)
		refused(t, "two rows")
	})
	t.Run("the whole table", func(t *testing.T) {
		do(`DELETE FROM records`)
		do(`INSERT INTO records TABLE before`)
		refused(t, "all rows")
	})
}

// files exchanges and edits what a dkeyserver keeps.
func (a *attack) files(t *testing.T) {
	swap := func(t *testing.T, path string, b []byte, then func()) {
		t.Helper()
		before := a.read(t, path)
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
		then()
		if err := os.WriteFile(path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	bundle := func(n *node) string { return filepath.Join(n.path("domain"), domainkey.BundleFile) }
	genesis := filepath.Join(a.one.path("domain"), manifest.GenesisFile)
	other := a.one.path("other") // a domain of the same program on the same machine
	cmd := exec.Command(a.one.program(partServer), "init", "--no-recovery", a.one.path("draft.json"))
	cmd.Env = a.one.g.environ(a.one.serverSettings("EHSM_DKEYSERVER_DOMAIN=" + other)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("init: %v\n%s", err, out)
	}
	a.one.parts[partServer].kill()
	cut := func(b []byte) []byte { return b[:len(b)-1] }
	for _, row := range []struct {
		name, path string
		content    []byte
		says       string
	}{
		{"the DomainKey of another machine", bundle(a.one), a.read(t, bundle(a.two)), `sealed on another machine`},
		{"the DomainKey of another domain", bundle(a.one), a.read(t, filepath.Join(other, domainkey.BundleFile)), `sealed for domain`},
		{"a DomainKey that is cut short", bundle(a.one), cut(a.read(t, bundle(a.one))), `DomainKey bundle does not open`},
		{"no DomainKey", bundle(a.one), nil, `DomainKey bundle does not open`},
		{"a genesis of another domain", genesis, a.read(t, filepath.Join(other, manifest.GenesisFile)), `signature|operators`},
		{"a genesis that was edited", genesis, []byte(strings.Replace(string(a.read(t, genesis)), `"allowSim": true`, `"allowSim": false`, 1) + " "), `.`},
		{"no genesis", genesis, nil, `.`},
	} {
		t.Run(row.name, func(t *testing.T) {
			swap(t, row.path, row.content, func() {
				out := newOutput()
				p := spawnFile(t, out, a.one.g.environ(a.one.serverEnv()...), a.one.program(partServer), "serve")
				<-p.exited
				text, _ := out.after(0)
				if p.err == nil || servesRole.Match(text) || !regexp.MustCompile(`(?m)^ehsm-dkeyserver: .*(`+row.says+`)`).Match(text) {
					t.Errorf("it ends with %v: %s", p.err, text)
				}
			})
		})
	}
	a.one.start(t, partServer)
}

// manifests puts into a dkeyserver's directory what operators have not signed, or not
// for this place.
func (a *attack) manifests(t *testing.T) {
	next := func() *manifest.Manifest {
		t.Helper()
		m, err := a.last.Follow(time.Now())
		if err != nil {
			t.Fatal(err)
		}
		m.Statement.Settings.RequestWindow = 333
		return m
	}
	encode := func(m *manifest.Manifest) []byte {
		t.Helper()
		b, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	_, stranger, err := manifest.ThrowAway(a.last.Settings)
	if err != nil {
		t.Fatal(err)
	}
	unsigned := next()
	unsigned.Signatures = []manifest.Signature{}
	edited := next()
	if err := edited.Sign(a.operator); err != nil {
		t.Fatal(err)
	}
	edited.Statement.Settings.RequestWindow++
	path := filepath.Join(a.one.path("domain"), manifest.FileName(2))
	offer := func(t *testing.T, b []byte) {
		printed := a.one.g.out.size()
		if err := os.WriteFile(path+".new", b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(path+".new", path); err != nil {
			t.Fatal(err)
		}
		a.one.said(t, printed, `manifest refused`)
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
	}
	for name, b := range map[string][]byte{
		"without signatures": encode(unsigned), "edited after it was signed": encode(edited), "junk": []byte("{}"),
	} {
		t.Run(name, func(t *testing.T) { offer(t, b) })
	}
	t.Run("signed by a stranger", func(t *testing.T) {
		m := next()
		if err := m.Sign(stranger); err == nil { // only operators can
			offer(t, encode(m))
		}
	})
	t.Run("one that is taken away", func(t *testing.T) { // others have it
		a.change(t, a.two, func(m *manifest.Settings) { m.RequestWindow = 240 })
		printed := a.one.g.out.size()
		a.one.said(t, 0, `manifests are written.*version=2`)
		a.one.parts[partServer].kill()
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		a.one.start(t, partServer)
		a.one.said(t, printed, `newer manifest from a peer.*version=2`)
		a.one.said(t, printed, `manifests are written.*version=2`)
	})
}
