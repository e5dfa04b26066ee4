package rest

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/relay"
)

// started is a server on loopback.
type started struct {
	addr string
	stop context.CancelFunc
	done chan error // receives what Serve returns
}

func start(t *testing.T, r Relay, config *tls.Config, l Limits) *started {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	s := &started{addr: ln.Addr().String(), stop: stop, done: make(chan error, 1)}
	log := slog.New(slog.DiscardHandler)
	go func() { s.done <- Serve(ctx, ln, config, New(r, nil, Options{}), l, log) }()
	t.Cleanup(stop)
	return s
}

// raw sends text on a new connection and returns everything that comes back.
func (s *started) raw(t *testing.T, text string) string {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(10 * time.Second))
	io.WriteString(c, text)
	b, _ := io.ReadAll(c) // a reset at the end is as good as an end
	return string(b)
}

func TestOnTheNetwork(t *testing.T) {
	s := start(t, relayFunc(echo), nil, Limits{HeaderTimeout: 100 * time.Millisecond, BodyTimeout: 100 * time.Millisecond})
	const head = "POST /ehsm/?Action=Encrypt HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
	for name, row := range map[string]struct{ send, want string }{
		"no content type":       {head + "Content-Length: 2\r\n\r\n{}", asked("Encrypt", "false", "{}")},
		"chunked":               {head + "Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", asked("Encrypt", "false", "{}")},
		"stated size too large": {head + "Content-Length: 99999999999\r\n\r\n", textTooLarge},
		"too large after all": {head + "Transfer-Encoding: chunked\r\n\r\n30000\r\n" + strings.Repeat("x", 0x30000) + "\r\n0\r\n\r\n",
			textTooLarge},
		"body never comes":   {head + "Content-Length: 2\r\n\r\n{", textInvalid},
		"header never comes": {head, ""},
		"long header":        {head + "X: " + strings.Repeat("x", 20000) + "\r\n\r\n", "431 Request Header Fields Too Large"},
		"no redirect":        {"GET /ehsm?Action=GetVersion HTTP/1.0\r\n\r\n", asked("GetVersion", "true", "")},
	} {
		t.Run(name, func(t *testing.T) {
			got := s.raw(t, row.send)
			if !strings.HasSuffix(got, row.want) && !strings.Contains(got, row.want) {
				t.Errorf("got %.300s, want %s", got, row.want)
			}
			if row.want == "" && got != "" {
				t.Errorf("got %.300s, want nothing", got)
			}
		})
	}
}

func TestTooManyConnections(t *testing.T) {
	s := start(t, relayFunc(echo), nil, Limits{MaxConnections: 2})
	dial := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c, bufio.NewReader(c)
	}
	ask := func(c net.Conn, r *bufio.Reader) error {
		c.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprint(c, "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost: x\r\n\r\n")
		resp, err := http.ReadResponse(r, nil)
		if err == nil {
			_, err = io.Copy(io.Discard, resp.Body)
		}
		return err
	}
	first, r1 := dial()
	second, r2 := dial()
	if err := ask(first, r1); err != nil {
		t.Fatal(err)
	}
	if err := ask(second, r2); err != nil {
		t.Fatal(err)
	}
	third, r3 := dial()
	if err := ask(third, r3); err == nil {
		t.Error("a third connection is served")
	}
	if err := ask(first, r1); err != nil {
		t.Errorf("the first connection is lost: %v", err)
	}
	first.Close()
	// The server notices the end of a connection a little later.
	for end := time.Now().Add(10 * time.Second); ; {
		c, r := dial()
		if err := ask(c, r); err == nil {
			break
		} else if time.Now().After(end) {
			t.Fatalf("there is no room for a new connection: %v", err)
		}
	}
}

func TestShutdownFinishesRequests(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := start(t, relayFunc(func(ctx context.Context, req relay.Request) (relay.Reply, error) {
		close(entered)
		<-leave
		if ctx.Err() != nil {
			t.Error("the request is cancelled by the shutdown")
		}
		return echo(ctx, req)
	}), nil, Limits{})
	got := make(chan string)
	go func() { got <- s.raw(t, "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost: x\r\n\r\n") }()
	<-entered
	s.stop()
	for { // until the listener is closed
		c, err := net.Dial("tcp", s.addr)
		if err != nil {
			break
		}
		c.Close()
	}
	close(leave)
	if reply := <-got; !strings.HasSuffix(reply, asked("GetVersion", "true", "")) {
		t.Errorf("got %q", reply)
	}
	if err := <-s.done; err != nil {
		t.Error(err)
	}
}

func TestShutdownDoesNotWaitForEver(t *testing.T) {
	entered, leave := make(chan struct{}), make(chan struct{})
	s := start(t, relayFunc(func(context.Context, relay.Request) (relay.Reply, error) {
		close(entered)
		<-leave
		return relay.Busy(), nil
	}), nil, Limits{ShutdownTimeout: 10 * time.Millisecond})
	go s.raw(t, "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost: x\r\n\r\n")
	<-entered
	s.stop()
	if err := <-s.done; err == nil {
		t.Error("no error though a request was cut off")
	}
	close(leave)
}

func TestServeOnClosedListener(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if err := Serve(t.Context(), ln, nil, http.NotFoundHandler(), Limits{}, slog.New(slog.DiscardHandler)); err == nil {
		t.Error("no error")
	}
}

func TestTLS(t *testing.T) {
	// httptest has a certificate; nothing else of it is used.
	model := httptest.NewUnstartedServer(nil)
	model.StartTLS()
	cert := model.TLS.Certificates
	roots := model.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs
	model.Close()

	s := start(t, relayFunc(echo), &tls.Config{Certificates: cert}, Limits{})
	for name, row := range map[string]struct {
		config *tls.Config
		fails  bool
	}{
		"TLS 1.3":           {&tls.Config{MinVersion: tls.VersionTLS13}, false},
		"TLS 1.2":           {&tls.Config{MaxVersion: tls.VersionTLS12}, false},
		"TLS 1.1":           {&tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}, true},
		"HTTP/2 is offered": {&tls.Config{NextProtos: []string{"h2", "http/1.1"}}, false},
		"only HTTP/2":       {&tls.Config{NextProtos: []string{"h2"}}, true},
	} {
		row.config.RootCAs, row.config.ServerName = roots, "example.com"
		c, err := tls.Dial("tcp", s.addr, row.config)
		if (err != nil) != row.fails {
			t.Errorf("%s: got %v, want failure: %v", name, err, row.fails)
		}
		if err != nil {
			continue
		}
		if p := c.ConnectionState().NegotiatedProtocol; p == "h2" {
			t.Errorf("%s: negotiated %s", name, p)
		}
		c.Close()
	}
}
