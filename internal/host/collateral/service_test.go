package collateral_test

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
	"github.com/ehsm-kms/ehsm/internal/host/collateral/collateraltest"
)

// dial returns the service that s is.
func dial(t *testing.T, s *collateraltest.Server, flavour collateraltest.Flavour) *collateral.Service {
	t.Helper()
	var service *collateral.Service
	var err error
	if flavour == collateraltest.PCS {
		service, err = collateral.NewPCS(collateral.ServiceOptions{URL: s.URL, RootCRLURL: s.RootCRLURL(), CAFile: s.CAFile()})
	} else {
		service, err = collateral.NewPCCS(collateral.ServiceOptions{URL: s.URL, CAFile: s.CAFile()})
	}
	if err != nil {
		t.Fatal(err)
	}
	return service
}

// TestFetchedCollateralVerifies: what was fetched gives the recorded quotes the
// verdicts that are known for them.
func TestFetchedCollateralVerifies(t *testing.T) {
	for name, rec := range map[string]recording{"processor CA": phala(t), "platform CA": automata(t)} {
		for _, flavour := range []collateraltest.Flavour{collateraltest.PCS, collateraltest.PCCS} {
			s := collateraltest.NewServer(t, flavour)
			s.Offer(t, rec.collateral)
			q, err := verify.QueryOf(rec.quote)
			if err != nil || q != rec.query {
				t.Fatalf("%s: quote needs %v, %v", name, q, err)
			}
			c, err := dial(t, s, flavour).Fetch(t.Context(), q)
			if err != nil {
				t.Errorf("%s, flavour %d: %v", name, flavour, err)
				continue
			}
			got, err := verify.Verify(rec.quote, c, verify.Options{Roots: []*x509.Certificate{verify.IntelRoot()}, Now: rec.now})
			if err != nil || got.Status != rec.status {
				t.Errorf("%s, flavour %d: got %v, %v, want %v", name, flavour, got.Status, err, rec.status)
			}
		}
	}
}

func text(contentType, body string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Write([]byte(body))
	}
}

func status(code int, header ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		for i := 0; i < len(header); i += 2 {
			w.Header().Set(header[i], header[i+1])
		}
		w.WriteHeader(code)
	}
}

// changed answers as s would, after change.
func changed(s *collateraltest.Server, change func(w *recorder)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		rec := &recorder{header: http.Header{}, status: http.StatusOK}
		s.Answer(rec, r)
		change(rec)
		for key, values := range rec.header {
			w.Header()[key] = values
		}
		w.WriteHeader(rec.status)
		w.Write(rec.body.Bytes())
	}
}

// A recorder keeps an answer. Unlike that of httptest it shows no header twice.
type recorder struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (r *recorder) Header() http.Header         { return r.header }
func (r *recorder) WriteHeader(status int)      { r.status = status }
func (r *recorder) Write(b []byte) (int, error) { return r.body.Write(b) }

const (
	tcbHeader = "Tcb-Info-Issuer-Chain"
	crlHeader = "Sgx-Pck-Crl-Issuer-Chain"
	page      = "<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
)

