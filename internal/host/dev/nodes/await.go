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
	"slices"
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
	ctx, cancel := context.WithTimeout(ctx, serveTimeout)
	defer cancel()
	client := s.client()
	defer client.CloseIdleConnections()
	for _, n := range s.Nodes {
		if !n.Admitted {
			continue
		}
		if err := n.await(ctx, client); err != nil {
			return err
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

func (n *Node) await(ctx context.Context, client *http.Client) error {
	for {
		err := n.ready(ctx, client)
		if err == nil {
			return nil
		}
		if i := slices.IndexFunc(n.parts, func(p *part) bool { return p.pid() == 0 }); i >= 0 {
			return fmt.Errorf("%s has ended\n%s", n.parts[i].name, n.parts[i].tail())
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s does not serve: %w\n%s", n.Name, err, n.tails())
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// Ready returns nil if the node's manager says that all works.
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

// tails are the last lines of all programs of a node.
func (n *Node) tails() string {
	var b bytes.Buffer
	for _, p := range n.parts {
		fmt.Fprintf(&b, "%s, in %s:\n%s\n", p.program, p.logFile(), p.tail())
	}
	return b.String()
}

// tail is the last of what a part has printed.
func (p *part) tail() string {
	const lines = 3
	b, err := os.ReadFile(p.logFile())
	if err != nil {
		return err.Error()
	}
	all := bytes.Split(bytes.TrimSpace(b), []byte("\n"))
	return string(bytes.Join(all[max(len(all)-lines, 0):], []byte("\n")))
}
