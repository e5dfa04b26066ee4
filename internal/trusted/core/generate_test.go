package core

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// TestGeneratorsTakeTurns has more RSA keys asked for than may be made at once.
func TestGeneratorsTakeTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const turns = 2
		var running, most atomic.Int64
		release := make(chan struct{})
		g := &generators{turns: make(chan struct{}, turns)}
		g.generate = func(s primitive.Spec) (secret.Bytes, error) {
			if s.RSA() {
				most.Store(max(most.Load(), running.Add(1)))
				<-release
				running.Add(-1)
			}
			return secret.New(make([]byte, 1)), nil
		}
		var refused atomic.Int64
		var wg sync.WaitGroup
		for range turns + maxWaiting {
			wg.Go(func() {
				if _, err := g.material(primitive.RSA4096); err != nil {
					refused.Add(1)
				}
			})
		}
		synctest.Wait()
		if running.Load() != turns || refused.Load() != 0 {
			t.Errorf("%d run and %d were refused, want %d and none", running.Load(), refused.Load(), turns)
		}
		for range 3 {
			if _, err := g.material(primitive.RSA2048); asRefusal(err).code != codeTooMany {
				t.Errorf("with all places taken: got %v, want a refusal", err)
			}
		}
		for _, s := range []primitive.Spec{primitive.AESGCM256, primitive.SM2, primitive.ECP521, primitive.HMAC} {
			if _, err := g.material(s); err != nil { // must not wait
				t.Errorf("%s meanwhile: %v", s, err)
			}
		}
		close(release)
		wg.Wait()
		if most.Load() != turns || refused.Load() != 0 || g.inside.Load() != 0 || len(g.turns) != 0 {
			t.Errorf("at most %d ran, %d were refused, %d are left inside, %d turns are taken", most.Load(), refused.Load(), g.inside.Load(), len(g.turns))
		}
		if _, err := g.material(primitive.RSA2048); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	})
}

func TestGeneratorFails(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	external := c.createExternal("EH_AES_GCM_256")
	g := h.cores[0].generators
	g.generate = func(primitive.Spec) (secret.Bytes, error) { return secret.Bytes{}, errors.New("no randomness") }
	for _, spec := range []string{"EH_RSA_2048", "EH_SM2", "EH_AES_GCM_256"} {
		want(t, spec, c.create(spec, forCrypt, nil), 500, server)
	}
	want(t, "session", c.do(0, "GetParametersForImport", m{"keyid": external, "keyspec": "EH_RSA_2048"}), 500, "GetParametersForImport failed.")
	g.generate = func(primitive.Spec) (secret.Bytes, error) { return secret.New([]byte("no key")), nil }
	want(t, "session of a broken key", c.do(0, "GetParametersForImport", m{"keyid": external, "keyspec": "EH_RSA_2048"}), 500, "GetParametersForImport failed.")
	if len(g.turns) != 0 || g.inside.Load() != 0 {
		t.Errorf("%d turns are taken, %d are inside", len(g.turns), g.inside.Load())
	}
}

// TestExpensive names what a server of a stream must not run in line.
func TestExpensive(t *testing.T) {
	actions := actions()
	for name, want := range map[string]bool{
		"CreateKey": true, "GetParametersForImport": true, "ImportKeyMaterial": true, "Sign": true, "Verify": true,
		"AsymmetricDecrypt": true, "BatchEncrypt": true, "BatchReEncrypt": true, "BatchSign": false, "BatchDecrypt": false,
		"ExportDataKey": true, "GenerateQuote": false, "Encrypt": false, "Decrypt": false, "GenerateDataKey": false,
	} {
		if actions[name] == nil {
			t.Errorf("%s is no action", name)
		}
		if got := wire.Expensive(name); got != want {
			t.Errorf("Expensive(%q): got %v, want %v", name, got, want)
		}
	}
}

// TestSlow names what a server of a stream must not have a worker wait for.
func TestSlow(t *testing.T) {
	for name, want := range map[string]bool{
		"BatchDecrypt": true, "BatchSign": true, "BatchVerify": true, "BatchEncrypt": false,
		"GenerateQuote": true, "GetEvidence": true, "GetVersion": false, "VerifyQuote": false, "CreateKey": false, "Encrypt": false,
	} {
		if got := wire.Slow(name); got != want {
			t.Errorf("Slow(%q): got %v, want %v", name, got, want)
		}
	}
}
