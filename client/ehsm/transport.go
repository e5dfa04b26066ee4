package ehsm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"syscall"
	"time"
)

// ErrFingerprint is returned when the server's certificate is not the pinned one.
var ErrFingerprint = errors.New("server certificate does not have the pinned fingerprint")

// Sizes of the connection pool and its patience.
const (
	maxIdleConns    = 64 // to the one host a client calls
	idleTimeout     = 60 * time.Second
	dialTimeout     = 10 * time.Second
	keepAlivePeriod = 30 * time.Second
	maxHeaderBytes  = 16 << 10
)

// newTransport returns HTTP/1.1 connections to base, authenticated as cfg says.
// The service speaks HTTP/1.1 only.
func newTransport(base *url.URL, cfg Config) (*http.Transport, error) {
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: keepAlivePeriod}
	t := &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		MaxIdleConns:           maxIdleConns,
		MaxIdleConnsPerHost:    maxIdleConns,
		IdleConnTimeout:        idleTimeout,
		TLSHandshakeTimeout:    dialTimeout,
		MaxResponseHeaderBytes: maxHeaderBytes,
		DisableCompression:     true, // the signature covers the bytes as sent
	}
	var err error
	switch {
	case cfg.Insecure && !isLoopback(base.Hostname()):
		return nil, fmt.Errorf("insecure connections are for loopback addresses only, not for %s", base.Hostname())
	case base.Scheme == "http" && cfg.verifies():
		return nil, fmt.Errorf("service URL is %s, want https: a CA file, fingerprint or VerifyConnection has no effect on plain http", base.Redacted())
	case cfg.Insecure:
		dialer.ControlContext = onlyLoopback
		t.Proxy = nil
		t.TLSClientConfig = &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12}
	case base.Scheme == "http":
		return nil, fmt.Errorf("service URL is %s, want https: plain http needs Insecure and a loopback address", base.Redacted())
	}
	if cfg.verifies() || !cfg.Insecure {
		t.TLSClientConfig, err = tlsConfig(cfg)
	}
	t.DialContext = dialer.DialContext
	return t, err
}

// verifies reports whether something is said about the server's certificate.
func (cfg *Config) verifies() bool {
	return cfg.CAFile != "" || cfg.Fingerprint != "" || cfg.VerifyConnection != nil
}

// tlsConfig returns how to authenticate the server: by its chain, its fingerprint, the
// caller's own check, or several of them.
func tlsConfig(cfg Config) (*tls.Config, error) {
	tc := &tls.Config{MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
		tc.RootCAs = x509.NewCertPool()
		if !tc.RootCAs.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("read CA file %s: no PEM certificate in it", cfg.CAFile)
		}
	}
	tc.VerifyConnection = cfg.VerifyConnection
	if cfg.Fingerprint != "" {
		want, err := ParseFingerprint(cfg.Fingerprint)
		if err != nil {
			return nil, err
		}
		tc.VerifyConnection = func(cs tls.ConnectionState) error {
			got := sha256.Sum256(cs.PeerCertificates[0].Raw)
			if !bytes.Equal(got[:], want[:]) {
				return fmt.Errorf("%w: got %x", ErrFingerprint, got)
			}
			if cfg.VerifyConnection != nil {
				return cfg.VerifyConnection(cs)
			}
			return nil
		}
	}
	tc.InsecureSkipVerify = tc.VerifyConnection != nil && cfg.CAFile == "" // it decides, on resumption too
	return tc, nil
}

// ParseFingerprint reads a SHA-256 in hex, in any letter case and with or
// without colons between the bytes, as openssl x509 -fingerprint prints it.
func ParseFingerprint(text string) (sum [32]byte, err error) {
	b, err := hex.DecodeString(strings.ReplaceAll(text, ":", ""))
	if err != nil || len(b) != len(sum) {
		return sum, fmt.Errorf("certificate fingerprint is %q, want 64 hex digits of a SHA-256", text)
	}
	return [32]byte(b), nil
}

// UnverifiedFingerprint connects to the address, takes whatever certificate the
// server shows and returns its fingerprint. It sends no request. The result says
// nothing about who the server is: compare it with what its operator says, or
// use it where the connection was trusted anyway.
func UnverifiedFingerprint(ctx context.Context, address string) (string, error) {
	u, err := parseURL(address)
	if err != nil {
		return "", err
	}
	host := u.Host
	if u.Port() == "" {
		host = net.JoinHostPort(u.Hostname(), "443")
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	dialer := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, ServerName: u.Hostname()}}
	conn, err := dialer.DialContext(ctx, "tcp", host)
	if err != nil {
		return "", fmt.Errorf("look at the certificate of %s: %w", host, err)
	}
	defer conn.Close()
	sum := sha256.Sum256(conn.(*tls.Conn).ConnectionState().PeerCertificates[0].Raw)
	return hex.EncodeToString(sum[:]), nil
}

// isLoopback reports whether host names this machine whatever a resolver says.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// onlyLoopback refuses to connect elsewhere, should the name localhost resolve
// to another machine.
func onlyLoopback(_ context.Context, _, address string, _ syscall.RawConn) error {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	if ip := net.ParseIP(host); ip == nil || !ip.IsLoopback() {
		return fmt.Errorf("insecure connection to %s refused: not a loopback address", address)
	}
	return nil
}
