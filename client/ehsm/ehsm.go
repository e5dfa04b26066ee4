// Package ehsm is the Go client of the eHSM-KMS native API.
//
//	client, err := ehsm.New(ehsm.Config{
//		URL:         "https://kms.example:9000",
//		Fingerprint: "<SHA-256 of the server's certificate, in hex>",
//		AppID:       appID,
//		APIKey:      ehsm.NewAPIKey(apiKey),
//	})
//	keyID, err := client.CreateKey(ctx, api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
//	ciphertext, err := client.Encrypt(ctx, keyID, plaintext, nil)
//
// A key of the service can be a crypto.Signer (Signer), for certificates and TLS
// servers, and a crypto.Decrypter (Decrypter). Envelope encrypts what is larger
// than the service takes. The value of a secret (GetSecretValue) is of a type that
// does not print.
//
// What protects a call: every request carries a random nonce, names its action
// under the signature, and is signed with the API key. Every reply must carry
// the signature of the core in the TEE under a key derived from the API key,
// over this very request and the exact reply; a success without one is refused
// with ErrReplySignature. So neither the host nor anyone on the path can forge
// a result. Both can see what passes in clear inside TLS at the manager, unless the
// client seals its requests (Sealed; package attested), and both can refuse service: a refusal that the core could not sign is an error
// for which IsUnauthenticated is true.
//
// A tenant may have several credentials: API keys, which RotateAPIKey replaces, and
// key pairs (WithKeyPair), for which the replies are signed by the core's instance.
// Workloads have credentials that end, and log in for others (WithLogin; package
// attested has Verifier.Login).
//
// Enroll and Version are not authenticated by anything but TLS.
package ehsm

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/api"
)

// Config says where the service is, how to know it and who calls. The zero
// values of the TLS fields mean: a certificate that the system's roots vouch for.
type Config struct {
	// URL is the address of the service, https://host:port, with or without the
	// path /ehsm at its end. It is required.
	URL string

	// AppID and APIKey are what Enroll returned. Without them only Enroll and
	// Version can be called.
	AppID  string
	APIKey APIKey

	// CAFile is a PEM file of certificates that replace the system's roots.
	CAFile string

	// Fingerprint pins the server's own certificate: the SHA-256 of its DER
	// encoding in hex, colons allowed. Without CAFile it replaces the check of
	// chain and host name, as a self-signed certificate needs; with CAFile both
	// must hold.
	Fingerprint string

	// VerifyConnection decides about the server in each handshake, in place of chain and
	// host name unless CAFile is there; a Fingerprint must hold too. Package attested has
	// one for services whose certificate has evidence (Verifier.VerifyConnection).
	VerifyConnection func(tls.ConnectionState) error

	// Insecure accepts plain http and any certificate. New refuses it unless the
	// host of URL is localhost or a loopback address, and no connection to
	// another address is made then.
	Insecure bool

	// Timeout bounds one call with all its attempts, beside the context's own
	// deadline. Zero means 30 seconds.
	Timeout time.Duration
}

const defaultTimeout = 30 * time.Second

// A Client calls one service for one tenant. It keeps connections open between
// calls and is safe for concurrent use; make one and share it.
type Client struct {
	base    string // with the path, without the query
	appID   string
	apiKey  APIKey
	pair    *keyPair // instead of apiKey
	session *session // instead of both
	timeout time.Duration
	http    *http.Client
	now     func() time.Time
	sealer  *sealer // nil: requests go in clear
}

// New checks cfg as a whole and returns a client. It does not connect.
func New(cfg Config) (*Client, error) {
	base, err := parseURL(cfg.URL)
	if err != nil {
		return nil, err
	}
	if cfg.Timeout < 0 {
		return nil, fmt.Errorf("timeout is %v, want at least 0", cfg.Timeout)
	}
	if (cfg.AppID == "") != cfg.APIKey.IsZero() {
		return nil, fmt.Errorf("app id and API key: got one of them, want both or none")
	}
	transport, err := newTransport(base, cfg)
	if err != nil {
		return nil, err
	}
	c := &Client{
		base:    base.String(),
		appID:   cfg.AppID,
		apiKey:  cfg.APIKey,
		timeout: cfg.Timeout,
		now:     time.Now,
		http: &http.Client{
			Transport: transport,
			// A redirect would carry a signed request to another address.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
	if c.timeout == 0 {
		c.timeout = defaultTimeout
	}
	return c, nil
}

// parseURL returns the URL of the API below the address text.
func parseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	if err != nil {
		return nil, fmt.Errorf("read service URL: %w", err)
	}
	switch {
	case u.Scheme != "https" && u.Scheme != "http" || u.Hostname() == "":
		return nil, fmt.Errorf("service URL is %q, want https://host:port", u.Redacted())
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return nil, fmt.Errorf("service URL %q has a user, query or fragment", u.Redacted())
	}
	path := strings.TrimRight(u.Path, "/")
	if n := len(path) - len(api.Path); n >= 0 && strings.EqualFold(path[n:], api.Path) {
		path = path[:n]
	}
	u.Path, u.RawPath = path+api.Path, ""
	return u, nil
}

// With returns a client for other credentials that shares the connections of c, and
// seals as c does.
func (c *Client) With(cred Credentials) *Client {
	other := *c
	other.appID, other.apiKey, other.pair, other.session = cred.AppID, cred.APIKey, nil, nil
	return &other
}

// AppID returns the tenant the client calls for, or "".
func (c *Client) AppID() string { return c.appID }

// URL returns the address that requests of an action are sent to.
func (c *Client) URL(action string) string {
	return c.base + "?" + api.ActionParam + "=" + url.QueryEscape(action)
}

// Close closes idle connections. The client stays usable.
func (c *Client) Close() { c.http.CloseIdleConnections() }
