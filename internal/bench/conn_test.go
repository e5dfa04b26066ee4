package bench

import (
	"errors"
	"io"
	"net"
	"strings"
	"testing"
)

const goodHead = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"

func TestParseHead(t *testing.T) {
	tests := []struct {
		name, text string
		want       head
	}{
		{"good", goodHead + "hello", head{len(goodHead), 200, 5}},
		{"without reason", "HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\n", head{36, 200, 5}},
		{"other headers", "HTTP/1.1 404 Not\r\nA: Content-Length: 7\r\ncontent-LENGTH:0 \r\nB:\r\n\r\n", head{65, 404, 0}},
		{"not complete", goodHead[:len(goodHead)-1], head{}},
		{"nothing", "", head{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := parseHead([]byte(tt.text)); err != nil || got != tt.want {
				t.Errorf("parseHead: got %+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func badHeads() map[string]string {
	return map[string]string{
		"no HTTP":            "SSH-2.0-OpenSSH\r\n\r\n",
		"HTTP/1.0":           "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n",
		"no status":          "HTTP/1.1 \r\nContent-Length: 5\r\n\r\n",
		"status no number":   "HTTP/1.1 2x0 OK\r\nContent-Length: 5\r\n\r\n",
		"negative status":    "HTTP/1.1 -20 OK\r\nContent-Length: 5\r\n\r\n",
		"empty":              "\r\n\r\n",
		"chunked":            "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
		"negative length":    "HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n",
		"length no number":   "HTTP/1.1 200 OK\r\nContent-Length: 5x\r\n\r\n",
		"length of 2^31":     "HTTP/1.1 200 OK\r\nContent-Length: 2147483648\r\n\r\n",
		"two lengths":        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
		"length in its name": "HTTP/1.1 200 OK\r\nX-Content-Length: 5\r\n\r\n",
	}
}

func TestParseHeadRefuses(t *testing.T) {
	for name, text := range badHeads() {
		t.Run(name, func(t *testing.T) {
			if got, err := parseHead([]byte(text)); !errors.Is(err, errResponse) {
				t.Errorf("parseHead: got %+v, %v, want %v", got, err, errResponse)
			}
		})
	}
}

func FuzzParseHead(f *testing.F) {
	f.Add([]byte(goodHead))
	for _, text := range badHeads() {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h, err := parseHead(b)
		if err != nil && h != (head{}) {
			t.Errorf("parseHead: got %+v beside %v", h, err)
		}
		if h.size > len(b) || h.size < 0 || h.length < 0 || h.status < 0 || h.status > 999 {
			t.Errorf("parseHead: got %+v of %d bytes", h, len(b))
		}
	})
}

// talk answers one request over a pipe with parts, each a write of its own, and
// closes it.
func talk(t *testing.T, parts ...string) (string, error) {
	t.Helper()
	near, far := net.Pipe()
	done := make(chan string)
	go func() {
		defer close(done)
		got := make([]byte, len("request"))
		io.ReadFull(far, got)
		for _, part := range parts {
			io.WriteString(far, part)
		}
		far.Close()
		done <- string(got)
	}()
	c := &conn{Conn: near}
	body, err := c.roundTrip([]byte("request"))
	near.Close()
	if got := <-done; got != "request" {
		t.Errorf("roundTrip: sent %q", got)
	}
	return string(body), err
}

func TestRoundTrip(t *testing.T) {
	long := strings.Repeat("x", 60000)
	tests := []struct {
		name  string
		parts []string
		want  string
	}{
		{"at once", []string{goodHead + "hello"}, "hello"},
		{"head and body", []string{goodHead, "hello"}, "hello"},
		{"byte by byte", strings.Split(goodHead+"hello", ""), "hello"},
		{"no body", []string{"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"}, ""},
		{"long", []string{"HTTP/1.1 200 OK\r\nContent-Length: 60000\r\n\r\n", long}, long},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := talk(t, tt.parts...); err != nil || got != tt.want {
				t.Errorf("roundTrip: got %q, %v, want %q", got, err, tt.want)
			}
		})
	}
}

func TestRoundTripRefuses(t *testing.T) {
	tests := []struct {
		name  string
		parts []string
		want  error
	}{
		{"no answer", nil, io.EOF},
		{"cut head", []string{goodHead[:20]}, io.EOF},
		{"cut body", []string{goodHead, "hell"}, io.EOF},
		{"longer body", []string{goodHead + "hello, world"}, errResponse},
		{"body too long", []string{"HTTP/1.1 200 OK\r\nContent-Length: 65536\r\n\r\n"}, errResponse},
		{"head too long", []string{"HTTP/1.1 200 OK\r\nA: " + strings.Repeat("x", maxResponse)}, errResponse},
		{"status", []string{"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n"}, errResponse},
		{"bad head", []string{"HTTP/1.1 200 OK\r\n\r\n"}, errResponse},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := talk(t, tt.parts...); !errors.Is(err, tt.want) {
				t.Errorf("roundTrip: got %q, %v, want %v", got, err, tt.want)
			}
		})
	}
}
