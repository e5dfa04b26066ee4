package rest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/relay"
)

// relayFunc is a relay made of its one method.
type relayFunc func(context.Context, relay.Request) (relay.Reply, error)

func (f relayFunc) Do(ctx context.Context, req relay.Request) (relay.Reply, error) {
	return f(ctx, req)
}

// echo answers with what it was asked.
func echo(_ context.Context, req relay.Request) (relay.Reply, error) {
	body, _ := json.Marshal(map[string]any{
		"code": 200, "message": "success!",
		"result": map[string]any{"action": req.Action, "get": req.Get, "body": string(req.Body)},
	})
	return relay.Reply{Code: 200, Body: body, Sign: "c2lnbmF0dXJl"}, nil
}

// send makes a request of a handler without a network. A nil body is none.
func send(h http.Handler, method, target string, body io.Reader) *httptest.ResponseRecorder {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequest(method, target, body))
	return w
}

const (
	textMissing  = `{"code":400,"message":"Missing required parameters","result":{}}`
	textNotFound = `{"code":404,"message":"API Not Found","result":{}}`
	textTooLarge = `{"code":400,"message":"Request body too large.","result":{}}`
	textInvalid  = `{"code":400,"message":"Invalid JSON","result":{}}`
	textInternal = `{"code":500,"message":"Server internal error, please contact the administrator.","result":{}}`
)

func asked(action, get, body string) string {
	return `{"code":200,"message":"success!","result":{"action":"` + action + `","body":"` + body + `","get":` + get + `}}`
}

func TestRouting(t *testing.T) {
	h := New(relayFunc(echo), nil, Options{})
	big := strings.Repeat("x", defaultMaxBody)
	for name, row := range map[string]struct {
		method, target, body, want string
	}{
		"POST":                         {"POST", "/ehsm?Action=Encrypt", "{}", asked("Encrypt", "false", "{}")},
		"trailing slash":               {"POST", "/ehsm/?Action=Encrypt", "{}", asked("Encrypt", "false", "{}")},
		"letter case of the path":      {"POST", "/EhSm/?Action=Encrypt", "{}", asked("Encrypt", "false", "{}")},
		"unknown action":               {"POST", "/ehsm?Action=Nonsense", "{}", asked("Nonsense", "false", "{}")},
		"letter case of the action":    {"POST", "/ehsm?Action=encrypt", "{}", asked("encrypt", "false", "{}")},
		"letter case of its name":      {"POST", "/ehsm?action=Encrypt", "{}", asked("", "false", "{}")},
		"no action":                    {"POST", "/ehsm", "{}", asked("", "false", "{}")},
		"escaped action":               {"POST", "/ehsm?Action=Encr%79pt", "{}", asked("Encrypt", "false", "{}")},
		"among others":                 {"POST", "/ehsm?x=1&Action=Encrypt&y=2", "{}", asked("Encrypt", "false", "{}")},
		"POST without body":            {"POST", "/ehsm?Action=Encrypt", "", asked("Encrypt", "false", "")},
		"GET GetVersion":               {"GET", "/ehsm?Action=GetVersion", "", asked("GetVersion", "true", "")},
		"GET GetVersion, slash":        {"GET", "/ehsm/?Action=GetVersion", "", asked("GetVersion", "true", "")},
		"GET Enroll":                   {"GET", "/ehsm/?Action=Enroll", "", asked("Enroll", "true", "")},
		"GET Enroll with a body":       {"GET", "/ehsm?Action=Enroll", "{}", asked("Enroll", "true", "")},
		"GET GetEvidence":              {"GET", "/ehsm?Action=GetEvidence&challenge=abc-_", "", asked("GetEvidence", "true", "abc-_")},
		"GetEvidence, slash, escapes":  {"GET", "/ehsm/?challenge=%61bc&Action=GetEvidence", "", asked("GetEvidence", "true", "abc")},
		"GetEvidence of nothing":       {"GET", "/ehsm?Action=GetEvidence", "", asked("GetEvidence", "true", "")},
		"GetEvidence with a body":      {"GET", "/ehsm?Action=GetEvidence&challenge=a", "{}", asked("GetEvidence", "true", "a")},
		"GetEvidence, long challenge":  {"GET", "/ehsm?Action=GetEvidence&challenge=" + big, "", asked("GetEvidence", "true", big[:64])},
		"challenge to another":         {"GET", "/ehsm?Action=GetVersion&challenge=a", "", asked("GetVersion", "true", "")},
		"POST GetEvidence":             {"POST", "/ehsm?Action=GetEvidence&challenge=a", "{}", textNotFound},
		"GET with a body":              {"GET", "/ehsm?Action=ListKey", "{}", asked("ListKey", "true", "{}")},
		"GET of another, no body":      {"GET", "/ehsm?Action=ListKey", "", textMissing},
		"GET without action":           {"GET", "/ehsm", "", textMissing},
		"GET enroll":                   {"GET", "/ehsm?Action=enroll", "", textMissing},
		"POST Enroll":                  {"POST", "/ehsm?Action=Enroll", "{}", textNotFound},
		"POST GetVersion":              {"POST", "/ehsm?Action=GetVersion", "{}", textNotFound},
		"PUT":                          {"PUT", "/ehsm?Action=Encrypt", "{}", textNotFound},
		"DELETE":                       {"DELETE", "/ehsm?Action=DeleteKey", "{}", textNotFound},
		"PUT Enroll":                   {"PUT", "/ehsm?Action=Enroll", "{}", textNotFound},
		"largest body":                 {"POST", "/ehsm?Action=Encrypt", big, asked("Encrypt", "false", big)},
		"too large a body":             {"POST", "/ehsm?Action=Encrypt", big + "x", textTooLarge},
		"GET with too large a body":    {"GET", "/ehsm?Action=ListKey", big + "x", textTooLarge},
		"too large for unknown ones":   {"POST", "/ehsm?Action=Nonsense", big + "x", textTooLarge},
		"too large, but not looked at": {"POST", "/ehsm?Action=Enroll", big + "x", textNotFound},
	} {
		for _, kind := range []string{"length", "chunked"} {
			var body io.Reader
			if row.body != "" {
				body = strings.NewReader(row.body)
				if kind == "chunked" {
					body = io.MultiReader(body) // its length is unknown
				}
			}
			w := send(h, row.method, row.target, body)
			if w.Code != 200 || w.Body.String() != row.want {
				t.Errorf("%s, %s: got HTTP %d %.200s, want %.200s", name, kind, w.Code, w.Body, row.want)
			}
			if ct := w.Header().Get("Content-Type"); ct != "application/json; charset=utf-8" {
				t.Errorf("%s: content type %q", name, ct)
			}
			if sign := w.Header().Get("Ehsm-Reply-Signature"); (sign != "") != strings.Contains(row.want, "success") {
				t.Errorf("%s: reply signature %q", name, sign)
			}
		}
	}
}

