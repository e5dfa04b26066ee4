package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"
)

// The targets, each a way to run the service.
const (
	dev       = "dev"        // all in one process
	splitUnix = "split-unix" // manager and core, a unix socket between them
	splitTCP  = "split-tcp"  // the same over loopback TCP
	member    = "member"     // a node of a cluster; see cluster_test.go
)

func targets() []string { return []string{dev, splitUnix, splitTCP} }

// Parts of a target that can be killed one by one.
const (
	partDev  = "ehsm"
	partTEE  = "ehsm-simtee" // the simulated machine that the core runs on
	partCore = "ehsm-core"
	partKMS  = "ehsm-kms"
)

// eachTarget runs f for every target, beside other tests.
func eachTarget(t *testing.T, f func(t *testing.T, g *target)) {
	t.Parallel()
	for _, kind := range targets() {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			f(t, newTarget(t, kind))
		})
	}
}

// A target is a running service with its data directory.
type target struct {
	kind string
	dir  string // everything the service keeps
	core string // address of the core's stream
	out  *output
	http *http.Client
	tls  *tls.Config // trusts the service's certificate only

	audit    string   // directory of the trail
	settings []string // of ehsm-kms, over the usual ones
	coreAlso []string // settings of ehsm-core, likewise
	joins    *node    // of a domain of several nodes; nil: the core has a domain of its own

	mu      sync.Mutex
	url     string
	parts   map[string]*process
	secrets []string
	rings   rings
}

// newTarget makes a domain and starts a service on it. At the end of the test
// the service is stopped and its output looked through.
func newTarget(t testing.TB, kind string) *target {
	t.Helper()
	g := prepare(t, kind)
	g.start(t)
	return g
}

// prepare is newTarget without the start.
func prepare(t testing.TB, kind string) *target {
	t.Helper()
	dir, err := os.MkdirTemp("", "ehsm-e2e-*") // short: paths of unix sockets are limited
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	g := &target{kind: kind, dir: dir, out: newOutput(), parts: map[string]*process{}}
	g.audit = g.data("audit")
	t.Cleanup(func() { g.autopsy(t) })
	switch kind {
	case splitUnix:
		g.core = "unix:" + filepath.Join(dir, "core.sock")
	case splitTCP:
		g.core = "tcp:" + freeAddress(t)
	}
	if kind != dev { // the way README.md shows: `ehsm dev` makes the domain
		g.launch(t, partDev)
		if err := g.stop(partDev); err != nil {
			t.Fatalf("stop ehsm dev: %v", err)
		}
		g.collate(t)
	}
	return g
}

// collate has the simulated machine's fleet write down its collateral, as Intel's
// service would serve it.
func (g *target) collate(t testing.TB) {
	t.Helper()
	cmd := exec.Command(filepath.Join(bin, partTEE), "collateral", "--dir", g.data("sim"), "--out", g.data("collateral.bin"))
	cmd.Env = g.environ()
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("ehsm-simtee collateral: %v\n%s", err, out)
	}
}

// freeAddress returns a loopback address that nobody listens on right now.
func freeAddress(t testing.TB) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

// names lists the parts in the order in which they start.
func (g *target) names() []string {
	switch g.kind {
	case dev:
		return []string{partDev}
	case member:
		return []string{partCore, partKMS}
	}
	return []string{partTEE, partCore, partKMS}
}

// start starts what does not run and waits until requests are served.
func (g *target) start(t testing.TB) {
	t.Helper()
	for _, name := range g.names() {
		if p := g.parts[name]; p == nil || !p.running() {
			g.launch(t, name)
		}
	}
	if err := g.awaitReady(); err != nil {
		t.Fatal(err)
	}
}

// What the programs say when they are ready.
var (
	addressPattern = regexp.MustCompile(`https://127\.0\.0\.1:[1-9]\d*`)
	servesDomain   = regexp.MustCompile(`serves domain`)
	servesMachine  = regexp.MustCompile(`ehsm-simtee: serves`)
)

// launch starts one part and learns where it listens.
func (g *target) launch(t testing.TB, name string) {
	t.Helper()
	printed := g.out.size()
	switch name {
	case partDev:
		g.parts[name] = spawn(t, g.out, g.environ(), name, "dev", "--data", g.data(), "--listen", "127.0.0.1:0")
	case partTEE:
		g.parts[name] = spawn(t, g.out, g.environ(), name, "serve", "--dir", g.data("sim"), "--socket", g.tee())
		g.awaitText(t, name, printed, servesMachine)
		return
	case partCore:
		if g.joins != nil {
			g.parts[name] = g.joins.load(t, g.joins.coreSettings(g.core), partCore)
			g.awaitText(t, name, printed, servesDomain)
			return
		}
		g.parts[name] = spawn(t, g.out, g.environ(append([]string{
			"EHSM_CORE_LISTEN=" + g.core, "EHSM_CORE_DOMAIN=" + g.data("domain"), "EHSM_CORE_SIM=" + g.tee()}, g.coreAlso...)...), name)
		g.awaitText(t, name, printed, servesDomain)
		return
	case partKMS:
		g.startManager(t)
	}
	g.awaitAddress(t, name, printed)
}

