package attested

import (
	"bytes"
	"context"
	"crypto/hpke"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

const instanceText = "0b1f2e3d-4c5b-4a69-8778-695a4b3c2d1e"

var testNow = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// A service answers as a core on a simulated platform does, and then as its
// hostile host wants.
type service struct {
	t        testing.TB
	fleet    *issue.Fleet
	machine  *issue.Machine
	terms    issue.Terms
	enclave  quote.Report // without REPORTDATA
	domain   [32]byte
	instance [16]byte
	key      []byte // HPKE public key
	replyKey []byte // nil: of a service from before there were reply keys

	bind   func(challenge []byte) [64]byte                          // nil: as the contract says
	change func(a *api.GetEvidenceResult)                           // nil: nothing
	answer func(w http.ResponseWriter, r *http.Request) (done bool) // nil: nothing

	collateralAsked atomic.Int32
}

func newService(t testing.TB) *service {
	t.Helper()
	must := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	fleet, err := issue.NewFleet(testNow)
	must(err)
	platform := issue.NewPlatform()
	machine, err := fleet.NewMachine(platform, testNow)
	must(err)
	key, err := hpke.MLKEM768X25519().GenerateKey()
	must(err)
	instance, err := parseInstance(instanceText)
	must(err)
	return &service{
		t: t, fleet: fleet, machine: machine, domain: [32]byte{0xd0, 1}, instance: instance, key: key.PublicKey().Bytes(), replyKey: bytes.Repeat([]byte{7}, 32),
		terms: issue.Terms{Platform: platform, Issued: testNow.Add(-time.Hour), Next: testNow.Add(24 * time.Hour), Evaluation: 20},
		enclave: quote.Report{
			Attributes: quote.Attributes{Flags: quote.FlagInit | quote.FlagMode64, XFRM: 7},
			MREnclave:  [32]byte{0xaa}, MRSigner: [32]byte{0xbb}, ISVProdID: 1, ISVSVN: 2,
		},
	}
}

// quote makes a quote that binds the bytes.
func (s *service) quote(reportData [64]byte) []byte {
	r := s.enclave
	r.ReportData = reportData
	q, err := s.machine.Quote(r)
	if err != nil {
		s.t.Error(err)
	}
	return q
}

// honest is what a core binds.
func (s *service) honest(challenge []byte) [64]byte {
	if s.replyKey == nil {
		return attest.ReportData(attest.UseInstance, s.domain, []byte("core"), challenge, s.instance[:], s.key)
	}
	return attest.ReportData(attest.UseInstanceKeys, s.domain, []byte("core"), challenge, s.instance[:], s.key, s.replyKey)
}

// collateral is what the service offers.
func (s *service) collateral() []byte {
	c, err := s.fleet.Collateral(s.terms)
	if err != nil {
		s.t.Error(err)
	}
	b, err := c.EncodeJSON()
	if err != nil {
		s.t.Error(err)
	}
	return b
}

func (s *service) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if s.answer != nil && s.answer(w, r) {
		return
	}
	if r.URL.Path == "/attestation/collateral" {
		s.collateralAsked.Add(1)
		w.Write(s.collateral())
		return
	}
	text := r.URL.Query().Get("challenge")
	challenge, err := base64.RawURLEncoding.DecodeString(text)
	if err != nil || len(challenge) != 32 || r.Method != http.MethodGet || r.URL.Query().Get("Action") != "GetEvidence" {
		s.t.Errorf("unexpected request %s %s", r.Method, r.URL)
	}
	bind := s.bind
	if bind == nil {
		bind = s.honest
	}
	a := api.GetEvidenceResult{
		Challenge: text, Role: "core", InstanceID: instanceText, DomainID: hex.EncodeToString(s.domain[:]), HPKEPublicKey: s.key,
		ReplyKey: s.replyKey, ReportDataBinding: "ehsm/reportdata-instance/v2",
		Evidence: attest.Evidence{Kind: attest.SGXQuote3, Quote: s.quote(bind(challenge))}.Append(nil),
	}
	if s.replyKey == nil {
		a.ReportDataBinding = "ehsm/reportdata-instance/v1"
	}
	if s.change != nil {
		s.change(&a)
	}
	body, err := json.Marshal(a)
	if err != nil {
		s.t.Error(err)
	}
	fmt.Fprintf(w, `{"code":200,"message":"success!","result":%s}`, body)
}

// client returns a client of the service.
func (s *service) client() *ehsm.Client {
	s.t.Helper()
	server := httptest.NewServer(s)
	s.t.Cleanup(server.Close)
	c, err := ehsm.New(ehsm.Config{URL: server.URL, Insecure: true})
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(c.Close)
	return c
}

// policy wants what newService is.
func policy(t testing.TB, more string) *Policy {
	t.Helper()
	p, err := ParsePolicy(fmt.Appendf(nil, `{"format":"ehsm-sgx-policy/v1","any_platform":true,
		"enclaves":[{"name":"core","mrsigner":"bb%062d","isvprodid":1,"min_isvsvn":2}]%s}`, 0, more))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// verifier wants the service.
func (s *service) verifier() *Verifier {
	return &Verifier{Policy: policy(s.t, ""), Domain: s.domain, AllowSim: true, Now: func() time.Time { return testNow }}
}

func (s *service) verify(v *Verifier) (*Report, error) {
	return v.Verify(context.Background(), s.client())
}
