package e2e

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A wire is a connection on which a test writes what it likes.
type wire struct {
	net.Conn
	r *bufio.Reader
}

// dial opens a TLS connection without HTTP.
func (g *target) dial(t testing.TB) *wire {
	t.Helper()
	d := tls.Dialer{NetDialer: &net.Dialer{Timeout: 10 * time.Second}, Config: g.tls}
	conn, err := d.DialContext(context.Background(), "tcp", g.address())
	if err != nil {
		t.Fatalf("connect: %v", err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(40 * time.Second))
	return &wire{conn, bufio.NewReader(conn)}
}

// post is a request with exactly these header lines besides the length.
func post(path string, body []byte, header ...string) []byte {
	lines := append([]string{"POST " + path + " HTTP/1.1", "Host: 127.0.0.1", "Content-Length: " + strconv.Itoa(len(body))}, header...)
	return append([]byte(strings.Join(lines, "\r\n")+"\r\n\r\n"), body...)
}

// errClosed says that the server has closed the connection without a reply.
var errClosed = errors.New("closed without a reply")

// reply reads one reply of the API. It is errClosed if there is none.
func (w *wire) reply() (reply, error) {
	resp, body, err := w.response()
	if err != nil {
		return reply{}, err
	}
	return parseReply(resp, body)
}

func (w *wire) response() (*http.Response, []byte, error) {
	resp, err := http.ReadResponse(w.r, nil)
	var timeout net.Error
	switch {
	case errors.As(err, &timeout) && timeout.Timeout():
		return nil, nil, err // neither a reply nor closed
	case err != nil:
		return nil, nil, errClosed
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// TestBadInput sends what is no request of the API. The server answers with an
// envelope or closes the connection, keeps its memory bounded, and goes on
// serving others.
func TestBadInput(t *testing.T) {
	eachTarget(t, func(t *testing.T, g *target) {
		c := g.enroll(t)
		key := c.createAES(t)
		t.Run("bodies", func(t *testing.T) { testBadBodies(t, g) })
		t.Run("payloads", func(t *testing.T) { testBadPayloads(t, c, key) })
		t.Run("lengths", func(t *testing.T) { testBadLengths(t, g) })
		t.Run("HTTP", func(t *testing.T) { testBadHTTP(t, g) })
		t.Run("pipelines", func(t *testing.T) { testPipelines(t, c) })
		t.Run("TLS", func(t *testing.T) { testBadTLS(t, g) })
		want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}), 200, textSuccess)
		g.bounded(t, 150<<20)
	})
}

// bounded fails if a program has taken more memory than limit, in bytes.
func (g *target) bounded(t *testing.T, limit int64) {
	t.Helper()
	now, peak := g.memory()
	t.Logf("memory: %d MiB now, %d MiB at most", now>>20, peak>>20)
	if peak > limit {
		t.Errorf("the service has taken %d MiB, want %d at most", peak>>20, limit>>20)
	}
}

// badBodies are texts that are no JSON the API takes.
func badBodies() map[string]string {
	return map[string]string{
		"cut short":          `{"appid":"x","timestamp":"17`,
		"nested arrays":      strings.Repeat("[", 50000),
		"nested, closed":     strings.Repeat("[", 50000) + strings.Repeat("]", 50000),
		"nested objects":     strings.Repeat(`{"a":`, 16000),
		"nested payload":     `{"payload":` + strings.Repeat(`{"a":`, 10000) + "1" + strings.Repeat("}", 10000) + "}",
		"invalid UTF-8":      `{"appid":"` + "\xc3\x28\xff\xfe" + `"}`,
		"overlong UTF-8":     `{"appid":"` + "\xc0\xaf" + `"}`,
		"UTF-16":             "\xff\xfe{\x00}\x00",
		"byte order mark":    "\xef\xbb\xbf{}",
		"surrogate in UTF-8": `{"appid":"` + "\xed\xa0\x80" + `"}`,
		"control character":  "{\"appid\":\"\x01\"}",
		"bad escape":         `{"appid":"\x41"}`,
		"half an escape":     `{"appid":"\u12"}`,
		"NUL bytes":          strings.Repeat("\x00", 1000),
		"comment":            `{/* */}`,
		"single quotes":      `{'appid':'x'}`,
		"trailing comma":     `{"appid":"x",}`,
		"NaN":                `{"appid":NaN}`,
		"leading zero":       `{"appid":01}`,
		"plus sign":          `{"appid":+1}`,
		"bare fraction":      `{"appid":.5}`,
		"two values":         `{}{}`,
		"XML":                `<?xml version="1.0"?><a/>`,
		"form":               `appid=x&timestamp=1`,
	}
}

