package collateral

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"
)

// ErrSettings is wrapped by the errors for settings that cannot be used.
var ErrSettings = errors.New("unusable collateral source")

// ServiceOptions say which service to ask, and how. A proxy is taken from the
// environment, as http.ProxyFromEnvironment does.
type ServiceOptions struct {
	// URL is where the service is: https, with or without /sgx/certification/v4.
	// Default for a PCS: IntelPCS. A PCCS has none.
	URL string
	// RootCRLURL is where a PCS's root CRL is. Default: IntelRootCRL. Not for a
	// PCCS, which serves it itself.
	RootCRLURL string
	// APIKeyFile holds the subscription key for a PCS, if there is one: Intel
	// serves collateral without. Not for a PCCS.
	APIKeyFile string
	// CAFile holds, in PEM, the certificates that may vouch for the service's TLS
	// certificate, or that one itself, in place of the system's.
	CAFile string
	// Early asks for TCB info and QE identity as soon as Intel publishes them.
	// Default: when Intel's deadline for updating platforms has passed.
	Early bool
}

// Limits of the exchange with a service.
const (
	requestTimeout = 15 * time.Second // for one request, to the end of its answer
	dialTimeout    = 5 * time.Second
	maxRedirects   = 3
	maxHeaders     = 64 << 10 // bytes, of an answer
	maxKey         = 256      // bytes of a subscription key
	maxCAFile      = 1 << 20  // bytes
)

// NewPCS returns Intel's service, or another with its interface. Errors wrap
// ErrSettings.
func NewPCS(o ServiceOptions) (*Service, error) {
	if o.URL == "" {
		o.URL = IntelPCS
	}
	if o.RootCRLURL == "" {
		o.RootCRLURL = IntelRootCRL
	}
	s, err := newService(o)
	if err != nil {
		return nil, err
	}
	if s.rootCRL, err = parseURL(o.RootCRLURL); err != nil {
		return nil, err
	}
	if o.APIKeyFile == "" {
		return s, nil
	}
	key, err := readKey(o.APIKeyFile)
	s.key = func() string { return key }
	return s, err
}

// NewPCCS returns an operator's caching service. Errors wrap ErrSettings.
func NewPCCS(o ServiceOptions) (*Service, error) {
	switch {
	case o.URL == "":
		return nil, fmt.Errorf("%w: a PCCS needs a URL, such as https://localhost:8081", ErrSettings)
	case o.APIKeyFile != "":
		return nil, fmt.Errorf("%w: a PCCS takes no API key; it has Intel's in its own configuration", ErrSettings)
	case o.RootCRLURL != "":
		return nil, fmt.Errorf("%w: a PCCS serves the root CRL itself", ErrSettings)
	}
	s, err := newService(o)
	if err != nil {
		return nil, err
	}
	s.rootCRL = s.base.JoinPath("rootcacrl")
	return s, nil
}

func newService(o ServiceOptions) (*Service, error) {
	base, err := parseURL(o.URL)
	if err != nil {
		return nil, err
	}
	switch path := strings.TrimRight(base.Path, "/"); {
	case strings.HasSuffix(path, apiPath):
	case strings.Contains(path, "/sgx/certification"):
		return nil, fmt.Errorf("%w: %s is for another version of the API; leave the path out", ErrSettings, o.URL)
	default:
		base = base.JoinPath(apiPath)
	}
	client, err := newClient(o.CAFile)
	if err != nil {
		return nil, err
	}
	return &Service{base: base, client: client, key: func() string { return "" }, early: o.Early, timeout: requestTimeout}, nil
}

// parseURL reads the address of a service. Plain HTTP is refused: collateral is
// signed, but whoever is in between could withhold the newest.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w: %w", ErrSettings, err)
	case u.Scheme != "https" || u.Hostname() == "":
		return nil, fmt.Errorf("%w: %q is not https://HOST[:PORT]", ErrSettings, text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("%w: the URL of %s has a user, query or fragment", ErrSettings, u.Host)
	}
	return u, nil
}

func newClient(caFile string) (*http.Client, error) {
	config := &tls.Config{MinVersion: tls.VersionTLS12}
	if caFile != "" {
		b, err := readLimited(caFile, maxCAFile)
		if err != nil {
			return nil, fmt.Errorf("%w: CA file: %w", ErrSettings, err)
		}
		config.RootCAs = x509.NewCertPool()
		if !config.RootCAs.AppendCertsFromPEM(b) {
			return nil, fmt.Errorf("%w: CA file %s holds no certificate in PEM", ErrSettings, caFile)
		}
	}
	return &http.Client{
		CheckRedirect: checkRedirect,
		Transport: &http.Transport{
			Proxy:                  http.ProxyFromEnvironment,
			DialContext:            (&net.Dialer{Timeout: dialTimeout}).DialContext,
			TLSClientConfig:        config,
			TLSHandshakeTimeout:    dialTimeout,
			MaxResponseHeaderBytes: maxHeaders,
			MaxIdleConns:           4,
			IdleConnTimeout:        time.Minute,
			DisableCompression:     true, // limits are of what is sent
			ForceAttemptHTTP2:      true,
		},
	}, nil
}

// checkRedirect follows a service that moves a resource, not one that sends its
// clients elsewhere.
func checkRedirect(r *http.Request, via []*http.Request) error {
	switch {
	case len(via) > maxRedirects:
		return fmt.Errorf("%w: more than %d redirects", ErrAnswer, maxRedirects)
	case r.URL.Scheme != "https" || r.URL.Host != via[0].URL.Host:
		return fmt.Errorf("%w: it is a redirect to %s://%s", ErrAnswer, r.URL.Scheme, r.URL.Host)
	}
	return nil
}

// readKey reads a subscription key: printable ASCII on one line.
func readKey(path string) (string, error) {
	b, err := readLimited(path, maxKey)
	if err != nil {
		return "", fmt.Errorf("%w: API key: %w", ErrSettings, err)
	}
	key := strings.TrimSpace(string(b))
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", fmt.Errorf("%w: API key file %s does not hold one word of ASCII", ErrSettings, path) // the text is not repeated
	}
	return key, nil
}

// readLimited reads a file of at most limit bytes.
func readLimited(path string, limit int) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, int64(limit)+1))
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, fmt.Errorf("%s has more than %d bytes", path, limit)
	}
	return b, nil
}