func TestOtherPaths(t *testing.T) {
	h := New(relayFunc(echo), nil, Options{})
	for _, path := range []string{"/", "/ehsmx", "/ehsm//", "/ehsm/x", "/x/ehsm", "/eh%C5%BFm", "/%05hsm", "/kms", "//ehsm"} {
		if w := send(h, "GET", "http://host"+path+"?Action=GetVersion", nil); w.Code != 404 || w.Body.String() != textNotFound {
			t.Errorf("%s: got HTTP %d %s", path, w.Code, w.Body)
		}
	}
}

func TestContentTypeIsIgnored(t *testing.T) {
	h := New(relayFunc(echo), nil, Options{})
	for _, ct := range []string{"", "text/plain", "application/json", "multipart/form-data", ";;"} {
		r := httptest.NewRequest("POST", "/ehsm?Action=Encrypt", strings.NewReader("{}"))
		r.Header.Set("Content-Type", ct)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Body.String() != asked("Encrypt", "false", "{}") {
			t.Errorf("content type %q: got %s", ct, w.Body)
		}
	}
}

func TestBodyThatBreaksOff(t *testing.T) {
	h := New(relayFunc(func(context.Context, relay.Request) (relay.Reply, error) {
		t.Error("the core is asked")
		return relay.Reply{}, nil
	}), nil, Options{})
	for name, length := range map[string]int64{"of known length": 100, "of unknown length": -1} {
		r := httptest.NewRequest("POST", "/ehsm?Action=Encrypt", io.MultiReader(strings.NewReader("{"), brokenReader{}))
		r.ContentLength = length
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != 200 || w.Body.String() != textInvalid {
			t.Errorf("%s: got HTTP %d %s", name, w.Code, w.Body)
		}
	}
}

