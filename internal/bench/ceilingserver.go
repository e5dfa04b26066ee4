package bench

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"math/big"
	"net"
	"time"

	"github.com/ehsm-kms/ehsm/internal/bench/ceiling"
)

// What the ceiling server and its client share. They guard nothing: the key
// encrypts random bytes.
const (
	ceilingKeyID  = "ceiling"
	ceilingSecret = "the ceiling server keeps no secret"
)

// ceilingBlock returns the one key of the ceiling server, AES-256.
func ceilingBlock() (cipher.Block, error) {
	return aes.NewCipher(bytes.Repeat([]byte{0x5c}, 32))
}

// ServeCeiling serves the ceiling server on a free loopback port until ctx ends,
// with TLS unless plain, and prints its URL to out when it is ready.
func ServeCeiling(ctx context.Context, plain bool, out io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	defer ln.Close()
	block, err := ceilingBlock()
	if err != nil {
		return err
	}
	key, err := cipher.NewGCMWithRandomNonce(block)
	if err != nil {
		return err
	}
	scheme, cert := "http", (*tls.Certificate)(nil)
	if !plain {
		scheme = "https"
		if cert, err = selfSigned(); err != nil {
			return fmt.Errorf("make a certificate: %w", err)
		}
	}
	fmt.Fprintf(out, "ceiling server is ready\n  url: %s://%s\n", scheme, ln.Addr())
	return ceiling.Serve(ctx, ln, cert, ceiling.Handler([]byte(ceilingSecret), map[string]cipher.AEAD{ceilingKeyID: key}))
}

// selfSigned returns a fresh certificate for loopback, with a P-256 key as
// `ehsm dev` has, so that handshakes cost the same.
func selfSigned() (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "ehsm bench"},
		NotBefore:    now.Add(-time.Hour), NotAfter: now.Add(24 * time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
		IPAddresses:           []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, nil
}

// proveCeiling checks that the ceiling server encrypts what it is sent.
func proveCeiling(plaintext []byte) proof {
	return func(_ context.Context, body []byte) error {
		var reply ceiling.Reply
		if err := json.Unmarshal(body, &reply); err != nil {
			return err
		}
		block, err := ceilingBlock()
		if err != nil {
			return err
		}
		key, err := cipher.NewGCMWithRandomNonce(block)
		if err != nil {
			return err
		}
		got, err := key.Open(nil, nil, reply.Ciphertext, nil)
		if err == nil && !bytes.Equal(got, plaintext) {
			err = errProof
		}
		return err
	}
}