func TestFetchRefuses(t *testing.T) {
	other := automata(t).collateral
	type meddle = func(s *collateraltest.Server) http.HandlerFunc
	chain := func(header string, change func(text string) []string) meddle {
		return func(s *collateraltest.Server) http.HandlerFunc {
			return changed(s, func(r *recorder) { r.header[header] = change(r.header.Get(header)) })
		}
	}
	body := func(change func(b []byte) []byte) meddle {
		return func(s *collateraltest.Server) http.HandlerFunc {
			return changed(s, func(r *recorder) {
				b := change(bytes.Clone(r.body.Bytes()))
				r.body.Reset()
				r.body.Write(b)
			})
		}
	}
	always := func(h http.HandlerFunc) meddle { return func(*collateraltest.Server) http.HandlerFunc { return h } }
	tcb, crl, identity, root := collateraltest.TCBInfo, collateraltest.PCKCRL, collateraltest.QEIdentity, collateraltest.IntelCRL
	for name, row := range map[string]struct {
		resource string
		meddle   meddle
		want     error
		says     string // in the error's text
	}{
		"page for TCB info":       {tcb, always(text("text/html", page)), collateral.ErrAnswer, "no issuer chain"},
		"page with a chain":       {tcb, body(func([]byte) []byte { return []byte(page) }), collateral.ErrAnswer, "TCB info"},
		"page for the root CRL":   {root, always(text("text/html", page)), collateral.ErrAnswer, `type "text/html"`},
		"page for the PCK CRL":    {crl, body(func([]byte) []byte { return []byte(page) }), collateral.ErrAnswer, "PCK CRL"},
		"empty TCB info":          {tcb, body(func([]byte) []byte { return nil }), collateral.ErrAnswer, "JSON"},
		"empty root CRL":          {root, always(text("application/pkix-crl", "")), collateral.ErrAnswer, "empty"},
		"TCB info cut short":      {tcb, body(func(b []byte) []byte { return b[:len(b)/2] }), collateral.ErrAnswer, "JSON"},
		"PCK CRL cut short":       {crl, body(func(b []byte) []byte { return b[:len(b)-1] }), collateral.ErrAnswer, "PCK CRL"},
		"root CRL with more":      {root, body(func(b []byte) []byte { return append(b, 0) }), collateral.ErrAnswer, "root CRL"},
		"oversized TCB info":      {tcb, body(func(b []byte) []byte { return append(b, bytes.Repeat([]byte(" "), verify.MaxDocument)...) }), collateral.ErrAnswer, "more than"},
		"oversized CRL":           {crl, body(func(b []byte) []byte { return append(b, make([]byte, 3*verify.MaxCRL)...) }), collateral.ErrAnswer, "more than"},
		"signature missing":       {tcb, body(func(b []byte) []byte { return append(b[:bytes.LastIndexByte(b, ',')], '}') }), collateral.ErrAnswer, "signature"},
		"signature in upper case": {tcb, body(upperSignature), collateral.ErrAnswer, "lower case"},
		"member twice": {tcb, body(func(b []byte) []byte {
			return bytes.Replace(b, []byte(`"signature"`), []byte(`"signature":"","signature"`), 1)
		}), collateral.ErrAnswer, "twice"},
		"identity for TCB info":    {tcb, always(redirectTo(identity)), collateral.ErrAnswer, ""},
		"wrong FMSPC":              {tcb, body(func([]byte) []byte { return collateraltest.Signed("tcbInfo", other.TCBInfo, other.TCBInfoSignature) }), collateral.ErrAnswer, "it is for 00606a000000-processor, want 00a067110000-processor"},
		"wrong CA":                 {crl, body(func([]byte) []byte { return other.PCKCRL }), collateral.ErrAnswer, "it is for 00a067110000-platform"},
		"root CRL for the PCK CRL": {crl, body(func([]byte) []byte { return other.RootCRL }), collateral.ErrAnswer, "CA"},
		"no chain":                 {tcb, chain(tcbHeader, func(string) []string { return nil }), collateral.ErrAnswer, "no issuer chain"},
		"chain twice":              {tcb, chain(tcbHeader, func(s string) []string { return []string{s, s} }), collateral.ErrAnswer, "2 issuer chains"},
		"chain of both names":      {tcb, chain("Sgx-Tcb-Info-Issuer-Chain", func(string) []string { return []string{"x"} }), collateral.ErrAnswer, "2 issuer chains"},
		"garbled chain":            {tcb, chain(tcbHeader, func(s string) []string { return []string{s[:len(s)/2]} }), collateral.ErrAnswer, "issuer chain"},
		"bad percent-encoding":     {crl, chain(crlHeader, func(s string) []string { return []string{s + "%zz"} }), collateral.ErrAnswer, "issuer chain"},
		"chain of one":             {crl, chain(crlHeader, func(s string) []string { return []string{s[:strings.LastIndex(s, "-----BEGIN")]} }), collateral.ErrAnswer, "1, want 2"},
		"chain too long":           {crl, chain(crlHeader, func(s string) []string { return []string{strings.Repeat("%0A", 11000) + s} }), collateral.ErrAnswer, "limit"},
		"headers too long":         {crl, chain("X-Padding", func(string) []string { return []string{strings.Repeat("x", 100<<10)} }), nil, "header"},
		"unknown FMSPC":            {tcb, always(status(404)), collateral.ErrUnknownPlatform, "HTTP status 404"},
		"no identity":              {identity, always(status(404)), &collateral.StatusError{Code: 404}, "QE identity"},
		"too many requests":        {tcb, always(status(429, "Retry-After", "7")), &collateral.StatusError{Code: 429, RetryAfter: 7 * time.Second}, "retry after 7s"},
		"unavailable for long":     {crl, always(status(503, "Retry-After", "99999999")), &collateral.StatusError{Code: 503, RetryAfter: time.Hour}, ""},
		"bad Retry-After":          {crl, always(status(503, "Retry-After", "soon")), &collateral.StatusError{Code: 503}, ""},
		"server error":             {root, always(status(500)), &collateral.StatusError{Code: 500}, "root CRL"},
		"no content":               {root, always(status(204)), &collateral.StatusError{Code: 204}, ""},
		"redirect to plain HTTP":   {tcb, always(status(302, "Location", "http://127.0.0.1:1/")), collateral.ErrAnswer, "redirect to http://127.0.0.1:1"},
		"redirect to plain HTTP of the same host": {tcb, always(plainly), collateral.ErrAnswer, "redirect to http://"},
		"redirect elsewhere":                      {root, always(status(302, "Location", "https://127.0.0.1:1/")), collateral.ErrAnswer, "redirect to https://127.0.0.1:1"},
		"redirects in a ring":                     {tcb, always(redirectTo(tcb)), collateral.ErrAnswer, "redirects"},
		"connection cut":                          {tcb, always(func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }), nil, "EOF"},
		"shorter than announced":                  {root, always(status(200, "Content-Length", "100")), nil, "EOF"},
	} {
		t.Run(name, func(t *testing.T) {
			s := collateraltest.NewServer(t, collateraltest.PCS)
			rec := phala(t)
			s.Offer(t, rec.collateral)
			s.Meddle(row.resource, row.meddle(s))
			_, err := dial(t, s, collateraltest.PCS).Fetch(t.Context(), rec.query)
			if err == nil || !strings.Contains(err.Error(), row.says) {
				t.Fatalf("got %v, want one that says %q", err, row.says)
			}
			var got, want *collateral.StatusError
			if errors.As(row.want, &want) {
				if !errors.As(err, &got) || *got != *want {
					t.Errorf("got %v, want %v", err, want)
				}
			} else if row.want != nil && !errors.Is(err, row.want) {
				t.Errorf("got %v, want %v", err, row.want)
			}
		})
	}
}

