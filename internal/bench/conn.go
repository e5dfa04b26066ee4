package bench

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"time"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// errResponse is returned for a response that this client cannot read. It reads
// what servers of short answers send: a status line, headers with a
// Content-Length, a body.
var errResponse = errors.New("unexpected HTTP response")

const (
	maxResponse = 64 << 10 // bytes, head and body
	dialTimeout = 10 * time.Second
)

// endpoint is where requests are sent.
type endpoint struct {
	host string      // host:port
	tls  *tls.Config // nil: plain HTTP
}

// newEndpoint returns the endpoint of a service, which is authenticated as cfg
// says. That cfg fits together is for ehsm.New to check.
func newEndpoint(cfg ehsm.Config) (endpoint, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return endpoint{}, fmt.Errorf("read service URL: %w", err)
	}
	e := endpoint{host: u.Host}
	if u.Port() == "" {
		return e, fmt.Errorf("service URL is %s, want one with a port", u.Redacted())
	}
	if u.Scheme == "https" {
		e.tls, err = tlsConfig(u.Hostname(), cfg)
	}
	return e, err
}

// newEndpoints returns the endpoints of a service and of its further nodes.
func newEndpoints(cfg ehsm.Config, further []string) ([]endpoint, error) {
	all := make([]endpoint, 0, 1+len(further))
	for _, u := range append([]string{cfg.URL}, further...) {
		cfg.URL = u
		e, err := newEndpoint(cfg)
		if err != nil {
			return nil, err
		}
		all = append(all, e)
	}
	return all, nil
}

func tlsConfig(host string, cfg ehsm.Config) (*tls.Config, error) {
	t := &tls.Config{ServerName: host, MinVersion: tls.VersionTLS12}
	if cfg.CAFile != "" {
		pem, err := os.ReadFile(cfg.CAFile)
		if err != nil {
			return nil, fmt.Errorf("read CA file: %w", err)
		}
		t.RootCAs = x509.NewCertPool()
		t.RootCAs.AppendCertsFromPEM(pem) // without any, no server is accepted
	}
	if cfg.Fingerprint == "" {
		t.InsecureSkipVerify = cfg.Insecure && cfg.CAFile == "" && isLoopback(host)
		return t, nil
	}
	want, err := ehsm.ParseFingerprint(cfg.Fingerprint)
	if err != nil {
		return nil, err
	}
	t.InsecureSkipVerify = cfg.CAFile == "" // VerifyConnection decides
	t.VerifyConnection = func(cs tls.ConnectionState) error {
		if sha256.Sum256(cs.PeerCertificates[0].Raw) != want {
			return ehsm.ErrFingerprint
		}
		return nil
	}
	return t, nil
}

// loopback reports whether the endpoint is on this machine.
func (e endpoint) loopback() bool {
	host, _, err := net.SplitHostPort(e.host)
	return err == nil && isLoopback(host)
}

// isLoopback reports whether host is a loopback address.
func isLoopback(host string) bool {
	ip := net.ParseIP(host)
	return host == "localhost" || ip != nil && ip.IsLoopback()
}

// conn is one keep-alive connection. It does as little as it can, because the
// load generator shares the processors with the servers that it measures.
type conn struct {
	net.Conn
	buf [maxResponse]byte
}

// dial connects, with the TLS handshake done.
func (e endpoint) dial(ctx context.Context) (*conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	var d net.Dialer
	nc, err := d.DialContext(ctx, "tcp", e.host)
	if err != nil {
		return nil, err
	}
	if e.tls == nil {
		return &conn{Conn: nc}, nil
	}
	tc := tls.Client(nc, e.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		nc.Close()
		return nil, fmt.Errorf("TLS handshake with %s: %w", e.host, err)
	}
	return &conn{Conn: tc}, nil
}

// roundTrip sends one request and returns the body of its response, which is
// valid until the next call. A status other than 200 is errResponse.
func (c *conn) roundTrip(request []byte) (body []byte, err error) {
	if _, err := c.Write(request); err != nil {
		return nil, err
	}
	var h head
	for n := 0; ; {
		m, readErr := c.Read(c.buf[n:])
		n += m
		if h.size == 0 {
			if h, err = parseHead(c.buf[:n]); err != nil {
				return nil, err
			}
		}
		switch end := h.size + h.length; {
		case h.size > 0 && n == end:
			return c.buf[h.size:end], h.err()
		case h.size > 0 && (n > end || end > len(c.buf)):
			return nil, fmt.Errorf("%w: a body longer than announced, or of more than %d bytes", errResponse, maxResponse)
		case n == len(c.buf):
			return nil, fmt.Errorf("%w: head of more than %d bytes", errResponse, maxResponse)
		case readErr != nil:
			return nil, fmt.Errorf("read response: %w", readErr)
		}
	}
}

// head is what counts in the head of a response.
type head struct {
	size   int // bytes, with the empty line; 0: not complete
	status int
	length int // bytes of body
}

func (h head) err() error {
	if h.status != http.StatusOK {
		return fmt.Errorf("%w: HTTP status %d", errResponse, h.status)
	}
	return nil
}

// parseHead reads the head of a response at the start of b. It returns the zero
// head if that is not complete.
func parseHead(b []byte) (head, error) {
	size := bytes.Index(b, []byte("\r\n\r\n"))
	if size < 0 {
		return head{}, nil
	}
	h := head{size: size + 4, length: -1}
	line, fields, _ := bytes.Cut(b[:size], []byte("\r\n"))
	status, ok := bytes.CutPrefix(line, []byte("HTTP/1.1 "))
	n, err := strconv.ParseUint(string(status[:min(3, len(status))]), 10, 10)
	if !ok || err != nil {
		return head{}, fmt.Errorf("%w: status line %.40q", errResponse, line)
	}
	h.status = int(n)
	for line := range bytes.SplitSeq(fields, []byte("\r\n")) {
		name, value, _ := bytes.Cut(line, []byte(":"))
		if !bytes.EqualFold(name, []byte("content-length")) {
			continue
		}
		n, err := strconv.ParseUint(string(bytes.TrimSpace(value)), 10, 31)
		if err != nil || h.length >= 0 {
			return head{}, fmt.Errorf("%w: %.40q", errResponse, line)
		}
		h.length = int(n)
	}
	if h.length < 0 {
		return head{}, fmt.Errorf("%w: no Content-Length", errResponse)
	}
	return h, nil
}
