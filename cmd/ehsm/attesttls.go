package main

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
)

// verifyTLS judges the evidence in the certificate that a service shows in a handshake.
func (a *app) verifyTLS(ctx context.Context, address string, f serviceFlags) error {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" {
		return usagef("--tls is %q, want https://host:port", address)
	}
	if f.pin {
		return withHint(usagef("--pin is not for --tls"), "requests are sealed to a core: ehsm attest verify --url "+address+" --pin")
	}
	f.domain = cmp.Or(f.domain, a.domainOf(address))
	v, err := a.verifier(ctx, f)
	if err != nil {
		return err
	}
	out := &serviceAnswer{URL: address, At: v.Now().UTC().Truncate(time.Second), Wanted: unaskedWanted(v.Policy != nil)}
	report, err := a.handshake(ctx, v, u, address)
	var refused *attested.Error
	switch {
	case err == nil:
		out.accept(report)
	case errors.As(err, &refused):
		out.refuse(refused)
	default:
		return err
	}
	if err := a.emit(out, out.text()); err != nil {
		return err
	}
	return out.err()
}

// handshake connects and returns what was verified of the connection. Collateral comes
// from the service, over a connection that nobody vouches for, as it is signed.
func (a *app) handshake(ctx context.Context, v *attested.Verifier, u *url.URL, address string) (r *attested.Report, err error) {
	if len(v.Collateral) == 0 {
		if v.Collateral, err = unverifiedCollateral(ctx, address); err != nil {
			return nil, err
		}
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, ServerName: u.Hostname(), VerifyConnection: func(cs tls.ConnectionState) (err error) {
		r, err = v.VerifyTLS(cs)
		return err
	}}
	conn, err := (&tls.Dialer{Config: config}).DialContext(ctx, "tcp", net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), "443")))
	if err != nil {
		return nil, fmt.Errorf("connect to %s: %w", address, err)
	}
	return r, conn.Close()
}

func unverifiedCollateral(ctx context.Context, address string) ([]byte, error) {
	fingerprint, err := ehsm.UnverifiedFingerprint(ctx, address)
	if err != nil {
		return nil, err
	}
	c, err := ehsm.New(ehsm.Config{URL: address, Fingerprint: fingerprint})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	b, err := c.Collateral(ctx)
	if errors.Is(err, ehsm.ErrNoCollateral) {
		return nil, &attested.Error{Kind: attested.ErrNoCollateral, Step: "collateral", Err: err}
	}
	return b, err
}
