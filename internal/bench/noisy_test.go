package bench

import (
	"bytes"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"
)

func noisyOptions(t *testing.T) NoisyOptions {
	o := testOptions(t)
	return NoisyOptions{
		Program: o.Program, Environ: o.Environ, settle: o.settle,
		Operations: []string{"encrypt"}, Conns: 3, Duration: 60 * time.Millisecond, Rounds: 2,
	}
}

func TestNoisy(t *testing.T) {
	o := noisyOptions(t)
	r, err := Noisy(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	checkNothingLeft(t)
	if len(r.Noises) != 1 || r.Conns != 3 || r.Rate != 200 {
		t.Fatalf("Noisy: got %+v", r)
	}
	n := r.Noises[0]
	for name, v := range map[string]float64{
		"alone": n.Alone.P99, "beside": n.Beside.P99, "with": n.With.P99, "ratio": n.RatioP50, "share": n.ShareP99, "served": n.Served,
	} {
		if v <= 0 {
			t.Errorf("%s: got %v, want a figure", name, v)
		}
	}
	if n.Refused != 0 {
		t.Errorf("refused: got %v", n.Refused)
	}
	var text strings.Builder
	if err := r.WriteText(&text); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(text.String(), "same/other") || !strings.Contains(text.String(), "limit: none") {
		t.Errorf("WriteText: got\n%s", &text)
	}
}

func TestNoisyRefuses(t *testing.T) {
	for name, change := range map[string]func(*NoisyOptions){
		"an unknown operation":          func(o *NoisyOptions) { o.Operations = []string{"noise"} },
		"no operation":                  func(o *NoisyOptions) { o.Operations = []string{} },
		"connections below 1":           func(o *NoisyOptions) { o.Conns = -1 },
		"too many connections":          func(o *NoisyOptions) { o.Conns = maxConns + 1 },
		"a quiet tenant that is not":    func(o *NoisyOptions) { o.Rate = 1001 },
		"a limit below 0":               func(o *NoisyOptions) { o.Limit = -1 },
		"a limit for the quiet tenant":  func(o *NoisyOptions) { o.Limit = 399 },
		"a round that is over at once":  func(o *NoisyOptions) { o.Duration = time.Microsecond },
		"more rounds than anybody has":  func(o *NoisyOptions) { o.Rounds = maxRounds + 1 },
		"a negative number of rounds":   func(o *NoisyOptions) { o.Rounds = -1 },
		"a rate of the past":            func(o *NoisyOptions) { o.Rate = -1 },
		"a duration longer than a test": func(o *NoisyOptions) { o.Duration = maxDuration + 1 },
	} {
		o := noisyOptions(t)
		change(&o)
		if _, err := Noisy(t.Context(), o); !errors.Is(err, ErrOptions) {
			t.Errorf("%s: got %v, want ErrOptions", name, err)
		}
	}
}

// A noise that cannot begin says why instead of being silent.
func TestNoiseRefuses(t *testing.T) {
	for name, tt := range map[string]struct{ in, out, err string }{
		"nothing":      {"", "", "no job"},
		"no JSON":      {"go\n", "", "read the job"},
		"no operation": {`{"url":"https://127.0.0.1:1","operation":"x","conns":1}` + "\n", `"error":"`, ""},
		"no service":   {`{"url":"https://127.0.0.1:1","operation":"encrypt","size":32,"conns":1}` + "\n", `"error":"`, ""},
		"no port":      {`{"url":"https://127.0.0.1","operation":"encrypt","size":32,"conns":1}` + "\n", "want one with a port", ""},
	} {
		var out bytes.Buffer
		err := serveFlood(t.Context(), strings.NewReader(tt.in), &out)
		if got := ""; err != nil {
			got = err.Error()
			if tt.err == "" || !strings.Contains(got, tt.err) {
				t.Errorf("%s: got %q, want %q", name, got, tt.err)
			}
		} else if tt.err != "" {
			t.Errorf("%s: no error, want %q", name, tt.err)
		}
		if !strings.Contains(out.String(), tt.out) {
			t.Errorf("%s: said %q, want %q", name, &out, tt.out)
		}
	}
}

// A tenant that sends at fixed times sends as many requests as there are times.
func TestQuietRate(t *testing.T) {
	answer := []byte("HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n{\"code\":200,")
	server := func(c io.ReadWriter) {
		buf := make([]byte, 4096)
		for {
			if _, err := c.Read(buf); err != nil {
				return
			}
			c.Write(answer)
		}
	}
	s := &side{}
	for range 2 {
		client, peer := net.Pipe()
		t.Cleanup(func() { client.Close() })
		go server(peer)
		s.workers = append(s.workers, &worker{conn: &conn{Conn: client}, source: ceilingSource("request"), check: checkNative})
	}
	q := quiet{side: s, rate: 100}
	got, err := q.round(t.Context(), 200*time.Millisecond)
	if err != nil || got.requests != 20 || got.latency.count != 20 {
		t.Errorf("round of 0.2 s at 100 a second: %d requests, %d latencies, %v; want 20", got.requests, got.latency.count, err)
	}
}
