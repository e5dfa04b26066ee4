package main

import (
	"bytes"
	"crypto/hpke"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// A fakeService answers what anybody may ask of a service, on a simulated
// machine, honestly unless a test edits it.
type fakeService struct {
	*httptest.Server
	t       *testing.T
	fleet   *issue.Fleet
	machine *issue.Machine
	hpkeKey []byte
	dir     string // of the files that its commands name

	terms   issue.Terms                    // of the collateral that it serves
	report  func(*sgx.Report)              // before it is signed
	answer  func(*api.GetEvidenceResult)   // before it is sent
	instead map[string]http.HandlerFunc    // by action, or "collateral"
	served  func(verify.Collateral) []byte // nil: as JSON
}

const fakeInstance = "0c0d0e0f-1011-1213-1415-161718191a1b"

func fakeDomain() string { return strings.Repeat("d0", 32) }

// newFakeService starts a service whose machine is up to date.
func newFakeService(t *testing.T) *fakeService {
	t.Helper()
	now := time.Now()
	fleet, err := issue.NewFleet(now.Add(-time.Hour))
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	check(err)
	p := issue.NewPlatform()
	machine, err := fleet.NewMachine(p, now.Add(-time.Hour))
	check(err)
	key, err := hpke.MLKEM768X25519().GenerateKey()
	check(err)
	s := &fakeService{
		t: t, fleet: fleet, machine: machine, hpkeKey: key.PublicKey().Bytes(), dir: t.TempDir(), instead: map[string]http.HandlerFunc{},
		report: func(*sgx.Report) {}, answer: func(*api.GetEvidenceResult) {},
		terms: issue.Terms{Platform: p, Issued: now.Add(-24 * time.Hour), Next: now.Add(30*24*time.Hour + time.Hour), Evaluation: 20},
	}
	s.Server = httptest.NewTLSServer(s)
	t.Cleanup(s.Close)
	s.write("root.pem", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: fleet.Root.Cert.Raw}))
	s.write("wanted.json", pinEnclave(strings.Repeat("aa", 32), hex.EncodeToString(p.PPID[:]), true))
	s.write("strict.json", pinEnclave(strings.Repeat("aa", 32), hex.EncodeToString(p.PPID[:]), false))
	s.write("other.json", pinEnclave(strings.Repeat("ab", 32), hex.EncodeToString(p.PPID[:]), true))
	s.write("elsewhere.json", pinEnclave(strings.Repeat("aa", 32), strings.Repeat("05", 16), true))
	s.write("broken.json", []byte(`{"format": "ehsm-sgx-policy/v1", "accept_all": true}`))
	return s
}

func (s *fakeService) write(name string, b []byte) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), b, 0o600); err != nil {
		s.t.Fatal(err)
	}
}

func (s *fakeService) collateral() verify.Collateral {
	c, err := s.fleet.Collateral(s.terms)
	if err != nil {
		s.t.Error(err)
	}
	return c
}

// ServeHTTP implements http.Handler.
func (s *fakeService) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	what := r.URL.Query().Get("Action")
	if r.URL.Path == "/attestation/collateral" {
		what = "collateral"
	}
	if h := s.instead[what]; h != nil {
		h(w, r)
		return
	}
	switch what {
	case "collateral":
		c := s.collateral()
		b, err := c.EncodeJSON()
		if s.served != nil {
			b = s.served(c)
		}
		if err != nil {
			s.t.Error(err)
		}
		w.Write(b)
	case api.GetVersion:
		s.reply(w, api.GetVersionResult{Version: "0.1.0", GitSHA: "abc"})
	case api.GetEvidence:
		s.reply(w, s.evidence(r.URL.Query().Get(api.ChallengeParam)))
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

func (s *fakeService) reply(w http.ResponseWriter, result any) {
	b, err := json.Marshal(api.Reply[any]{Code: api.CodeOK, Message: "success!", Result: result})
	if err != nil {
		s.t.Error(err)
	}
	w.Write(b)
}

// evidence makes evidence as the core does.
func (s *fakeService) evidence(challengeText string) api.GetEvidenceResult {
	challenge, err := base64.RawURLEncoding.DecodeString(challengeText)
	if err != nil {
		s.t.Error(err)
	}
	domain, _ := hex.DecodeString(fakeDomain())
	instance, _ := hex.DecodeString(strings.ReplaceAll(fakeInstance, "-", ""))
	r := sgx.Report{
		Attributes: sgx.Attributes{Flags: sgx.FlagInit | sgx.FlagMode64, XFRM: 7},
		MREnclave:  [32]byte(bytes.Repeat([]byte{0xaa}, 32)), MRSigner: [32]byte(bytes.Repeat([]byte{0xbb}, 32)),
		ISVProdID: 1, ISVSVN: 2,
		ReportData: attest.ReportData(attest.UseInstance, [32]byte(domain), []byte(api.RoleCore), challenge, instance, s.hpkeKey),
	}
	s.report(&r)
	q, err := s.machine.Quote(r)
	if err != nil {
		s.t.Error(err)
	}
	answer := api.GetEvidenceResult{
		Challenge: challengeText, Evidence: attest.Evidence{Kind: attest.SGXQuote3, Quote: q}.Append(nil), Role: api.RoleCore,
		InstanceID: fakeInstance, DomainID: fakeDomain(), HPKEPublicKey: s.hpkeKey, ReportDataBinding: api.BindingInstance,
	}
	s.answer(&answer)
	return answer
}

// run runs a command of attest against the service. Words that start with @ are
// files of its directory.
func (s *fakeService) run(args ...string) (code int, stdout, stderr string) {
	for i, word := range args {
		if name, ok := strings.CutPrefix(word, "@"); ok {
			args[i] = filepath.Join(s.dir, name)
		}
	}
	sum := sha256.Sum256(s.Certificate().Raw)
	args = append([]string{"attest"}, append(args, "--url", s.URL, "--fingerprint", hex.EncodeToString(sum[:]))...)
	var out, errs bytes.Buffer
	code = run(s.t.Context(), args, home(s.t), strings.NewReader(""), &out, &errs)
	return code, out.String(), errs.String()
}

// page answers everything with a page, as portals do.
func page(w http.ResponseWriter, _ *http.Request) {
	w.Write([]byte("<html>\x1b[2Jplease log in</html>"))
}

func status(code int) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
}

// saveCollateral writes what the service would serve to collateral.json.
func (s *fakeService) saveCollateral() {
	c := s.collateral()
	b, err := c.EncodeJSON()
	if err != nil {
		s.t.Fatal(err)
	}
	s.write("collateral.json", b)
}
