package session

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"time"
)

// A stream is a TLS connection between two ends that know each other's fresh keys
// and nothing else.
type stream struct {
	*tls.Conn
	state     tls.ConnectionState
	own, peer [32]byte // SHA-256 of the SPKIs
}

// certificate makes a key, and a certificate that says nothing: who its owner is
// is for evidence to say.
func certificate() (*tls.Certificate, [32]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, [32]byte{}, fmt.Errorf("make a key: %w", err)
	}
	t := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ehsm-attest"},
		NotBefore: time.Unix(0, 0), NotAfter: time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), // RFC 5280, 4.1.2.5
	}
	der, err := x509.CreateCertificate(rand.Reader, t, t, &key.PublicKey, key)
	if err != nil {
		return nil, [32]byte{}, fmt.Errorf("make a certificate: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, [32]byte{}, fmt.Errorf("make a certificate: %w", err)
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, sha256.Sum256(leaf.RawSubjectPublicKeyInfo), nil
}

// tlsConfig is the same for both sides. own is called when the certificate is
// needed, which for a server is after the client has spoken.
func tlsConfig(name string, own func() (*tls.Certificate, error)) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		MaxVersion: tls.VersionTLS13,
		// The one group: both ends are programs of one domain, so that there is
		// nobody to be downgraded for.
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		NextProtos:             []string{name},
		SessionTicketsDisabled: true,
		// No CA vouches for the certificates. TLS proves possession of their keys,
		// and evidence binds the keys.
		InsecureSkipVerify:   true,
		ClientAuth:           tls.RequireAnyClientCert,
		GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return own() },
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return own() },
		VerifyConnection:     func(s tls.ConnectionState) error { return checkTLS(name, &s) },
	}
}

// checkTLS refuses connections that are not of the protocol, or that Go's TLS
// would let a peer without a certificate of its own make.
func checkTLS(name string, s *tls.ConnectionState) error {
	switch {
	case s.Version != tls.VersionTLS13: // check+: tls-version: the TLS library refuses others before it asks
		return fmt.Errorf("%w: version %s", ErrTLS, tls.VersionName(s.Version))
	case s.CurveID != tls.X25519MLKEM768: // check+: tls-group: the TLS library refuses others before it asks
		return fmt.Errorf("%w: key exchange %v", ErrTLS, s.CurveID)
	case s.DidResume: // check+: tls-resumption: neither side keeps or gives tickets
		return fmt.Errorf("%w: the session is an old one", ErrTLS)
	case s.NegotiatedProtocol != name: // check: tls-protocol
		return fmt.Errorf("%w: protocol %q, want %q", ErrTLS, s.NegotiatedProtocol, name)
	case len(s.PeerCertificates) != 1: // check: tls-certificates
		return fmt.Errorf("%w: %d certificates, want 1", ErrTLS, len(s.PeerCertificates))
	}
	key, ok := s.PeerCertificates[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() { // check: tls-key
		return fmt.Errorf("%w: the peer's key is not on P-256", ErrTLS)
	}
	return nil
}

// open makes the TLS connection. raw has a deadline.
func open(ctx context.Context, raw net.Conn, s Side, k Kind) (*stream, error) {
	st := new(stream)
	c := tlsConfig(k.Name, func() (cert *tls.Certificate, err error) {
		cert, st.own, err = certificate()
		return cert, err
	})
	if s == Client {
		st.Conn = tls.Client(raw, c)
	} else {
		st.Conn = tls.Server(raw, c)
	}
	if err := st.HandshakeContext(ctx); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrTLS, err)
	}
	st.state = st.ConnectionState()
	st.peer = sha256.Sum256(st.state.PeerCertificates[0].RawSubjectPublicKeyInfo) // checkTLS
	if st.own == ([32]byte{}) {                                                   // check: tls-asked
		return nil, fmt.Errorf("%w: the server did not ask for a certificate", ErrTLS)
	}
	if st.own == st.peer { // check+: tls-own-key: possession of the own key cannot be proved by others
		return nil, fmt.Errorf("%w: the peer has the own key", ErrReflected)
	}
	return st, nil
}

// export derives 32 bytes that only the two ends of this connection know.
func (st *stream) export(label string, context []byte) (v [32]byte, err error) {
	b, err := st.state.ExportKeyingMaterial(label, context, len(v))
	if err != nil {
		return v, fmt.Errorf("export %q: %w", label, err)
	}
	copy(v[:], b)
	clear(b)
	return v, nil
}
