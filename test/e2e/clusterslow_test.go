package e2e

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// storeTimeout is EHSM_KMS_STORE_TIMEOUT of the nodes here, and slack what a busy
// machine may add to it.
const (
	storeTimeout = 2 * time.Second
	slack        = 2 * time.Second
)

// TestClusterDatabase has a node whose database is away, slow, or short of
// connections. What needs no database goes on, what needs it is refused in time,
// and the node recovers by itself.
func TestClusterDatabase(t *testing.T) {
	t.Parallel()
	c := newLinked(t, "EHSM_KMS_STORE_TIMEOUT="+storeTimeout.String(), "EHSM_KMS_DATABASE_CONNECTIONS=2", "EHSM_KMS_CONCURRENT=64")
	s := &sufferer{tenant: c.nodes[0].enroll(t)}
	s.key = s.createAES(t)
	s.elsewhere = s.on(c.nodes[1])
	l := c.links[0]
	t.Run("away", func(t *testing.T) { s.cutOff(t, l.cut, l.mend) })
	t.Run("silent", func(t *testing.T) { s.cutOff(t, l.mute, l.mend) })
	t.Run("slow", func(t *testing.T) { s.slow(t, l) })
	t.Run("no connections", func(t *testing.T) { s.crowded(t, l) })
}

// A sufferer is a client of a node that has trouble with its database.
type sufferer struct {
	*tenant
	elsewhere *tenant // the same at a node without trouble
	key       string
}

func (s *sufferer) encrypt(ctx context.Context) (reply, error) {
	return s.try(ctx, "Encrypt", fields{"keyid": s.key, "plaintext": "AAAA"})
}

func (s *sufferer) make(ctx context.Context) (reply, error) {
	return s.try(ctx, "CreateKey", fields{"keyspec": "EH_AES_GCM_128", "origin": internalKey, "keyusage": encryptDecrypt})
}

// timely is a request that must be answered before long.
func timely(t *testing.T, what string, do func(context.Context) (reply, error)) (reply, time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout+slack)
	defer cancel()
	began := time.Now()
	r, err := do(ctx)
	if err != nil {
		t.Fatalf("%s: no answer after %v: %v", what, time.Since(began), err)
	}
	return r, time.Since(began)
}

// status asks /healthz or /readyz.
func (g *target) status(t *testing.T, path string) (int, string) {
	t.Helper()
	resp, err := g.http.Get(g.base() + path)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// cutOff takes the database away for a while.
func (s *sufferer) cutOff(t *testing.T, cut, mend func()) {
	s.healthy(t)
	cut()
	gone := time.Now()
	// As long as the grace lasts, at least in part: the node was in touch less than
	// half of it ago.
	served := 0
	for time.Since(gone) < grace/4 {
		r, _ := timely(t, "within the grace", s.encrypt)
		want(t, r, 200, textSuccess)
		served++
	}
	<-time.After(grace + 100*time.Millisecond - time.Since(gone))
	r, took := timely(t, "a use after the grace", s.encrypt)
	if r.Code != 500 || !strings.HasPrefix(r.Message, "Server internal error") {
		t.Errorf("a use after the grace: got %s", r.body)
	}
	made, tookMade := timely(t, "a change", s.make)
	want(t, made, 400, "database error")
	t.Logf("%d uses within the grace; after it a use was refused in %v, a change in %v", served, took, tookMade)
	if code, body := s.status(t, "/readyz"); code != 503 || !strings.Contains(body, `"store":"failing"`) || !strings.Contains(body, `"core":"ok"`) {
		t.Errorf("/readyz: got %d %s", code, body)
	}
	if code, _ := s.status(t, "/healthz"); code != 200 {
		t.Errorf("/healthz: got %d", code)
	}
	want(t, s.elsewhere.call(t, "Encrypt", fields{"keyid": s.key, "plaintext": "AAAA"}), 200, textSuccess)
	mend()
	mended := time.Now()
	for {
		if r, _ := timely(t, "once the database is back", s.make); r.Code == 200 {
			break
		}
		if time.Since(mended) > 10*time.Second {
			t.Fatal("the node does not recover")
		}
	}
	t.Logf("recovered %v after the database was back", time.Since(mended).Round(time.Millisecond))
	s.healthy(t)
}

// healthy waits until all is well.
func (s *sufferer) healthy(t *testing.T) {
	t.Helper()
	if err := s.awaitReady(); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		r, _ := timely(t, "a use", s.encrypt)
		want(t, r, 200, textSuccess)
		<-time.After(50 * time.Millisecond)
	}
}

