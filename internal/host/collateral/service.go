package collateral

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// Where Intel serves collateral.
const (
	IntelPCS     = "https://api.trustedservices.intel.com"
	IntelRootCRL = "https://certificates.trustedservices.intel.com/IntelSGXRootCA.der"
)

const apiPath = "/sgx/certification/v4"

// Names of the headers that carry issuer chains. The first of each list is of
// version 4; caching services for version 3 use the others.
var (
	tcbChain      = []string{"TCB-Info-Issuer-Chain", "SGX-TCB-Info-Issuer-Chain"}
	identityChain = []string{"SGX-Enclave-Identity-Issuer-Chain"}
	crlChain      = []string{"SGX-PCK-CRL-Issuer-Chain"}
)

// maxHexCRL is the longest CRL on the way, in hex or PEM, in bytes.
const maxHexCRL = 2*verify.MaxCRL + 1024

// A Service is a PCS or PCCS. It is safe for concurrent use.
type Service struct {
	base    *url.URL // ends in apiPath
	rootCRL *url.URL
	client  *http.Client
	key     func() string // subscription key; a func, so that no format verb prints it
	early   bool
	timeout time.Duration // for one request, to the end of its answer
}

// StatusError is an HTTP status other than 200.
type StatusError struct {
	Code int
	// RetryAfter is how long the service wants to be left alone, at most an hour;
	// zero if it does not say.
	RetryAfter time.Duration
}

// Error implements error.
func (e *StatusError) Error() string {
	text := fmt.Sprintf("HTTP status %d %s", e.Code, http.StatusText(e.Code))
	if e.RetryAfter > 0 {
		text += fmt.Sprintf(", retry after %v", e.RetryAfter)
	}
	return text
}

// Fetch implements Source. It makes four requests and returns after at most four
// times requestTimeout.
func (s *Service) Fetch(ctx context.Context, q Query) (c verify.Collateral, err error) {
	if err := checkQuery(q); err != nil {
		return c, err
	}
	for _, part := range []struct {
		name  string
		fetch func(context.Context, Query, *verify.Collateral) error
	}{
		{"TCB info", s.tcbInfo}, // first, as it is what may be unknown
		{"QE identity", s.qeIdentity},
		{"PCK CRL", s.pckCRL},
		{"root CRL", s.rootCACRL},
	} {
		if err := part.fetch(ctx, q, &c); err != nil {
			return verify.Collateral{}, fmt.Errorf("fetch %s for %s: %w", part.name, Format(q), err)
		}
	}
	if _, err = contentsFor(&c, q); err != nil {
		return verify.Collateral{}, fmt.Errorf("fetch collateral for %s from %s: %w", Format(q), s.base.Host, err)
	}
	return c, nil
}

func (s *Service) tcbInfo(ctx context.Context, q Query, c *verify.Collateral) (err error) {
	a, err := s.get(ctx, s.at("tcb", "fmspc", hex.EncodeToString(q.FMSPC[:])), verify.MaxDocument)
	var status *StatusError
	if errors.As(err, &status) && status.Code == http.StatusNotFound {
		return fmt.Errorf("%w: %w", ErrUnknownPlatform, err)
	}
	if err != nil {
		return err
	}
	if c.TCBInfoIssuerChain, err = a.chain(tcbChain); err != nil {
		return err
	}
	return a.refuse(c.SetTCBInfo(a.body))
}

func (s *Service) qeIdentity(ctx context.Context, _ Query, c *verify.Collateral) (err error) {
	a, err := s.get(ctx, s.at("qe/identity"), verify.MaxDocument)
	if err != nil {
		return err
	}
	if c.QEIdentityIssuerChain, err = a.chain(identityChain); err != nil {
		return err
	}
	return a.refuse(c.SetQEIdentity(a.body))
}

func (s *Service) pckCRL(ctx context.Context, q Query, c *verify.Collateral) (err error) {
	u := s.at("pckcrl", "ca", q.CA, "encoding", "der")
	a, err := s.get(ctx, u, maxHexCRL)
	if err != nil {
		return err
	}
	if c.PCKCRLIssuerChain, err = a.chain(crlChain); err != nil {
		return err
	}
	c.PCKCRL, err = decodeCRL(a.body)
	return a.refuse(err)
}

func (s *Service) rootCACRL(ctx context.Context, _ Query, c *verify.Collateral) error {
	a, err := s.get(ctx, s.rootCRL, maxHexCRL)
	if err != nil {
		return err
	}
	c.RootCRL, err = decodeCRL(a.body)
	return a.refuse(err)
}

// at returns the address of a resource of the API with pairs of names and values
// as its query.
func (s *Service) at(resource string, pairs ...string) *url.URL {
	u := s.base.JoinPath(resource)
	query := url.Values{}
	for i := 0; i < len(pairs); i += 2 {
		query.Set(pairs[i], pairs[i+1])
	}
	if s.early && resource != "pckcrl" {
		query.Set("update", "early")
	}
	u.RawQuery = query.Encode()
	return u
}

// An answer is a response with status 200, read to its end.
type answer struct {
	body   []byte
	header http.Header
}

// chain returns the issuer chain in one of the headers of those names.
func (a *answer) chain(names []string) ([]byte, error) {
	var values []string
	for _, name := range names {
		values = append(values, a.header.Values(name)...)
	}
	return decodeChainHeader(values)
}

// refuse adds to an error what kind of answer it was: proxies and portals send
// pages in place of what was asked for.
func (a *answer) refuse(err error) error {
	if err == nil {
		return nil
	}
	if !errors.Is(err, ErrAnswer) {
		err = fmt.Errorf("%w: %w", ErrAnswer, err)
	}
	kind := a.header.Get("Content-Type")
	return fmt.Errorf("answer of type %q: %w", kind[:min(len(kind), 64)], err)
}

// get makes one request and reads a body of at most limit bytes.
func (s *Service) get(ctx context.Context, u *url.URL, limit int) (*answer, error) {
	ctx, cancel := context.WithTimeout(ctx, s.timeout)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return nil, err
	}
	if key := s.key(); key != "" && u.Host == s.base.Host { // it is not for the host of the root CRL
		r.Header.Set("Ocp-Apim-Subscription-Key", key)
	}
	resp, err := s.client.Do(r)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s: %w", u.Host, &StatusError{resp.StatusCode, retryAfter(resp.Header.Get("Retry-After"), time.Now())})
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read the answer of %s: %w", u.Host, err)
	}
	if len(body) > limit {
		return nil, fmt.Errorf("%w: the answer of %s has more than %d bytes", ErrAnswer, u.Host, limit)
	}
	return &answer{body, resp.Header}, nil
}

const maxRetryAfter = time.Hour

// retryAfter reads seconds or a date, RFC 9110 section 10.2.3, and bounds them.
func retryAfter(text string, now time.Time) time.Duration {
	if seconds, err := strconv.ParseUint(text, 10, 31); err == nil {
		return min(time.Duration(seconds)*time.Second, maxRetryAfter)
	}
	if at, err := http.ParseTime(text); err == nil {
		return min(max(0, at.Sub(now)), maxRetryAfter)
	}
	return 0
}