type brokenReader struct{}

func (brokenReader) Read([]byte) (int, error) { return 0, errors.New("connection reset") }

// TestBuffersAreNotShared sends bodies of falling length: nothing of a longer
// one may show in a later one.
func TestBuffersAreNotShared(t *testing.T) {
	h := New(relayFunc(echo), nil, Options{})
	for _, n := range []int{5000, 3000, 100, 1, 20000, 50, 0} {
		body := strings.Repeat("y", n)
		for _, r := range []io.Reader{strings.NewReader(body), io.MultiReader(strings.NewReader(body))} {
			if w := send(h, "POST", "/ehsm?Action=Encrypt", r); w.Body.String() != asked("Encrypt", "false", body) {
				t.Errorf("body of %d bytes arrives as %.100s", n, w.Body)
			}
		}
	}
}

func TestServerErrorsAreLogged(t *testing.T) {
	gone, cancel := context.WithCancel(context.Background())
	cancel()
	for name, row := range map[string]struct {
		ctx   context.Context
		reply relay.Reply
		err   error
		want  string // in the one line; "" for no line
	}{
		"success":              {context.Background(), relay.Reply{Code: 200, Body: []byte("{}")}, nil, ""},
		"client's error":       {context.Background(), relay.Reply{Code: 400, Body: []byte("{}")}, nil, ""},
		"overload":             {context.Background(), relay.Busy(), nil, ""},
		"host's error":         {context.Background(), relay.Internal(), errors.New("core is gone"), "core is gone"},
		"error, but a reply":   {context.Background(), relay.Reply{Code: 400, Body: []byte("{}")}, errors.New("disk full"), "disk full"},
		"core's error":         {context.Background(), relay.Reply{Code: 500, Body: []byte("{}")}, nil, "core answered"},
		"client has gone":      {gone, relay.Internal(), context.Canceled, ""},
		"client gone, and err": {gone, relay.Internal(), errors.New("disk full"), "disk full"},
	} {
		var log bytes.Buffer
		h := New(relayFunc(func(context.Context, relay.Request) (relay.Reply, error) { return row.reply, row.err }),
			nil, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		r := httptest.NewRequestWithContext(row.ctx, "POST", "/ehsm?Action=Encrypt", strings.NewReader("payload-text"))
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code != 200 || w.Body.String() != string(row.reply.Body) {
			t.Errorf("%s: got HTTP %d %s", name, w.Code, w.Body)
		}
		lines := strings.Count(log.String(), "\n")
		if row.want == "" && lines != 0 || row.want != "" && (lines != 1 || !strings.Contains(log.String(), row.want)) {
			t.Errorf("%s: got log %q, want a line with %q", name, &log, row.want)
		}
		if strings.Contains(log.String(), "payload-text") {
			t.Errorf("%s: the log has the payload: %s", name, &log)
		}
	}
}

func TestPanicIsAnswered(t *testing.T) {
	var log bytes.Buffer
	h := New(relayFunc(func(context.Context, relay.Request) (relay.Reply, error) { panic("a bug") }),
		nil, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	if w := send(h, "POST", "/ehsm?Action=Encrypt", nil); w.Code != 200 || w.Body.String() != textInternal {
		t.Errorf("got HTTP %d %s", w.Code, w.Body)
	}
	if !strings.Contains(log.String(), "a bug") {
		t.Errorf("got log %q", &log)
	}
}

func TestRequestIDsAreUnique(t *testing.T) {
	seen := map[string]bool{}
	note := relayFunc(func(_ context.Context, req relay.Request) (relay.Reply, error) {
		if seen[req.ID] || len(req.ID) < 10 {
			t.Errorf("request id %q comes again", req.ID)
		}
		seen[req.ID] = true
		return relay.Busy(), nil
	})
	for range 3 {
		for h := New(note, nil, Options{}); len(seen)%50 != 49; {
			send(h, "POST", "/ehsm", nil)
		}
		seen["next"+string(rune('a'+len(seen)/50))] = true
	}
}

// TestIdenticalRequestsInARow is item 11 of the compatibility checklist as far
// as the host is concerned: a client that signs with the millisecond it lives
// in never has the same one twice, and no reply waits longer than 2 ms.
func TestIdenticalRequestsInARow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(relayFunc(func(context.Context, relay.Request) (relay.Reply, error) {
			release := time.Now().Truncate(time.Millisecond).Add(time.Millisecond)
			return relay.Reply{Code: 200, Body: []byte("{}"), Release: release.UnixMicro()}, nil
		}), nil, Options{})
		last := time.Now().UnixMilli() - 1
		for range 1000 {
			start := time.Now()
			if start.UnixMilli() == last {
				t.Fatal("two requests have one timestamp")
			}
			last = start.UnixMilli()
			send(h, "POST", "/ehsm?Action=Encrypt", nil)
			if d := time.Since(start); d > maxHold {
				t.Errorf("a reply was held for %s", d)
			}
			time.Sleep(137 * time.Microsecond)
		}
	})
}