// slow puts 200 ms between a question and its answer. Uses of known keys do not
// notice, while others wait for their changes.
func (s *sufferer) slow(t *testing.T, l *link) {
	s.healthy(t)
	const delay = 100 * time.Millisecond
	l.slow(delay)
	defer l.mend()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	var changes, refused atomic.Int64
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				began := time.Now()
				r, err := s.make(context.Background())
				switch took := time.Since(began); {
				case err != nil, took > storeTimeout+slack:
					t.Errorf("a change took %v: %v", took, err)
					return
				case r.Code == 200 && took < 2*delay:
					t.Errorf("a change took %v only: the link is not slow", took)
				case r.Code == 200:
					changes.Add(1)
				default:
					refused.Add(1)
				}
			}
		})
	}
	var lags []time.Duration
	for began := time.Now(); time.Since(began) < 4*time.Second; <-time.After(5 * time.Millisecond) {
		r, took := timely(t, "a use of a known key", s.encrypt)
		want(t, r, 200, textSuccess)
		lags = append(lags, took)
	}
	if code, body := s.status(t, "/readyz"); code != 200 {
		t.Errorf("/readyz: got %d %s", code, body)
	}
	close(stop)
	wg.Wait()
	t.Logf("200 ms to the database and back: %d changes made, %d refused; uses of a known key: %s", changes.Load(), refused.Load(), distribution(lags))
	if changes.Load() == 0 {
		t.Error("no change was made")
	}
	if p90 := lags[len(lags)*9/10]; p90 > 2*delay {
		t.Errorf("uses of a known key wait for the database: 10 %% took more than %v", p90)
	}
}

// crowded has more clients than there is room for, on two connections.
func (s *sufferer) crowded(t *testing.T, l *link) {
	s.healthy(t)
	l.slow(10 * time.Millisecond)
	defer l.mend()
	var mu sync.Mutex
	codes := map[string]int{}
	var wg sync.WaitGroup
	var uses atomic.Int64
	for i := range 64 {
		wg.Go(func() {
			for n := range 5 {
				do := s.make
				if i%8 == 0 && n > 0 {
					do = s.encrypt
				}
				ctx, cancel := context.WithTimeout(context.Background(), storeTimeout+slack)
				r, err := do(ctx)
				cancel()
				mu.Lock()
				switch {
				case errors.Is(err, context.DeadlineExceeded):
					codes["no answer"]++
				case err != nil:
					codes[err.Error()]++
				default:
					codes[fmt.Sprint(r.Code, " ", r.Message)]++
				}
				mu.Unlock()
				if err == nil && r.Result["ciphertext"] != nil {
					uses.Add(1)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("64 clients on 2 connections: %v, of them %d uses", codes, uses.Load())
	for text := range codes {
		switch text {
		case "200 success!", "429 Too many requests.", "400 database error", "400 create cmk failed",
			"500 Server internal error, please contact the administrator.":
		default:
			t.Errorf("%d times: %s", codes[text], text)
		}
	}
	if codes["429 Too many requests."] == 0 || codes["200 success!"] == 0 {
		t.Error("want some served and some refused with code 429")
	}
	if uses.Load() < 20 {
		t.Errorf("%d uses of a known key were served, want most of 32", uses.Load())
	}
	l.mend()
	s.healthy(t)
	r, err := s.make(context.Background())
	if err != nil || r.Code != http.StatusOK {
		t.Errorf("afterwards: got %s, %v", r.body, err)
	}
}