// plainly redirects to itself without TLS.
func plainly(w http.ResponseWriter, r *http.Request) {
	http.Redirect(w, r, "http://"+r.Host+r.URL.Path, http.StatusFound)
}

func redirectTo(path string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, path, http.StatusFound) }
}

func upperSignature(b []byte) []byte {
	at := bytes.LastIndex(b, []byte(`"signature":"`)) + len(`"signature":"`)
	return append(b[:at:at], bytes.ToUpper(b[at:])...)
}

// TestFetchTakes lists what differs between services and is all right.
func TestFetchTakes(t *testing.T) {
	rec := phala(t)
	upper := []byte(strings.ToUpper(hex.EncodeToString(rec.collateral.PCKCRL)))
	for name, row := range map[string]struct {
		resource string
		change   func(r *recorder)
	}{
		"another content type": {collateraltest.TCBInfo, func(r *recorder) { r.header.Set("Content-Type", "text/plain") }},
		"CRL in hex, mixed":    {collateraltest.PCKCRL, func(r *recorder) { r.body.Reset(); r.body.Write(append(bytes.ToLower(upper[:8]), upper[8:]...)) }},
		"CRL in hex, line end": {collateraltest.RootCRL, func(r *recorder) { r.body.WriteString("\r\n") }},
		"CRL in PEM": {collateraltest.PCKCRL, func(r *recorder) {
			r.body.Reset()
			r.body.Write(pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: rec.collateral.PCKCRL}))
		}},
		"root CRL in DER": {collateraltest.RootCRL, func(r *recorder) { r.body.Reset(); r.body.Write(rec.collateral.RootCRL) }},
		"header of version 3": {collateraltest.TCBInfo, func(r *recorder) {
			r.header["Sgx-Tcb-Info-Issuer-Chain"] = r.header[tcbHeader]
			delete(r.header, tcbHeader)
		}},
		"plus signs as they are": {collateraltest.TCBInfo, func(r *recorder) { r.header.Set(tcbHeader, strings.ReplaceAll(r.header.Get(tcbHeader), "%2B", "+")) }},
		"line ends of CR LF": {collateraltest.TCBInfo, func(r *recorder) {
			r.header.Set(tcbHeader, strings.ReplaceAll(r.header.Get(tcbHeader), "%0A", "%0D%0A"))
		}},
		"line end after JSON": {collateraltest.QEIdentity, func(r *recorder) { r.body.WriteString("\n") }},
	} {
		s := collateraltest.NewServer(t, collateraltest.PCCS)
		s.Offer(t, rec.collateral)
		want, err := dial(t, s, collateraltest.PCCS).Fetch(t.Context(), rec.query)
		if err != nil {
			t.Fatal(err)
		}
		s.Meddle(row.resource, changed(s, row.change))
		got, err := dial(t, s, collateraltest.PCCS).Fetch(t.Context(), rec.query)
		if err != nil || !bytes.Equal(got.Append(nil), want.Append(nil)) {
			t.Errorf("%s: got other collateral, %v", name, err)
		}
	}
}