func TestHealth(t *testing.T) {
	var log bytes.Buffer
	broken := map[string]error{}
	check := func(name string) Check {
		return Check{name, func(context.Context) error { return broken[name] }}
	}
	h := New(relayFunc(echo), []Check{check("store")}, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	want := func(status int, body string) {
		t.Helper()
		if w := send(h, "GET", "/readyz", nil); w.Code != status || w.Body.String() != body {
			t.Errorf("got HTTP %d %s, want %d %s", w.Code, w.Body, status, body)
		}
	}
	well, failing := `{"checks":{"store":"ok"},"ready":true}`, `{"checks":{"store":"failing"},"ready":false}`
	want(200, well)
	broken["store"] = errors.New("/secret/path is gone")
	want(503, failing)
	want(503, failing)
	delete(broken, "store")
	want(200, well)
	if n := strings.Count(log.String(), "\n"); n != 2 || !strings.Contains(log.String(), "/secret/path") {
		t.Errorf("got %d lines:\n%s", n, &log)
	}
	if w := send(h, "GET", "/healthz", nil); w.Code != 200 || w.Body.String() != `{"status":"ok"}` {
		t.Errorf("healthz: got HTTP %d %s", w.Code, w.Body)
	}
}

// TestManyAskAtOnce has many ask while the checks run: none gets a verdict that
// is older than his question, and the checks run once for all of them.
func TestManyAskAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		broken := errors.New("broken")
		h := New(relayFunc(echo), []Check{{"store", func(context.Context) error {
			asked++
			verdict := broken
			time.Sleep(time.Second)
			return verdict
		}}}, Options{})
		var wg sync.WaitGroup
		wg.Go(func() {
			if w := send(h, "GET", "/readyz", nil); w.Code != 503 {
				t.Errorf("the first: got HTTP %d", w.Code)
			}
		})
		synctest.Wait()
		broken = nil
		for range 100 {
			wg.Go(func() {
				if w := send(h, "GET", "/readyz", nil); w.Code != 200 {
					t.Errorf("the others: got HTTP %d", w.Code)
				}
			})
		}
		wg.Wait()
		if asked != 2 {
			t.Errorf("the check was asked %d times, want 2", asked)
		}
	})
}

func TestReadinessOfManyParts(t *testing.T) {
	gone := errors.New("gone")
	checks := []Check{
		{"audit", func(context.Context) error { return nil }},
		{"core", func(context.Context) error { return gone }},
		{"store", func(context.Context) error { return nil }},
	}
	w := send(New(relayFunc(echo), checks, Options{}), "GET", "/readyz", nil)
	if want := `{"checks":{"audit":"ok","core":"failing","store":"ok"},"ready":false}`; w.Code != 503 || w.Body.String() != want {
		t.Errorf("got HTTP %d %s, want 503 %s", w.Code, w.Body, want)
	}
}

