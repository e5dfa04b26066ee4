package main

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"log/slog"
	"math/big"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/api/ratls"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	// renewal is how often there is another key and statement, while the last one still
	// counts.
	renewal = ratls.MaxAge / 2
	// renewalRetry is when it is tried again.
	renewalRetry = time.Minute
)

// errNoCertificate refuses handshakes before the core has vouched.
var errNoCertificate = errors.New("the core has not vouched for a key yet")

// An attestedTLS has the certificate whose key the core vouches for. Keys are in memory
// only.
type attestedTLS struct {
	core    wire.Voucher
	log     *slog.Logger
	again   chan struct{}
	current atomic.Pointer[tls.Certificate]
}

func newAttestedTLS(log *slog.Logger) *attestedTLS {
	return &attestedTLS{log: log, again: make(chan struct{}, 1)}
}

// config is for a server. Before begin it refuses handshakes.
func (a *attestedTLS) config() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		if c := a.current.Load(); c != nil {
			return c, nil
		}
		return nil, errNoCertificate
	}}
}

// begin has the core vouch for the first key.
func (a *attestedTLS) begin(ctx context.Context, core wire.Voucher) error {
	a.core = core
	if err := a.renew(ctx); err != nil {
		return fmt.Errorf("EHSM_KMS_TLS_ATTESTED: %w", err)
	}
	return nil
}

// restarted asks for another certificate, as another instance of the core is there.
func (a *attestedTLS) restarted() {
	select {
	case a.again <- struct{}{}:
	default:
	}
}

// run renews until ctx ends.
func (a *attestedTLS) run(ctx context.Context) {
	for wait := renewal; ; {
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return
		case <-a.again:
			timer.Stop()
		case <-timer.C:
		}
		wait = renewal
		if err := a.renew(ctx); err != nil {
			a.log.Error("no new TLS certificate; the last one goes on", "err", err, "again in", renewalRetry)
			wait = renewalRetry
		}
	}
}

// renew makes another key and has it vouched for.
func (a *attestedTLS) renew(ctx context.Context) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return fmt.Errorf("make a TLS key: %w", err)
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return fmt.Errorf("encode a TLS key: %w", err)
	}
	said, err := a.core.Vouch(ctx, ratls.KeyHash(&x509.Certificate{RawSubjectPublicKeyInfo: spki}))
	if err != nil {
		return fmt.Errorf("have the core vouch for a TLS key: %w", err)
	}
	s, err := ratls.Decode(said)
	if err != nil {
		return err
	}
	made := time.Unix(s.Date, 0)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "eHSM-KMS"}, DNSNames: []string{"ehsm-kms.invalid"},
		NotBefore: made, NotAfter: made.Add(ratls.MaxAge), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}, ExtraExtensions: []pkix.Extension{ratls.Extension(said)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return fmt.Errorf("make a TLS certificate: %w", err)
	}
	a.current.Store(&tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key})
	return nil
}