func TestFetchFollowsWithinTheHost(t *testing.T) {
	s := collateraltest.NewServer(t, collateraltest.PCCS)
	rec := phala(t)
	s.Offer(t, rec.collateral)
	s.Meddle(collateraltest.RootCRL, redirectTo("/moved"))
	s.Meddle("/moved", func(w http.ResponseWriter, r *http.Request) { w.Write(rec.collateral.RootCRL) })
	if _, err := dial(t, s, collateraltest.PCCS).Fetch(t.Context(), rec.query); err != nil {
		t.Error(err)
	}
}

func TestFetchEndsWithItsContext(t *testing.T) {
	s := collateraltest.NewServer(t, collateraltest.PCCS)
	ctx, cancel := context.WithCancel(t.Context())
	s.Meddle(collateraltest.TCBInfo, func(w http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	})
	if _, err := dial(t, s, collateraltest.PCCS).Fetch(ctx, phala(t).query); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// TestSlowService: a service that stops within its answer is given up.
func TestSlowService(t *testing.T) {
	s := collateraltest.NewServer(t, collateraltest.PCCS)
	s.Meddle(collateraltest.TCBInfo, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", "100")
		w.Write([]byte("{"))
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	service := dial(t, s, collateraltest.PCCS)
	service.SetTimeout(50 * time.Millisecond)
	_, err := service.Fetch(t.Context(), phala(t).query)
	if !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestFetchRefusesQueries(t *testing.T) {
	s := collateraltest.NewServer(t, collateraltest.PCCS)
	for _, ca := range []string{"", "root", "Processor", "platform&x=y", strings.Repeat("x", 1000)} {
		_, err := dial(t, s, collateraltest.PCCS).Fetch(t.Context(), collateral.Query{CA: ca})
		if !errors.Is(err, collateral.ErrQuery) || len(err.Error()) > 200 {
			t.Errorf("CA %.20q: got %v", ca, err)
		}
	}
	if n := len(s.Requests()); n > 0 {
		t.Errorf("%d requests were made", n)
	}
}

// TestAPIKey: the key goes to the API and to nobody else, and is never printed.
func TestAPIKey(t *testing.T) {
	api, other := collateraltest.NewServer(t, collateraltest.PCS), collateraltest.NewServer(t, collateraltest.PCS)
	rec := phala(t)
	api.Offer(t, rec.collateral)
	other.Offer(t, rec.collateral)
	dir := t.TempDir()
	both := filepath.Join(dir, "ca.pem")
	var pems []byte
	for _, s := range []*collateraltest.Server{api, other} {
		b, err := os.ReadFile(s.CAFile())
		if err != nil {
			t.Fatal(err)
		}
		pems = append(pems, b...)
	}
	key := filepath.Join(dir, "key")
	if err := errors.Join(os.WriteFile(both, pems, 0o600), os.WriteFile(key, []byte("0123subscription\n"), 0o600)); err != nil {
		t.Fatal(err)
	}
	service, err := collateral.NewPCS(collateral.ServiceOptions{URL: api.URL, RootCRLURL: other.RootCRLURL(), CAFile: both, APIKeyFile: key, Early: true})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := service.Fetch(t.Context(), rec.query); err != nil {
		t.Fatal(err)
	}
	if shown := fmt.Sprintf("%v %+v %#v", service, *service, service); strings.Contains(shown, "0123subscription") {
		t.Error("the API key is printed")
	}
	for _, r := range api.Requests() {
		if r.Header.Get("Ocp-Apim-Subscription-Key") != "0123subscription" {
			t.Errorf("%s: no API key", r.URL)
		}
		if early := r.URL.Query().Get("update") == "early"; early != (r.URL.Path != collateraltest.PCKCRL) {
			t.Errorf("%s: early is %v", r.URL, early)
		}
	}
	if got := other.Requests(); len(got) != 1 || got[0].Header.Get("Ocp-Apim-Subscription-Key") != "" {
		t.Errorf("the other host has got %d requests, or the API key", len(got))
	}
}

func TestServiceSettings(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	pcs := func(o collateral.ServiceOptions) error { _, err := collateral.NewPCS(o); return err }
	pccs := func(o collateral.ServiceOptions) error { _, err := collateral.NewPCCS(o); return err }
	type options = collateral.ServiceOptions
	for name, row := range map[string]struct {
		open func(options) error
		o    options
		says string
	}{
		"no PCCS":           {pccs, options{}, "needs a URL"},
		"plain HTTP":        {pccs, options{URL: "http://localhost:8081"}, "not https"},
		"no host":           {pccs, options{URL: "https://:8081"}, "not https"},
		"no scheme":         {pccs, options{URL: "localhost:8081"}, "not https"},
		"not a URL":         {pccs, options{URL: "https://a b"}, "invalid"},
		"password":          {pccs, options{URL: "https://me:secret@host"}, "has a user"},
		"query":             {pcs, options{URL: "https://host/?a=b"}, "query"},
		"version 3":         {pccs, options{URL: "https://localhost:8081/sgx/certification/v3/"}, "another version"},
		"key for a PCCS":    {pccs, options{URL: "https://localhost:8081", APIKeyFile: "key"}, "no API key"},
		"root CRL, PCCS":    {pccs, options{URL: "https://localhost:8081", RootCRLURL: "https://x"}, "root CRL"},
		"root CRL on HTTP":  {pcs, options{RootCRLURL: "http://x/IntelSGXRootCA.der"}, "not https"},
		"no key file":       {pcs, options{APIKeyFile: filepath.Join(dir, "none")}, "API key"},
		"empty key":         {pcs, options{APIKeyFile: file("empty", " \n")}, "one word"},
		"key of two lines":  {pcs, options{APIKeyFile: file("two", "k3y-one\nk3y-two")}, "one word"},
		"key too long":      {pcs, options{APIKeyFile: file("long", strings.Repeat("k", 1000))}, "more than"},
		"no CA file":        {pcs, options{CAFile: filepath.Join(dir, "none")}, "CA file"},
		"CA file of no PEM": {pcs, options{CAFile: file("ca", "x")}, "no certificate"},
	} {
		err := row.open(row.o)
		if !errors.Is(err, collateral.ErrSettings) || !strings.Contains(err.Error(), row.says) {
			t.Errorf("%s: got %v, want one that says %q", name, err, row.says)
		}
		if err != nil && (strings.Contains(err.Error(), "k3y") || strings.Contains(err.Error(), "secret")) {
			t.Errorf("%s: the error repeats a secret", name)
		}
	}
	for name, url := range map[string]string{"bare": "https://localhost:8081", "slash": "https://localhost:8081/", "path": "https://localhost:8081/sgx/certification/v4/", "below": "https://proxy/pccs"} {
		if err := pccs(options{URL: url}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := pcs(options{}); err != nil {
		t.Errorf("Intel's service: %v", err)
	}
}

// TestUntrustedCertificate: without its CA file a PCCS is not talked to.
func TestUntrustedCertificate(t *testing.T) {
	s := collateraltest.NewServer(t, collateraltest.PCCS)
	service, err := collateral.NewPCCS(collateral.ServiceOptions{URL: s.URL})
	if err != nil {
		t.Fatal(err)
	}
	var unknown x509.UnknownAuthorityError
	if _, err := service.Fetch(t.Context(), phala(t).query); !errors.As(err, &unknown) {
		t.Errorf("got %v", err)
	}
	if n := len(s.Requests()); n > 0 {
		t.Errorf("%d requests were made", n)
	}
}