// startManager starts ehsm-kms, which waits for its core.
func (g *target) startManager(t testing.TB) {
	t.Helper()
	g.parts[partKMS] = spawn(t, g.out, g.environ(append([]string{
		"EHSM_KMS_CORE=" + g.core, "EHSM_KMS_DATABASE=" + g.data("ehsm.db"),
		"EHSM_KMS_AUDIT=" + g.audit, "EHSM_KMS_LISTEN=127.0.0.1:0",
		"EHSM_KMS_COLLATERAL=bundle", "EHSM_KMS_COLLATERAL_BUNDLE=" + g.data("collateral.bin"), "EHSM_KMS_COLLATERAL_DIR=" + g.data("collateral"),
		"EHSM_KMS_TLS_CERT=" + g.data("tls", "cert.pem"), "EHSM_KMS_TLS_KEY=" + g.data("tls", "key.pem"),
	}, g.settings...)...), partKMS)
}

// awaitAddress learns where a part serves, from what it prints after so many bytes.
func (g *target) awaitAddress(t testing.TB, name string, printed int) {
	t.Helper()
	address, err := g.parts[name].await(printed, addressPattern)
	if err != nil {
		t.Fatal(err)
	}
	g.mu.Lock()
	g.url = address
	g.mu.Unlock()
	g.trust(t)
}

func (g *target) awaitText(t testing.TB, name string, printed int, re *regexp.Regexp) {
	t.Helper()
	if _, err := g.parts[name].await(printed, re); err != nil {
		t.Fatal(err)
	}
}

// tee is the socket of the simulated machine.
func (g *target) tee() string { return filepath.Join(g.dir, "tee.sock") }

// data returns a path in the data directory.
func (g *target) data(names ...string) string {
	return filepath.Join(append([]string{g.dir, "data"}, names...)...)
}

// environ is the environment of the programs: ours without settings of ehsm and
// with a home of its own.
func (g *target) environ(more ...string) []string {
	home := filepath.Join(g.dir, "home")
	env := []string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, "XDG_STATE_HOME=" + home, "GOTRACEBACK=all"}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		switch {
		case strings.HasPrefix(name, "EHSM_"), name == "HOME", strings.HasPrefix(name, "XDG_"), name == "GOTRACEBACK":
		default:
			env = append(env, v)
		}
	}
	return append(env, more...)
}

// trust makes an HTTP client that accepts the service's certificate and no
// other.
func (g *target) trust(t testing.TB) {
	t.Helper()
	if g.http != nil {
		return
	}
	cert, err := os.ReadFile(g.data("tls", "cert.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(cert) {
		t.Fatal("the service's certificate is no PEM")
	}
	g.tls = &tls.Config{RootCAs: roots, ServerName: "127.0.0.1"}
	g.http = &http.Client{
		Timeout:       30 * time.Second,
		Transport:     &http.Transport{TLSClientConfig: g.tls, MaxIdleConnsPerHost: 64, DisableCompression: true},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	t.Cleanup(g.http.CloseIdleConnections)
}

// address is where the service listens now.
func (g *target) address() string { return strings.TrimPrefix(g.base(), "https://") }

func (g *target) base() string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.url
}

// awaitReady returns when /readyz says that everything works.
func (g *target) awaitReady() error {
	ctx, cancel := context.WithTimeout(context.Background(), readyTimeout)
	defer cancel()
	for {
		ok, err := g.probe(ctx)
		if ok {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s is not ready after %s: %v", g.kind, readyTimeout, err)
		case <-time.After(10 * time.Millisecond):
		}
	}
}

func (g *target) probe(ctx context.Context) (bool, error) {
	for _, name := range g.names() {
		if !g.parts[name].running() {
			return false, fmt.Errorf("%s has ended: %v", name, g.parts[name].err)
		}
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, g.base()+"/readyz", nil)
	if err != nil {
		return false, err
	}
	resp, err := g.http.Do(req)
	if err != nil {
		return false, err
	}
	defer resp.Body.Close()
	body, _ := io.ReadAll(resp.Body)
	return resp.StatusCode == http.StatusOK, errors.New(string(body))
}

// kill is kill -9 for the named parts, or for all.
func (g *target) kill(names ...string) {
	if len(names) == 0 {
		names = g.names()
	}
	for _, name := range names {
		g.parts[name].cmd.Process.Kill()
	}
	for _, name := range names {
		g.parts[name].kill()
	}
}

func (g *target) stop(name string) error { return g.parts[name].stop() }

// memory returns the resident size of all parts, and the sum of their largest.
func (g *target) memory() (now, peak int64) {
	for _, name := range g.names() {
		n, p := g.parts[name].memory()
		now, peak = now+n, peak+p
	}
	return now, peak
}

// secret notes a text that must not turn up in any log.
func (g *target) secret(s string) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.secrets = append(g.secrets, s)
}

var alarm = regexp.MustCompile(`(?m)^.*(panic|DATA RACE|goroutine \d+ \[|fatal error).*$`)

// autopsy stops the target and reads what it printed.
func (g *target) autopsy(t testing.TB) {
	for _, name := range g.names() {
		p := g.parts[name]
		if p == nil {
			continue
		}
		if !p.running() {
			t.Errorf("%s had ended before the end of the test: %v", name, p.err)
		}
	}
	for i := len(g.names()) - 1; i >= 0; i-- {
		if p := g.parts[g.names()[i]]; p != nil && p.running() {
			begin := time.Now()
			if err := p.stop(); err != nil {
				t.Errorf("%s does not end in order: %v", p.name, err)
			}
			t.Logf("%s has ended after %s", p.name, time.Since(begin))
		}
	}
	text, _ := g.out.after(0)
	if m := alarm.Find(text); m != nil {
		t.Errorf("a program printed: %s", m)
	}
	for _, s := range g.secrets {
		if strings.Contains(string(text), s) {
			t.Errorf("a log has the secret %q", s)
		}
	}
	if t.Failed() {
		t.Logf("output of the programs:\n%s", text[max(0, len(text)-20000):])
	}
}