func testBadBodies(t *testing.T, g *target) {
	for name, body := range badBodies() {
		for _, action := range []string{"ListKey", "Encrypt", "DeleteAllKey", "Nonsense"} {
			r := g.must(t, http.MethodPost, "/ehsm?Action="+action, []byte(body))
			r.action = name + " as " + action
			want(t, r, 400, "Invalid JSON")
		}
	}
	// JSON, but nothing the API takes.
	for name, body := range map[string]string{
		"number": `1`, "string": `"x"`, "array": `[]`, "null": `null`, "true": `true`, "object": `{}`, "spaces": " \n\t ",
		"many members":   `{` + strings.Repeat(`"a":1,`, 15000) + `"b":2}`,
		"long name":      `{"` + strings.Repeat("a", 90000) + `":1}`,
		"long number":    `{"a":` + strings.Repeat("9", 90000) + `}`,
		"huge exponent":  `{"a":1e999999999}`,
		"tiny exponent":  `{"a":1e-999999999}`,
		"many strings":   `{"a":[` + strings.Repeat(`"",`, 30000) + `""]}`,
		"escapes":        `{"a":"` + strings.Repeat(`\u0000`, 15000) + `"}`,
		"proto":          `{"__proto__":{"appid":"x"},"constructor":{"prototype":{}}}`,
		"lone surrogate": `{"a":"\ud800"}`,
	} {
		r := g.must(t, http.MethodPost, "/ehsm?Action=Encrypt", []byte(body))
		if r.Code != 400 {
			t.Errorf("%s: got %s", name, r.body)
		}
	}
}

// testBadPayloads has values of every kind in every member, well signed.
func testBadPayloads(t *testing.T, c *tenant, key string) {
	deep := strings.Repeat(`{"a":`, 30) + "1" + strings.Repeat("}", 30)
	values := []string{`1`, `-1`, `0`, `1e308`, `true`, `false`, `null`, `""`, `" "`, `"x"`, `[]`, `{}`, `["x"]`, `{"a":"b"}`,
		`"\u0000"`, `"\ud800"`, `"` + strings.Repeat("A", 20000) + `"`, deep}
	for _, action := range []string{"CreateKey", "Encrypt", "Decrypt", "GenerateDataKey", "EnableKey", "DeleteKey", "Nonsense"} {
		for _, member := range []string{"keyid", "plaintext", "ciphertext", "aad", "keylen", "keyspec", "origin", "keyusage", "action"} {
			for _, v := range values {
				body := `{"appid":"` + c.appid + `","timestamp":"` + stamp(time.Now()) + `","sign":"x","payload":{"` + member + `":` + v + `}}`
				if r := c.must(t, http.MethodPost, "/ehsm?Action="+action, []byte(body)); r.Code != 400 {
					t.Errorf("%s with %s %.40s: got %s", action, member, v, r.body)
				}
			}
		}
	}
	for _, v := range []any{1, -1.5, true, " ", "x", fields{"a": "b"}, []any{"x", 1}, "\x00", strings.Repeat("A", 20000)} {
		for _, member := range []string{"keyid", "plaintext", "aad"} {
			r := c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}.with(fields{member: v}))
			if r.Code != 400 || !strings.HasPrefix(r.Message, "Parameter invalid, The "+member) {
				t.Errorf("%s %.40v: got %s", member, v, r.body)
			}
		}
	}
}

