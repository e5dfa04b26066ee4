package e2e

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestSimulationIsSaid: no program starts on the simulated platform without
// saying so, and clients can ask.
func TestSimulationIsSaid(t *testing.T) {
	t.Parallel()
	for kind, want := range map[string][]string{
		dev:       {"ehsm: simulated TEE: keys are protected by file permissions only"},
		splitUnix: {"ehsm-simtee: simulated TEE: nothing is protected by hardware", "ehsm-core: simulated TEE: keys are not protected by hardware", "development signer"},
	} {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			g := newTarget(t, kind)
			for start := range 2 {
				text, _ := g.out.after(0)
				for _, line := range want {
					if n := strings.Count(string(text), line); n < start+1 {
						t.Errorf("start %d: %d times %q in %s", start, n, line, text)
					}
				}
				r := g.must(t, http.MethodGet, "/ehsm?Action=GetVersion", nil)
				if got := r.text(t, "platform"); got != "sim" {
					t.Errorf("GetVersion: platform %q, want sim", got)
				}
				g.kill()
				g.start(t)
			}
		})
	}
}

// TestAnotherProgramGetsNoKeys: a signed program cannot open what an unsigned one
// has sealed, on the same machine and with the same domain; and a program whose
// signature does not fit does not start at all.
func TestAnotherProgramGetsNoKeys(t *testing.T) {
	t.Parallel()
	g := newTarget(t, splitUnix)
	g.kill(partCore)
	program := filepath.Join(g.dir, partCore)
	b, err := os.ReadFile(filepath.Join(bin, partCore))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, b, 0o700); err != nil {
		t.Fatal(err)
	}
	refused := func(name, reason string) {
		printed := g.out.size()
		p := spawnFile(t, g.out, g.environ("EHSM_CORE_LISTEN="+g.core, "EHSM_CORE_DOMAIN="+g.data("domain"), "EHSM_CORE_SIM="+g.tee()), program)
		<-p.exited
		if text, _ := g.out.after(printed); p.err == nil || !strings.Contains(string(text), reason) {
			t.Errorf("%s: got %v, want %q in %s", name, p.err, reason, text)
		}
	}
	key := filepath.Join(g.dir, "signer.key")
	sign := func(args ...string) {
		p := spawn(t, g.out, g.environ(), partTEE, append([]string{"sign", "--key", key, program}, args...)...)
		if <-p.exited; p.err != nil {
			t.Fatal(p.err)
		}
	}
	sign("--new-key", "--product", "1", "--svn", "1")
	refused("another signer", "sealed on another machine, for other code")
	sign("--product", "2", "--svn", "1")
	refused("another product", "the platform measured another program")
	if err := os.WriteFile(program+".env", []byte("EHSM_CORE_KEYS=100\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	refused("a stale signature", "sign it again")
	g.start(t) // the program that the domain belongs to
}
