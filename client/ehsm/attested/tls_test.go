package attested

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/binary"
	"errors"
	"math/big"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api/ratls"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

// A whole is a node that is in a TEE as a whole, or says so.
type whole struct {
	*service
	role   string
	use    attest.Use
	age    time.Duration
	hash   func([32]byte) [32]byte // that the evidence binds; nil: of the certificate's key
	change func(*ratls.Statement)  // after the evidence was made
	none   bool                    // no extension
	other  []byte                  // instead of the statement
	max    uint16                  // TLS version; 0: 1.3
}

func newTLSKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

func keyHash(t testing.TB, key *ecdsa.PrivateKey) [32]byte {
	t.Helper()
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		t.Fatal(err)
	}
	return ratls.KeyHash(&x509.Certificate{RawSubjectPublicKeyInfo: spki})
}

// certificate makes what the node shows.
func (w *whole) certificate(key *ecdsa.PrivateKey) tls.Certificate {
	w.t.Helper()
	hash := keyHash(w.t, key)
	if w.hash != nil {
		hash = w.hash(hash)
	}
	s := &ratls.Statement{Domain: w.domain, Instance: w.instance, Date: testNow.Add(-w.age).Unix()}
	data := attest.ReportData(w.use, s.Domain, []byte(w.role), s.Instance[:], hash[:], binary.BigEndian.AppendUint64(nil, uint64(s.Date)))
	s.Evidence = attest.Evidence{Kind: attest.SGXQuote3, Quote: w.quote(data)}.Append(nil)
	if w.change != nil {
		w.change(s)
	}
	said := s.Append(nil)
	if w.other != nil {
		said = w.other
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: testNow.Add(time.Hour)}
	if !w.none {
		template.ExtraExtensions = []pkix.Extension{ratls.Extension(said)}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		w.t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// serve starts the node, and returns a client that verifies it in the handshake.
func (w *whole) serve(v *Verifier, cert tls.Certificate) *ehsm.Client {
	w.t.Helper()
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		rw.Write([]byte(`{"code":200,"message":"success!","result":{"version":"1","git_sha":""}}`))
	}))
	server.Config.ErrorLog = nil
	server.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, MaxVersion: w.max}
	server.StartTLS()
	w.t.Cleanup(server.Close)
	c, err := ehsm.New(ehsm.Config{URL: server.URL, VerifyConnection: v.VerifyConnection})
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(c.Close)
	return c
}

func newWhole(t testing.TB) (*whole, *Verifier) {
	t.Helper()
	w := &whole{service: newService(t), role: "core", use: attest.UseTLS}
	v := w.verifier()
	v.Collateral = w.collateral()
	return w, v
}

