package rest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/relay"
)

var batchNow = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// batchHandler answers with the length of the body, once let is closed.
func batchHandler(let <-chan struct{}, opts Options) *Handler {
	opts.Now = func() time.Time { return batchNow }
	return New(relayFunc(func(_ context.Context, r relay.Request) (relay.Reply, error) {
		<-let
		return relay.Reply{Code: 200, Body: fmt.Appendf(nil, "%d", len(r.Body))}, nil
	}), nil, opts)
}

// batchBody is a body of n bytes with a beginning.
func batchBody(begin string, n int) string { return begin + strings.Repeat("x", n-len(begin)) }

func TestBatchBodies(t *testing.T) {
	let := make(chan struct{})
	close(let)
	h := batchHandler(let, Options{})
	const appid, app = `"appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c"`, `{"appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c"`
	stamp := func(at time.Time) string { return fmt.Sprintf(`"timestamp":"%d"`, at.UnixMilli()) }
	good := app + "," + stamp(batchNow) + `,"payload":`
	large, whole := defaultMaxBody+1, defaultMaxBatchBody
	for name, row := range map[string]struct {
		action, begin string
		size          int
		want          string
	}{
		"one byte more than others":    {"BatchEncrypt", good, large, "102401"},
		"as large as may be":           {"BatchVerify", good, whole, "8388608"},
		"too large":                    {"BatchEncrypt", good, whole + 1, textTooLarge},
		"small, and of any kind":       {"BatchEncrypt", "?", defaultMaxBody, "102400"},
		"no batch":                     {"Encrypt", good, large, textTooLarge},
		"unknown action":               {"BatchNothing", good, large, textTooLarge},
		"timestamp first":              {"BatchSign", `{` + stamp(batchNow) + "," + appid + `,"payload":`, large, "102401"},
		"with white space":             {"BatchSign", "{\n " + appid + " ,\t" + stamp(batchNow) + ",", large, "102401"},
		"nonce and credential between": {"BatchDecrypt", app + `,"credential":"x","nonce":"` + strings.Repeat("é", 64) + `",` + stamp(batchNow), large, "102401"},
		"sealed":                       {"BatchReEncrypt", `{"sealed":"`, large, "102401"},
		"almost an hour ago":           {"BatchSign", app + "," + stamp(batchNow.Add(time.Second-time.Hour)), large, "102401"},
		"an hour ago":                  {"BatchSign", app + "," + stamp(batchNow.Add(-time.Hour)), large, textTooLarge},
		"in an hour":                   {"BatchSign", app + "," + stamp(batchNow.Add(time.Hour)), large, textTooLarge},
		"timestamp of 14 digits":       {"BatchSign", app + `,"timestamp":"01764000000000"`, large, textTooLarge},
		"timestamp is a number":        {"BatchSign", app + `,"timestamp":1764000000000`, large, textTooLarge},
		"timestamp behind the payload": {"BatchSign", app + `,"payload":{},` + stamp(batchNow), large, textTooLarge},
		"timestamp after 1 KiB":        {"BatchSign", app + `,"nonce":"` + strings.Repeat("n", 1024) + `",` + stamp(batchNow), large, textTooLarge},
		"no timestamp":                 {"BatchSign", app + `,"x":"`, large, textTooLarge},
		"no appid":                     {"BatchSign", `{` + stamp(batchNow) + `,"x":"`, large, textTooLarge},
		"appid in capitals":            {"BatchSign", strings.ToUpper(app) + "," + stamp(batchNow), large, textTooLarge},
		"appid is no UUID":             {"BatchSign", `{"appid":"x",` + stamp(batchNow), large, textTooLarge},
		"escape":                       {"BatchSign", `{"\u0061ppid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c",` + stamp(batchNow), large, textTooLarge},
		"an array":                     {"BatchSign", `[` + appid + "," + stamp(batchNow), large, textTooLarge},
		"no comma":                     {"BatchSign", app + " " + stamp(batchNow), large, textTooLarge},
		"no JSON":                      {"BatchSign", "?", large, textTooLarge},
	} {
		w := send(h, "POST", "/ehsm?Action="+row.action, strings.NewReader(batchBody(row.begin, row.size)))
		if w.Body.String() != row.want {
			t.Errorf("%s: got %.200s, want %.200s", name, w.Body, row.want)
		}
	}
	if w := send(h, "POST", "/ehsm?Action=BatchSign", io.MultiReader(strings.NewReader(batchBody(good, large)))); w.Body.String() != textTooLarge {
		t.Errorf("without a length: got %.200s", w.Body)
	}
	short := httptest.NewRequest("POST", "/ehsm?Action=BatchSign", strings.NewReader(batchBody(good, large)))
	short.ContentLength++
	w := httptest.NewRecorder()
	if h.ServeHTTP(w, short); w.Body.String() != textInvalid {
		t.Errorf("cut short: got %.200s", w.Body)
	}
	if h = batchHandler(let, Options{MaxBatchBody: large}); send(h, "POST", "/ehsm?Action=BatchSign", strings.NewReader(batchBody(good, large+1))).Body.String() != textTooLarge {
		t.Error("over a limit that was set: not refused")
	}
	if left := h.batches.left.Load(); left != maxBatchBodies {
		t.Errorf("%d bytes are left of %d", left, maxBatchBodies)
	}
}

// TestBatchBudget has bodies refused while others take all that there is for them.
func TestBatchBudget(t *testing.T) {
	let := make(chan struct{})
	h := batchHandler(let, Options{})
	good := fmt.Sprintf(`{"appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c","timestamp":"%d","payload":`, batchNow.UnixMilli())
	done := make(chan string)
	n := 0
	for ; h.batches.left.Load() > defaultMaxBatchBody; n++ {
		before := h.batches.left.Load()
		go func() {
			done <- send(h, "POST", "/ehsm?Action=BatchSign", strings.NewReader(batchBody(good, defaultMaxBatchBody))).Body.String()
		}()
		for h.batches.left.Load() > before-defaultMaxBatchBody+keptBody { // until it has what it needs
			select {
			case text := <-done:
				t.Fatalf("body %d: got %.200s", n+1, text)
			default:
			}
		}
	}
	w := send(h, "POST", "/ehsm?Action=BatchSign", strings.NewReader(batchBody(good, defaultMaxBatchBody)))
	if !strings.Contains(w.Body.String(), `"code":429`) {
		t.Errorf("over the budget: got %.200s", w.Body)
	}
	close(let)
	for range n {
		if text := <-done; text != "8388608" {
			t.Errorf("got %.200s", text)
		}
	}
	if left := h.batches.left.Load(); left != maxBatchBodies || n < 3 {
		t.Errorf("%d bytes are left of %d after %d bodies", left, maxBatchBodies, n)
	}
}

// FuzzPlausible looks at any first bytes. What it takes has the members in clear.
func FuzzPlausible(f *testing.F) {
	good := fmt.Sprintf(`{"appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c","timestamp":"%d","payload":`, batchNow.UnixMilli())
	for _, s := range []string{good, strings.ToUpper(good), good[1:], good[:40], `{"sealed":"`, `{"":"","":"`, "{", ""} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, head []byte) {
		if plausible(head, batchNow) && !bytes.Contains(head, []byte(`"sealed"`)) && (!bytes.Contains(head, []byte(`"appid"`)) || !bytes.Contains(head, []byte(`"timestamp"`))) {
			t.Errorf("%q is plausible", head)
		}
	})
}
