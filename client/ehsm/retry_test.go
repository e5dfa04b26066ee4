package ehsm

import (
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/api"
)

// flaky is a transport that fails in a given way and counts the attempts. If
// sent is set, it says that a connection was there before the failure.
type flaky struct {
	err    error
	status int
	body   string
	sent   bool
	bodies []string
	times  []time.Time
}

func (f *flaky) RoundTrip(r *http.Request) (*http.Response, error) {
	f.times = append(f.times, time.Now())
	if r.Body != nil {
		b, _ := io.ReadAll(r.Body)
		f.bodies = append(f.bodies, string(b))
	}
	if trace := httptrace.ContextClientTrace(r.Context()); f.sent {
		trace.GotConn(httptrace.GotConnInfo{})
	}
	if f.err != nil {
		return nil, f.err
	}
	return &http.Response{StatusCode: f.status, Body: io.NopCloser(strings.NewReader(f.body)), ContentLength: -1, Request: r}, nil
}

func TestRetries(t *testing.T) {
	refused := &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}
	reset := &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET}
	tests := []struct {
		name      string
		transport flaky
		reads     int // attempts of an action that changes nothing
		changes   int // of one that does
		unknown   bool
	}{
		{"dial refused", flaky{err: refused}, 3, 3, false},
		{"certificate refused", flaky{err: x509.UnknownAuthorityError{}}, 1, 1, false},
		{"reset before a connection was there", flaky{err: reset}, 1, 1, false},
		{"reset after it was sent", flaky{err: reset, sent: true}, 3, 1, true},
		{"closed after it was sent", flaky{err: io.EOF, sent: true}, 3, 1, true},
		{"gateway", flaky{status: 502, sent: true}, 3, 1, true},
		{"not found", flaky{status: 404, sent: true}, 1, 1, false},
		{"no JSON", flaky{status: 200, body: "<html>", sent: true}, 1, 1, false},
		{"overload", flaky{status: 200, body: refuse(429, api.MessageTooMany), sent: true}, 3, 1, false},
		{"refusal", flaky{status: 200, body: refuse(500, api.MessageException), sent: true}, 1, 1, false},
		{"unsigned success", flaky{status: 200, body: succeed(`{}`), sent: true}, 1, 1, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				read, change := tt.transport, tt.transport
				c := testClient(t)
				c.http = &http.Client{Transport: &read}
				if _, err := c.Encrypt(t.Context(), "k", []byte("p"), nil); err == nil || errors.Is(err, ErrOutcomeUnknown) {
					t.Errorf("Encrypt: got %v", err)
				}
				c.http = &http.Client{Transport: &change}
				if err := c.DisableKey(t.Context(), "k"); err == nil || errors.Is(err, ErrOutcomeUnknown) != tt.unknown {
					t.Errorf("DisableKey: got %v", err)
				}
				if len(read.bodies) != tt.reads || len(change.bodies) != tt.changes {
					t.Errorf("got %d and %d attempts, want %d and %d", len(read.bodies), len(change.bodies), tt.reads, tt.changes)
				}
				for i := 1; i < len(read.bodies); i++ {
					if read.bodies[i] == read.bodies[0] {
						t.Error("an attempt was sent with the signature of another")
					}
					if wait := read.times[i].Sub(read.times[i-1]); wait < 25*time.Millisecond || wait > 200*time.Millisecond {
						t.Errorf("waited %v before attempt %d", wait, i+1)
					}
				}
			})
		})
	}
}

func TestRetryEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := testClient(t)
		f := &flaky{err: io.EOF, sent: true}
		c.http = &http.Client{Transport: f}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		start := time.Now()
		if _, err := c.ListKeys(ctx); !errors.Is(err, io.EOF) {
			t.Errorf("ListKeys: got %v, want EOF", err)
		}
		if len(f.times) != 1 || time.Since(start) != time.Millisecond {
			t.Errorf("got %d attempts in %v, want 1 in 1ms", len(f.times), time.Since(start))
		}
	})
}

// A retry after a failure succeeds if the service is back.
func TestRetrySucceeds(t *testing.T) {
	s := &fakeServer{answer: func(string, map[string]any) string { return succeed(`{"list":[]}`) }}
	c := s.start(t)
	real, failures := c.http.Transport, 2
	c.http.Transport = roundTripper(func(r *http.Request) (*http.Response, error) {
		if failures--; failures >= 0 {
			httptrace.ContextClientTrace(r.Context()).GotConn(httptrace.GotConnInfo{})
			return nil, io.ErrUnexpectedEOF
		}
		return real.RoundTrip(r)
	})
	if _, err := c.ListKeys(t.Context()); err != nil {
		t.Errorf("ListKeys: %v", err)
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