func TestObserve(t *testing.T) {
	var got []string
	h := New(relayFunc(func(_ context.Context, r relay.Request) (relay.Reply, error) {
		if r.Action == "Panic" {
			panic("at the disco")
		}
		return relay.Reply{Code: 429, Body: []byte("{}")}, nil
	}), nil, Options{
		Observe: func(action string, code int, took time.Duration) {
			got = append(got, fmt.Sprint(action, " ", code, " ", took >= 0))
		},
		Metrics: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "numbers") }),
	})
	send(h, "POST", "/ehsm?Action=Encrypt", strings.NewReader("{}"))
	send(h, "PUT", "/ehsm?Action=Encrypt", nil)
	send(h, "POST", "/ehsm?Action=Panic", strings.NewReader("{}"))
	send(h, "GET", "/readyz", nil) // not of the API
	if want := []string{"Encrypt 429 true", "Encrypt 400 true", "Panic 500 true"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	if w := send(h, "GET", "/metrics", nil); w.Body.String() != "numbers" {
		t.Errorf("/metrics: got %s", w.Body)
	}
	if w := send(New(relayFunc(echo), nil, Options{}), "GET", "/metrics", nil); w.Code != 404 {
		t.Errorf("/metrics where there are none: got HTTP %d", w.Code)
	}
}

func TestReadinessDoesNotHang(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		h := New(relayFunc(echo), []Check{{"core", func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }}}, Options{})
		if w := send(h, "GET", "/readyz", nil); w.Code != 503 {
			t.Errorf("got HTTP %d %s", w.Code, w.Body)
		}
	})
}

func FuzzServe(f *testing.F) {
	h := New(relayFunc(echo), nil, Options{MaxBody: 1000})
	f.Add("POST", "/ehsm", "Action=Encrypt", []byte("{}"))
	f.Add("GET", "/EHSM/", "Action=Enroll&x=%zz", []byte(nil))
	f.Fuzz(func(t *testing.T, method, path, query string, body []byte) {
		r := httptest.NewRequest("POST", "/", bytes.NewReader(body))
		r.Method, r.URL.Path, r.URL.RawQuery = method, path, query
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		var envelope struct {
			Code    *int           `json:"code"`
			Message *string        `json:"message"`
			Result  map[string]any `json:"result"`
		}
		if !isAPI(path) {
			return
		}
		if err := json.Unmarshal(w.Body.Bytes(), &envelope); err != nil || w.Code != 200 ||
			envelope.Code == nil || envelope.Message == nil || envelope.Result == nil {
			t.Errorf("HTTP %d %s is no envelope: %v", w.Code, w.Body, err)
		}
	})
}

// nullWriter is a response writer that costs nothing.
type nullWriter struct{ header http.Header }

func (w nullWriter) Header() http.Header         { return w.header }
func (w nullWriter) Write(b []byte) (int, error) { return len(b), nil }
func (w nullWriter) WriteHeader(int)             {}

func BenchmarkServe(b *testing.B) {
	reply := relay.Reply{Code: 200, Body: []byte(`{"code":200}`), Sign: "c2ln"}
	h := New(relayFunc(func(context.Context, relay.Request) (relay.Reply, error) { return reply, nil }), nil, Options{})
	text := strings.Repeat("x", 300)
	body := strings.NewReader(text)
	r := httptest.NewRequest("POST", "/ehsm?Action=Encrypt", nil)
	r.ContentLength = int64(len(text))
	w := nullWriter{http.Header{}}
	b.ReportAllocs()
	for b.Loop() {
		body.Reset(text)
		r.Body = io.NopCloser(body)
		h.ServeHTTP(w, r)
	}
}

// TestBusyHold holds what says too many, and nothing else, and not for a client that
// has gone.
func TestBusyHold(t *testing.T) {
	for name, row := range map[string]struct {
		code int
		gone bool
		want time.Duration
	}{
		"served":               {200, false, 0},
		"refused":              {400, false, 0},
		"failed":               {500, false, 0},
		"too many":             {429, false, busyHold},
		"too many, for nobody": {429, true, 0},
	} {
		synctest.Test(t, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			h := New(relayFunc(func(context.Context, relay.Request) (relay.Reply, error) {
				if row.gone {
					cancel()
				}
				return relay.Reply{Code: row.code, Body: []byte("{}")}, nil
			}), nil, Options{})
			began := time.Now()
			r := httptest.NewRequestWithContext(ctx, "POST", "/ehsm?Action=Encrypt", strings.NewReader("{}"))
			h.ServeHTTP(httptest.NewRecorder(), r)
			if took := time.Since(began); took != row.want {
				t.Errorf("%s: answered after %v, want %v", name, took, row.want)
			}
		})
	}
}
