// Package collateraltest has a server for tests that serves recorded collateral
// as Intel's PCS v4 and as a PCCS do, and that can be made to misbehave. Sources:
// Intel's API documentation of the Provisioning Certification Service, version 4,
// and the API specification in Intel's design guide for the PCCS.
package collateraltest

import (
	"encoding/hex"
	"encoding/pem"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// A Flavour says whose interface a Server has.
type Flavour int

// The flavours. They differ in how CRLs are encoded and in where the root CRL is.
const (
	PCS  Flavour = iota // Intel's own service
	PCCS                // an operator's caching service
)

// Resources, for Meddle.
const (
	TCBInfo    = "/sgx/certification/v4/tcb"
	QEIdentity = "/sgx/certification/v4/qe/identity"
	PCKCRL     = "/sgx/certification/v4/pckcrl"
	RootCRL    = "/sgx/certification/v4/rootcacrl" // of a PCCS
	IntelCRL   = "/IntelSGXRootCA.der"             // of Intel's other host
)

// A Server serves collateral over HTTPS with a certificate of its own. It is safe
// for concurrent use.
type Server struct {
	*httptest.Server
	flavour Flavour
	caFile  string

	mu       sync.Mutex
	byFMSPC  map[string]verify.Collateral // in lower-case hex
	byCA     map[string]verify.Collateral
	meddlers map[string]http.HandlerFunc
	requests []*http.Request
}

// NewServer starts a server, which ends with the test. It serves nothing yet.
func NewServer(t testing.TB, flavour Flavour) *Server {
	t.Helper()
	s := &Server{flavour: flavour, byFMSPC: map[string]verify.Collateral{}, byCA: map[string]verify.Collateral{}, meddlers: map[string]http.HandlerFunc{}}
	s.Server = httptest.NewUnstartedServer(s)
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // broken handshakes are tests, too
	s.StartTLS()
	t.Cleanup(s.Close)
	s.caFile = filepath.Join(t.TempDir(), "ca.pem")
	ca := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})
	if err := os.WriteFile(s.caFile, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	return s
}

// CAFile is a PEM file with the certificate of the server.
func (s *Server) CAFile() string { return s.caFile }

// RootCRLURL is where a PCS has the root CRL.
func (s *Server) RootCRLURL() string { return s.URL + IntelCRL }

// Offer makes the server serve c for the platform that it is for, in place of
// what it had for it.
func (s *Server) Offer(t testing.TB, c verify.Collateral) {
	t.Helper()
	contents, err := c.Contents()
	if err != nil {
		t.Fatal(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.byFMSPC[hex.EncodeToString(contents.FMSPC[:])] = c
	s.byCA[contents.CA] = c
	s.byCA[""] = c // what is not for a platform
}

// Meddle makes h answer for a resource; nil ends it.
func (s *Server) Meddle(resource string, h http.HandlerFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.meddlers[resource] = h
}

// Requests returns the requests so far, without bodies, oldest first.
func (s *Server) Requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*http.Request(nil), s.requests...)
}

// ServeHTTP implements http.Handler.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.requests = append(s.requests, r)
	meddler := s.meddlers[r.URL.Path]
	s.mu.Unlock()
	w.Header().Set("Request-ID", "0123456789abcdef0123456789abcdef")
	if meddler != nil {
		meddler(w, r)
		return
	}
	s.Answer(w, r)
}

// Answer answers as the service does, whoever meddles.
func (s *Server) Answer(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method != http.MethodGet:
		w.WriteHeader(http.StatusMethodNotAllowed)
	case r.URL.Path == TCBInfo:
		s.tcbInfo(w, r.URL.Query())
	case r.URL.Path == QEIdentity:
		s.qeIdentity(w, r.URL.Query())
	case r.URL.Path == PCKCRL:
		s.pckCRL(w, r.URL.Query())
	case r.URL.Path == RootCRL && s.flavour == PCCS, r.URL.Path == IntelCRL && s.flavour == PCS:
		s.rootCRL(w)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *Server) find(all map[string]verify.Collateral, key string) (c verify.Collateral, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	c, ok = all[key]
	return c, ok
}

func badUpdate(query url.Values) bool {
	update := query.Get("update")
	return update != "" && update != "early" && update != "standard"
}

func (s *Server) tcbInfo(w http.ResponseWriter, query url.Values) {
	fmspc, err := hex.DecodeString(query.Get("fmspc"))
	if err != nil || len(fmspc) != 6 || badUpdate(query) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	c, ok := s.find(s.byFMSPC, hex.EncodeToString(fmspc))
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Tcb-Info-Issuer-Chain", EscapeChain(c.TCBInfoIssuerChain))
	w.Header().Set("Content-Type", "application/json")
	w.Write(Signed("tcbInfo", c.TCBInfo, c.TCBInfoSignature))
}

func (s *Server) qeIdentity(w http.ResponseWriter, query url.Values) {
	c, ok := s.find(s.byCA, "")
	if !ok || badUpdate(query) {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Sgx-Enclave-Identity-Issuer-Chain", EscapeChain(c.QEIdentityIssuerChain))
	w.Header().Set("Content-Type", "application/json")
	w.Write(Signed("enclaveIdentity", c.QEIdentity, c.QEIdentitySignature))
}

func (s *Server) pckCRL(w http.ResponseWriter, query url.Values) {
	c, ok := s.find(s.byCA, query.Get("ca"))
	if !ok || query.Get("ca") == "" {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	w.Header().Set("Sgx-Pck-Crl-Issuer-Chain", EscapeChain(c.PCKCRLIssuerChain))
	switch {
	case query.Get("encoding") == "der":
		w.Header().Set("Content-Type", "application/pkix-crl")
		w.Write(c.PCKCRL)
	case s.flavour == PCCS:
		w.Header().Set("Content-Type", "application/x-pem-file") // it says so, and sends hex
		w.Write([]byte(hex.EncodeToString(c.PCKCRL)))
	default:
		w.Header().Set("Content-Type", "application/x-pem-file")
		w.Write(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: c.PCKCRL}))
	}
}

func (s *Server) rootCRL(w http.ResponseWriter) {
	c, ok := s.find(s.byCA, "")
	if !ok {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	w.Header().Set("Content-Type", "application/pkix-crl")
	if s.flavour == PCCS {
		w.Write([]byte(hex.EncodeToString(c.RootCRL)))
		return
	}
	w.Write(c.RootCRL)
}

// Signed is a document with its signature as the services send it.
func Signed(name string, document []byte, signature [64]byte) []byte {
	return []byte(`{"` + name + `":` + string(document) + `,"signature":"` + hex.EncodeToString(signature[:]) + `"}`)
}

// EscapeChain percent-encodes a chain in PEM as the services do in headers.
func EscapeChain(chain []byte) string {
	return strings.ReplaceAll(url.QueryEscape(string(chain)), "+", "%20")
}
