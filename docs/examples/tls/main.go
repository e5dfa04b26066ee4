// Command tls serves one TLS connection with a private key that never leaves the
// KMS. It makes an EC key in the service, has it sign its own certificate, and
// the server's part of a handshake.
package main

import (
	"context"
	"crypto"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"log"
	"math/big"
	"net"
	"os"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func main() {
	log.SetFlags(0)
	if err := run(context.Background()); err != nil {
		log.Fatalf("tls: %v", err)
	}
}

func run(ctx context.Context) error {
	client, err := ehsm.New(ehsm.Config{
		URL:         os.Getenv("EHSM_ADDR"),
		Fingerprint: os.Getenv("EHSM_FINGERPRINT"),
		AppID:       os.Getenv("EHSM_APPID"),
		APIKey:      ehsm.NewAPIKey(os.Getenv("EHSM_APIKEY")),
	})
	if err != nil {
		return err
	}
	defer client.Close()
	keyID, err := client.CreateKey(ctx, api.ECP256, api.SignVerify, api.InternalKey)
	if err != nil {
		return err
	}
	signer, err := client.Signer(ctx, keyID) // a crypto.Signer
	if err != nil {
		return err
	}
	cert, err := selfSign(signer)
	if err != nil {
		return fmt.Errorf("make the certificate: %w", err)
	}
	return serveOne(signer, cert)
}

// selfSign makes a certificate for 127.0.0.1 that its own key signs.
func selfSign(signer crypto.Signer) (*x509.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: "key in the KMS"},
		NotBefore:    time.Now().Add(-time.Minute),
		NotAfter:     time.Now().Add(24 * time.Hour),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		return nil, err
	}
	return x509.ParseCertificate(der)
}

// serveOne serves the connection of a client that trusts cert alone.
func serveOne(signer crypto.Signer, cert *x509.Certificate) error {
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: signer}},
	})
	if err != nil {
		return err
	}
	defer l.Close()
	served := make(chan error, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			served <- err
			return
		}
		defer conn.Close()
		served <- conn.(*tls.Conn).Handshake()
	}()
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots})
	if err != nil {
		return err
	}
	defer conn.Close()
	state := conn.ConnectionState()
	fmt.Printf("%s with %s\n", tls.VersionName(state.Version), state.PeerCertificates[0].Subject)
	return <-served
}