func TestVerifyTLS(t *testing.T) {
	w, v := newWhole(t)
	key := newTLSKey(t)
	cert := w.certificate(key)
	c := w.serve(v, cert)
	if _, err := c.Version(t.Context()); err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(cert.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	r, err := v.VerifyTLS(tls.ConnectionState{Version: tls.VersionTLS13, PeerCertificates: []*x509.Certificate{parsed}})
	if err != nil {
		t.Fatal(err)
	}
	if r.Instance != instanceText || r.DomainID != w.domain || !r.Wanted || !r.Simulated || len(r.HPKEPublicKey) != 0 {
		t.Errorf("got %+v", r)
	}
}

func TestVerifyTLSRefuses(t *testing.T) {
	other := keyHash(t, newTLSKey(t))
	debug := quote.FlagInit | quote.FlagMode64 | quote.FlagDebug
	for _, row := range []struct {
		name   string
		change func(*whole, *Verifier)
		kind   error
		step   string
	}{
		{"evidence of another key", func(w *whole, _ *Verifier) { w.hash = func([32]byte) [32]byte { return other } }, ErrChallenge, "report-data"},
		{"another domain", func(w *whole, _ *Verifier) { w.domain[0]++ }, ErrDomain, "domain"},
		{"another domain that says it is this one", func(w *whole, _ *Verifier) {
			mine := w.domain
			w.domain[0]++
			w.change = func(s *ratls.Statement) { s.Domain = mine }
		}, ErrChallenge, "report-data"},
		{"old evidence", func(w *whole, _ *Verifier) { w.age = 24*time.Hour + 2*time.Second }, ErrStale, "date"},
		{"old evidence that says it is new", func(w *whole, _ *Verifier) {
			w.age = 48 * time.Hour
			w.change = func(s *ratls.Statement) { s.Date = testNow.Unix() }
		}, ErrChallenge, "report-data"},
		{"evidence of tomorrow", func(w *whole, _ *Verifier) { w.age = -time.Hour }, ErrStale, "date"},
		{"another instance", func(w *whole, _ *Verifier) { w.change = func(s *ratls.Statement) { s.Instance[0]++ } }, ErrChallenge, "report-data"},
		{"another role", func(w *whole, _ *Verifier) { w.role = "dkeyserver" }, ErrChallenge, "report-data"},
		{"evidence of another use", func(w *whole, _ *Verifier) { w.use = attest.UseInstance }, ErrChallenge, "report-data"},
		{"debug", func(w *whole, _ *Verifier) { w.enclave.Attributes.Flags = debug }, ErrNotWanted, "policy"},
		{"another program", func(w *whole, _ *Verifier) { w.enclave.MRSigner[0]++ }, ErrNotWanted, "policy"},
		{"simulation", func(_ *whole, v *Verifier) { v.AllowSim = false }, ErrNotGenuine, "pck-chain"},
		{"no evidence", func(w *whole, _ *Verifier) { w.none = true }, ErrNoEvidence, "certificate"},
		{"no statement", func(w *whole, _ *Verifier) { w.other = make([]byte, 300) }, ErrNoEvidence, "certificate"},
		{"no evidence in the statement", func(w *whole, _ *Verifier) {
			w.change = func(s *ratls.Statement) { s.Evidence = make([]byte, 300) }
		}, ErrNoEvidence, "parse"},
		{"forged evidence", func(w *whole, _ *Verifier) {
			w.change = func(s *ratls.Statement) { s.Evidence[200] ^= 1 }
		}, ErrNotGenuine, ""},
		{"no collateral", func(_ *whole, v *Verifier) { v.Collateral = nil }, ErrNoCollateral, "collateral"},
		{"no policy", func(_ *whole, v *Verifier) { v.Policy = nil }, ErrConfig, "configuration"},
		{"TLS 1.2", func(w *whole, _ *Verifier) { w.max = tls.VersionTLS12 }, ErrNoEvidence, "tls"},
	} {
		w, v := newWhole(t)
		row.change(w, v)
		_, err := w.serve(v, w.certificate(newTLSKey(t))).Version(t.Context())
		var refused *Error
		if !errors.As(err, &refused) || !errors.Is(err, row.kind) || row.step != "" && refused.Step != row.step {
			t.Errorf("%s: got %v, want %v at %s", row.name, err, row.kind, row.step)
		}
	}
}

// TestCopiedCertificate has a man in the middle who shows the node's certificate, whose
// key he lacks, and one of his own with the node's statement.
func TestCopiedCertificate(t *testing.T) {
	w, v := newWhole(t)
	honest := w.certificate(newTLSKey(t))
	parsed, err := x509.ParseCertificate(honest.Certificate[0])
	if err != nil {
		t.Fatal(err)
	}
	s, err := ratls.FromCertificate(parsed)
	if err != nil {
		t.Fatal(err)
	}
	w.other = s.Append(nil)
	mine := newTLSKey(t)
	if _, err := w.serve(v, w.certificate(mine)).Version(t.Context()); !errors.Is(err, ErrChallenge) {
		t.Errorf("own certificate: got %v, want %v", err, ErrChallenge)
	}
	if _, err := w.serve(v, tls.Certificate{Certificate: honest.Certificate, PrivateKey: mine}).Version(t.Context()); err == nil {
		t.Error("certificate without its key is taken")
	}
}
