package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/api/ratls"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// A voucher is a core that vouches for what it is asked, as long as it has no error.
type voucher struct {
	mu   sync.Mutex
	keys []wire.TLSKey
	err  error
	said wire.TLSStatement // instead; nil: as a core
}

func (v *voucher) Vouch(_ context.Context, k wire.TLSKey) (wire.TLSStatement, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.keys = append(v.keys, k)
	if v.err != nil || v.said != nil {
		return v.said, v.err
	}
	s := ratls.Statement{Domain: [32]byte{1}, Date: time.Now().Unix(), Evidence: make([]byte, 300)}
	return s.Append(nil), nil
}

// fail sets what Vouch returns from now on.
func (v *voucher) fail(err error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.err = err
}

func quiet() *attestedTLS { return newAttestedTLS(slog.New(slog.NewTextHandler(io.Discard, nil))) }

// shown is the certificate that a handshake has.
func shown(t *testing.T, a *attestedTLS) *x509.Certificate {
	t.Helper()
	c, err := a.config().GetCertificate(&tls.ClientHelloInfo{})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(c.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestAttestedTLS has another key every twelve hours, soon after a restart of the core,
// and a minute after a failure; the last one goes on meanwhile.
func TestAttestedTLS(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a, core := quiet(), &voucher{}
		if _, err := a.config().GetCertificate(nil); !errors.Is(err, errNoCertificate) {
			t.Errorf("before the core has vouched: got %v, want %v", err, errNoCertificate)
		}
		if err := a.begin(t.Context(), core); err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan struct{})
		go func() { a.run(ctx); close(done) }()
		for _, step := range []struct {
			name         string
			wait         time.Duration
			err          error
			again        bool
			asked, shown int // keys, counted from 1
		}{
			{"first", 0, nil, false, 1, 1},
			{"before its time", renewal - time.Second, nil, false, 1, 1},
			{"at its time", 2 * time.Second, nil, false, 2, 2},
			{"core is started again", time.Second, nil, true, 3, 3},
			{"core fails", renewal + time.Second, errors.New("busy"), false, 4, 3},
			{"a minute later", renewalRetry, nil, false, 5, 5},
		} {
			core.fail(step.err)
			if step.again {
				a.restarted()
			}
			if step.wait > 0 {
				wait := time.NewTimer(step.wait)
				<-wait.C
			}
			synctest.Wait()
			cert := shown(t, a)
			if len(core.keys) != step.asked || core.keys[step.shown-1] != wire.TLSKey(ratls.KeyHash(cert)) {
				t.Fatalf("%s: the core was asked for %d keys, want %d, or another one is shown", step.name, len(core.keys), step.asked)
			}
			if s, err := ratls.FromCertificate(cert); err != nil || s.Domain != [32]byte{1} {
				t.Errorf("%s: certificate has %v, %v", step.name, s, err)
			}
		}
		stop()
		<-done
	})
}

func TestAttestedTLSRefusals(t *testing.T) {
	refusal := errors.New("the manager is not in the TEE of the core")
	if err := quiet().begin(t.Context(), &voucher{err: refusal}); !errors.Is(err, refusal) {
		t.Errorf("core that refuses: got %v", err)
	}
	if err := quiet().begin(t.Context(), &voucher{said: []byte("no statement")}); !errors.Is(err, ratls.ErrMalformed) {
		t.Errorf("core that says nothing: got %v", err)
	}
}
