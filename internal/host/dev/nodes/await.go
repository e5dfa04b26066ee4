package nodes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"
)

const (
	serveTimeout = 60 * time.Second
	maxReadiness = 4 << 10 // bytes of an answer about readiness
)

// errCertificate is returned where another server listens than was started.
var errCertificate = errors.New("another server has answered")

// await returns when all nodes that the domain admits serve.
func (s *Site) await(ctx context.Context) error {
	own, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	client := s.client()
	defer client.CloseIdleConnections()
	patience := time.AfterFunc(serveTimeout/10, func() { s.o.Say("not all nodes serve yet:\n" + s.tails()) })
	defer patience.Stop()
	for _, n := range s.Nodes {
		if !n.Admitted {
			continue
		}
		if err := n.await(own, client); err != nil {
			return fmt.Errorf("%w\n%s", err, s.tails())
		}
	}
	return nil
}

// client accepts the managers' certificate only.
func (s *Site) client() *http.Client {
	return &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{TLSClientConfig: &tls.Config{
		InsecureSkipVerify: true, // the certificate is compared with the one that we have made
		VerifyPeerCertificate: func(certs [][]byte, _ [][]*x509.Certificate) error {
			if sum := sha256.Sum256(certs[0]); hex.EncodeToString(sum[:]) != s.Fingerprint {
				return errCertificate
			}
			return nil
		},
	}}}
}

// await returns when the node serves, or never will.
func (n *Node) await(ctx context.Context, client *http.Client) error {
	for {
		err := n.ready(ctx, client)
		if err == nil {
			return nil
		}
		if i := slices.IndexFunc(n.parts, func(p *part) bool { return p.pid() == 0 }); i >= 0 {
			return fmt.Errorf("%s has ended", n.parts[i].name)
		}
		if wait(ctx, 20*time.Millisecond) != nil {
			return fmt.Errorf("%s does not serve: %w", n.Name, err)
		}
	}
}

// ready returns nil if the node's manager says that all works.
func (n *Node) ready(ctx context.Context, client *http.Client) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.URL+"/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxReadiness))
	return fmt.Errorf("its manager says %s", bytes.TrimSpace(body))
}

// tails is the last line of each program, as far as it is in its log.
func (s *Site) tails() string {
	var b strings.Builder
	for _, n := range s.Nodes {
		for _, p := range n.parts {
			fmt.Fprintf(&b, "  %s: %s\n", p.logFile(), p.tail())
		}
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// slogTime begins the lines of a log.
var slogTime = regexp.MustCompile(`^time=\S+ level=`)

// tail is the last line that a part has printed, or its beginning.
func (p *part) tail() string {
	const most = 200 // bytes
	b, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	b = bytes.TrimSpace(b)
	b = slogTime.ReplaceAll(b[bytes.LastIndexByte(b, '\n')+1:], nil)
	return string(b[:min(len(b), most)])
}
