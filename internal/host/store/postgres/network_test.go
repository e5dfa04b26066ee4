package postgres

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store"
	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// certificate returns a self-signed certificate for a name, and its key, in PEM.
func certificate(t *testing.T, name string) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}
	if ip := net.ParseIP(name); ip != nil {
		template.IPAddresses = []net.IP{ip}
	} else {
		template.DNSNames = []string{name}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}

// TestTLS connects to servers that prove to be somebody, or do not.
func TestTLS(t *testing.T) {
	dir := t.TempDir()
	file := func(name string, content []byte) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	mine, key := certificate(t, "127.0.0.1")
	named, namedKey := certificate(t, "db.example.org")
	foreign, _ := certificate(t, "127.0.0.1")
	start := func(cert, key []byte) *pgtest.Server {
		s := pgtest.New(t)
		s.Kill()
		if err := s.Configure("ssl = on\nssl_min_protocol_version = TLSv1.3", map[string][]byte{"server.crt": cert, "server.key": key}); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
		return s
	}
	right, wrongName, plain := start(mine, key), start(named, namedKey), pgtest.New(t)
	for name, tt := range map[string]struct {
		server *pgtest.Server
		query  string
		want   string // "" for success
	}{
		"the right server":        {right, "sslmode=verify-full&sslrootcert=" + file("right", mine), ""},
		"another CA":              {right, "sslmode=verify-full&sslrootcert=" + file("foreign", foreign), "certificate"},
		"the system's CAs":        {right, "sslmode=verify-full", "certificate"},
		"another name":            {wrongName, "sslmode=verify-full&sslrootcert=" + file("named", named), "certificate"},
		"another name, CA only":   {wrongName, "sslmode=verify-ca&sslrootcert=" + file("named", named), ""},
		"another CA, CA only":     {wrongName, "sslmode=verify-ca&sslrootcert=" + file("foreign", foreign), "certificate"},
		"a server without TLS":    {plain, "sslmode=verify-full&sslrootcert=" + file("right", mine), "refused TLS"},
		"without TLS, by its own": {plain, "", ""},
	} {
		url := fmt.Sprintf("postgres://ehsm@%s/postgres?%s", tt.server.Addr(), tt.query)
		s, err := Open(t.Context(), Target{URL: url}, Options{})
		if err == nil {
			err = s.Ping(t.Context())
			s.Close()
		}
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: got %v, want %q", name, err, tt.want)
		}
	}
}

// TestFailover names several hosts, of which one takes changes, and then another.
func TestFailover(t *testing.T) {
	first, second := pgtest.New(t), pgtest.New(t)
	standby := func(s *pgtest.Server, setting string) {
		s.Kill()
		if err := s.Configure("default_transaction_read_only = "+setting, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Start(); err != nil {
			t.Fatal(err)
		}
	}
	// The schemas of both, as replication would make them.
	for _, s := range []*pgtest.Server{first, second} {
		mustOpen(t, s.URL("postgres"), Options{}).Close()
	}
	standby(first, "on")
	url := fmt.Sprintf("postgres://ehsm@%s,127.0.0.1:1,%s/postgres", first.Addr(), second.Addr())
	s := mustOpen(t, url, Options{Timeout: 2 * time.Second})
	stored := func(n byte, server *pgtest.Server) {
		t.Helper()
		c := store.Change{Writes: []wire.Write{{ID: keyID(n), Revision: 1, Sealed: make([]byte, 16)}}}
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
		defer cancel()
		for {
			err := s.Apply(ctx, c)
			if err == nil {
				break
			}
			if ctx.Err() != nil {
				t.Fatalf("change %d: %v", n, err)
			}
		}
		rows, err := mustOpen(t, server.URL("postgres"), Options{}).Get(t.Context(), []wire.RecordID{keyID(n)})
		if err != nil || rows[0].Revision != 1 {
			t.Errorf("change %d is not on the server that takes changes: %v, %v", n, rows, err)
		}
	}
	stored(1, second)
	second.Kill()
	standby(first, "off")
	stored(2, first)
}
