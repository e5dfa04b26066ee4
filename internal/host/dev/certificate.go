package dev

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"time"
)

// What TLSDir holds.
const (
	CertFile = "cert.pem"
	KeyFile  = "key.pem"
)

const certLifetime = 10 * 365 * 24 * time.Hour

// certificate loads the server's certificate from dir, which it makes at first
// start, and returns its SHA-256 fingerprint beside the configuration.
func certificate(dir string, addr net.Addr) (*tls.Config, string, error) {
	certPath, keyPath := filepath.Join(dir, CertFile), filepath.Join(dir, KeyFile)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		if err := selfSign(dir, addr); err != nil {
			return nil, "", fmt.Errorf("make the TLS certificate: %w", err)
		}
	}
	pair, err := tls.LoadX509KeyPair(certPath, keyPath)
	if err != nil {
		return nil, "", fmt.Errorf("load the TLS certificate (delete %s to make a new one): %w", dir, err)
	}
	sum := sha256.Sum256(pair.Certificate[0])
	return &tls.Config{Certificates: []tls.Certificate{pair}}, hex.EncodeToString(sum[:]), nil
}

// Certify makes the certificate in dir if there is none, good for loopback and addr,
// and returns its SHA-256 in hex.
func Certify(dir string, addr net.Addr) (fingerprint string, err error) {
	_, fingerprint, err = certificate(dir, addr)
	return fingerprint, err
}

// selfSign makes a P-256 key and a certificate for loopback, this host's name
// and the address that is listened on.
func selfSign(dir string, addr net.Addr) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return err
	}
	t := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "ehsm dev"},
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(certLifetime),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		DNSNames:              []string{"localhost"},
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	if name, err := os.Hostname(); err == nil {
		t.DNSNames = append(t.DNSNames, name)
	}
	if tcp, ok := addr.(*net.TCPAddr); ok && !tcp.IP.IsLoopback() && !tcp.IP.IsUnspecified() {
		t.IPAddresses = append(t.IPAddresses, tcp.IP)
	}
	cert, err := x509.CreateCertificate(rand.Reader, t, t, key.Public(), key)
	if err != nil {
		return err
	}
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePair(dir, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: cert}),
		pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}))
}

// writePair makes dir with both files at once.
func writePair(dir string, cert, key []byte) error {
	tmp, err := os.MkdirTemp(filepath.Dir(dir), ".tls-*")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	if err := os.WriteFile(filepath.Join(tmp, CertFile), cert, 0o644); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(tmp, KeyFile), key, 0o600); err != nil {
		return err
	}
	return os.Rename(tmp, dir)
}