// testBadLengths has bodies whose length is not what the header says.
func testBadLengths(t *testing.T, g *target) {
	const path = "/ehsm?Action=ListKey"
	for name, row := range map[string]struct {
		sent string
		half bool // close our end after it
	}{
		"declared too large":     {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999\r\n\r\n", false},
		"declared beyond 64 bit": {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", false},
		"negative":               {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n", false},
		"no number":              {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: x\r\n\r\n", false},
		"two lengths":            {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\n{} ", false},
		"length and chunks":      {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n", false},
		"body cut short":         {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{}", true},
		"no body":                {"POST " + path + " HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n", true},
		"chunks cut short":       {"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n{}", true},
		"bad chunk size":         {"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n", false},
		"huge chunk size":        {"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{}", true},
		"unknown encoding":       {"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n{}", true},
		"one byte chunks":        {"POST " + path + " HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1\r\n \r\n", 110<<10) + "0\r\n\r\n", false},
	} {
		w := g.dial(t)
		io.WriteString(w, row.sent) // an error says that the server has closed already
		if row.half {
			w.Conn.(*tls.Conn).CloseWrite()
		}
		w.refused(t, name)
	}
}

// refused expects an HTTP error, an envelope with an error, or the end.
func (w *wire) refused(t *testing.T, name string) {
	t.Helper()
	resp, body, err := w.response()
	switch {
	case errors.Is(err, errClosed):
	case err != nil:
		t.Errorf("%s: neither a reply nor the end: %v", name, err)
	case resp.StatusCode >= 400 && resp.StatusCode <= 505:
	default:
		if r, err := parseReply(resp, body); err != nil || r.Code < 400 {
			t.Errorf("%s: got HTTP %d %.200s, %v", name, resp.StatusCode, body, err)
		}
	}
}

func testBadHTTP(t *testing.T, g *target) {
	for name, sent := range map[string]string{
		"garbage":             "\x00\x01\x02\x03garbage\r\n\r\n",
		"no request line":     "\r\n\r\n\r\n\r\n",
		"HTTP/0.9":            "GET /ehsm?Action=GetVersion\r\n\r\n",
		"HTTP/2 preface":      "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
		"HTTP/9.9":            "GET /ehsm?Action=GetVersion HTTP/9.9\r\nHost: x\r\n\r\n",
		"no host":             "GET /ehsm?Action=GetVersion HTTP/1.1\r\n\r\n",
		"two hosts":           "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
		"space in the name":   "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost : x\r\n\r\n",
		"control in a value":  "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
		"bare CR":             "GET /ehsm?Action=GetVersion HTTP/1.1\rHost: x\r\r",
		"long line":           "GET /ehsm?Action=" + strings.Repeat("x", 100000) + " HTTP/1.1\r\nHost: x\r\n\r\n",
		"long header":         "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 100000) + "\r\n\r\n",
		"many headers":        "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("X: y\r\n", 20000) + "\r\n",
		"CONNECT":             "CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1:22\r\n\r\n",
		"OPTIONS":             "OPTIONS /ehsm?Action=ListKey HTTP/1.1\r\nHost: x\r\n\r\n",
		"unknown method":      "BREW /ehsm?Action=ListKey HTTP/1.1\r\nHost: x\r\n\r\n",
		"PUT":                 "PUT /ehsm?Action=ListKey HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
		"other path":          "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
		"path traversal":      "GET /ehsm/../../etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
		"escaped traversal":   "GET /ehsm/%2e%2e/%2e%2e/etc/passwd HTTP/1.1\r\nHost: x\r\n\r\n",
		"broken escape":       "GET /ehsm?Action=%zz HTTP/1.1\r\nHost: x\r\n\r\n",
		"broken path escape":  "GET /%zz?Action=GetVersion HTTP/1.1\r\nHost: x\r\n\r\n",
		"semicolon in query":  "POST /ehsm?Action=ListKey;x HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n{}",
		"absolute form":       "GET http://other.example/ehsm?Action=ListKey HTTP/1.1\r\nHost: x\r\n\r\n",
		"debug pages":         "GET /debug/pprof/ HTTP/1.1\r\nHost: x\r\n\r\n",
		"plain HTTP in TLS":   "GET http://127.0.0.1/ HTTP/1.0\r\n\r\n",
		"unsolicited upgrade": "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n",
	} {
		w := g.dial(t)
		io.WriteString(w, sent)
		w.Conn.(*tls.Conn).CloseWrite()
		w.refused(t, name)
	}
	// A client that waits for permission gets it, or the reply at once.
	w := g.dial(t)
	io.WriteString(w, "POST /ehsm?Action=ListKey HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n{}")
	resp, _, err := w.response()
	if err == nil && resp.StatusCode == http.StatusContinue {
		resp, _, err = w.response()
	}
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Errorf("Expect: got %v, %v", resp, err)
	}
}

// testPipelines writes many requests at once on one connection.
func testPipelines(t *testing.T, c *tenant) {
	w := c.dial(t)
	var all bytes.Buffer
	for i := range 100 {
		body := c.unsigned(nil).signed(c.apikey).body()
		if i%3 == 1 {
			body = []byte("{")
		}
		all.Write(post("/ehsm?Action=ListKey", body))
	}
	all.WriteString("\x00 garbage after it\r\n\r\n")
	sent := make(chan error, 1)
	go func() {
		_, err := w.Write(all.Bytes())
		sent <- err
	}()
	for i := range 100 {
		r, err := w.reply()
		code := 200
		if i%3 == 1 {
			code = 400
		}
		if err != nil || r.Code != code {
			t.Fatalf("reply %d of 100: got %s, %v", i+1, r.body, err)
		}
	}
	if err := <-sent; err != nil {
		t.Errorf("write: %v", err)
	}
	w.refused(t, "garbage")
}

// testBadTLS talks other protocols to the port, and old TLS.
func testBadTLS(t *testing.T, g *target) {
	for name, sent := range map[string]string{
		"plain HTTP": "GET /ehsm?Action=GetVersion HTTP/1.1\r\nHost: x\r\n\r\n",
		"SSH":        "SSH-2.0-x\r\n", "zeros": strings.Repeat("\x00", 1000), "alert": "\x15\x03\x01\x00\x02\x02\x28",
		"record of no end": "\x16\x03\x01\xff\xff" + strings.Repeat("x", 70000),
		"half a hello":     "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
	} {
		conn, err := net.Dial("tcp", g.address())
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(20 * time.Second))
		io.WriteString(conn, sent)
		conn.(*net.TCPConn).CloseWrite()
		answer, err := io.ReadAll(conn)
		var timeout net.Error
		if errors.As(err, &timeout) && timeout.Timeout() || bytes.Contains(answer, []byte("version")) {
			t.Errorf("%s: got %q, %v", name, answer, err)
		}
		conn.Close()
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		old := g.tls.Clone()
		old.MinVersion, old.MaxVersion = version, version
		if conn, err := tls.Dial("tcp", g.address(), old); err == nil {
			t.Errorf("%s is accepted", tls.VersionName(version))
			conn.Close()
		}
	}
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		now := g.tls.Clone()
		now.MinVersion, now.MaxVersion, now.NextProtos = version, version, []string{"h2", "http/1.1"}
		conn, err := tls.Dial("tcp", g.address(), now)
		if err != nil {
			t.Errorf("%s: %v", tls.VersionName(version), err)
			continue
		}
		if p := conn.ConnectionState().NegotiatedProtocol; p == "h2" {
			t.Error("HTTP/2 is negotiated")
		}
		conn.Close()
	}
}
