package e2e

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// timeLines are about the window, replays and fast clients.
func timeLines() []line {
	return []line{
		{"9-window", testWindow},
		{"10-same-bytes-twice", testReplay},
		{"10-same-bytes-at-once", testReplayAtOnce},
		{"11-identical-requests-in-a-row", testFastClient},
		{"11-reply-is-not-delayed", testNoDelay},
		{"12-same-timestamp", testSameTimestamp},
		{"41-body-for-another-action", testOtherAction},
	}
}

func testWindow(t *testing.T, g *target) {
	c := g.enroll(t)
	for _, row := range []struct {
		off     time.Duration
		message string
	}{
		{22 * time.Minute, "Timestamp error"}, {-22 * time.Minute, "Timestamp error"},
		{10*time.Minute + 5*time.Second, "Timestamp error"}, {-10*time.Minute - time.Second, "Timestamp error"},
		{365 * 24 * time.Hour, "Timestamp error"}, {-365 * 24 * time.Hour, "Timestamp error"},
		{9 * time.Minute, ""}, {-9 * time.Minute, ""}, {9*time.Minute + 50*time.Second, ""}, {-9*time.Minute - 50*time.Second, ""},
	} {
		r := c.deliver(t, "ListKey", c.unsigned(nil).at(time.Now().Add(row.off)).signed(c.apikey))
		r.action = row.off.String()
		if row.message == "" {
			want(t, r, 200, textSuccessful)
		} else {
			want(t, r, 400, row.message)
		}
	}
	for stamp, message := range map[string]string{
		"170000000000": "Timestamp length error", "17000000000000": "Timestamp length error",
		"9999999999999": "Timestamp error", "0000000000000": "Timestamp error", "１７００００００００": "Timestamp length error",
	} {
		q := c.unsigned(nil)
		q.envelope["timestamp"] = stamp
		want(t, c.deliver(t, "ListKey", q.signed(c.apikey)), 400, message)
	}
}

// testReplay: what counts is the signed content, once it has been verified.
func testReplay(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	for name, again := range map[string]func(q *request) (action string, body []byte){
		"same bytes":     func(q *request) (string, []byte) { return "Encrypt", q.body() },
		"another action": func(q *request) (string, []byte) { return "GenerateDataKey", q.body() },
		"unknown action": func(q *request) (string, []byte) { return "Nonsense", q.body() },
		"DisableKey":     func(q *request) (string, []byte) { return "DisableKey", q.body() },
		"white space":    func(q *request) (string, []byte) { return "Encrypt", append([]byte(" \n"), q.body()...) },
		"member unsigned": func(q *request) (string, []byte) {
			q.envelope["zz"] = "x"
			return "Encrypt", q.body()
		},
		"skipped member": func(q *request) (string, []byte) {
			q.payload = `{"aad":null,` + q.payload[1:]
			return "Encrypt", q.body()
		},
		"escapes": func(q *request) (string, []byte) {
			return "Encrypt", []byte(strings.Replace(string(q.body()), "AAAA", `\u0041AAA`, 1))
		},
		"other order": func(q *request) (string, []byte) {
			return "Encrypt", []byte(`{"payload":` + q.payload + `,` + strings.TrimPrefix(jsonText(q.envelope), "{"))
		},
	} {
		q := c.unsigned(fields{"keyid": key, "plaintext": "AAAA"}).signed(c.apikey)
		want(t, c.deliver(t, "Encrypt", q), 200, textSuccess)
		action, body := again(q)
		r := g.must(t, http.MethodPost, "/ehsm?Action="+action, body)
		r.action = name
		want(t, r, 400, textReplay)
	}
	// A wrong signature leaves nothing behind, whatever it came with.
	q := c.unsigned(fields{"keyid": key, "plaintext": "AAAA"}).signed(c.apikey)
	good := q.envelope["sign"]
	for _, bad := range []string{sign("x", q.text), unusedBits(good.(string)), strings.ToUpper(good.(string))} {
		q.envelope["sign"] = bad
		if bad != good {
			want(t, c.deliver(t, "Encrypt", q), 400, textSign)
		}
	}
	q.envelope["sign"] = good
	want(t, c.deliver(t, "Encrypt", q), 200, textSuccess)
	// A refused request is used up too.
	q = c.unsigned(fields{"keyid": key, "ciphertext": "AAAA"}).signed(c.apikey)
	want(t, c.deliver(t, "Decrypt", q), 400, textDecryption)
	want(t, c.deliver(t, "Decrypt", q), 400, textReplay)
	// The same content of another tenant is another request.
	other := g.enroll(t)
	now := time.Now()
	for _, who := range []*tenant{c, other} {
		want(t, who.deliver(t, "ListKey", who.unsigned(nil).bare().at(now).signed(who.apikey)), 200, textSuccessful)
	}
}

// testReplayAtOnce sends the same bytes many times at once: one is served.
func testReplayAtOnce(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	for _, row := range []struct {
		action  string
		payload fields
	}{
		{"Encrypt", fields{"keyid": key, "plaintext": "AAAA"}},
		{"CreateKey", fields{"keyspec": "EH_AES_GCM_128", "origin": internalKey, "keyusage": encryptDecrypt}},
	} {
		q := c.unsigned(row.payload).signed(c.apikey)
		replies := inParallel(t, 20, func(ctx context.Context, _ int) (reply, error) { return c.do(ctx, row.action, q) })
		served := 0
		for _, r := range replies {
			if r.Code == 200 {
				served++
			} else {
				want(t, r, 400, textReplay)
			}
		}
		if served != 1 {
			t.Errorf("%s: %d of 20 equal requests were served, want 1", row.action, served)
		}
	}
}

// inParallel calls f n times, up to 20 of them at once.
func inParallel(t *testing.T, n int, f func(ctx context.Context, i int) (reply, error)) []reply {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	replies, errs, slots := make([]reply, n), make([]error, n), make(chan struct{}, 20)
	var wg sync.WaitGroup
	for i := range n {
		wg.Go(func() {
			slots <- struct{}{}
			replies[i], errs[i] = f(ctx, i)
			<-slots
		})
	}
	wg.Wait()
	for i, err := range errs {
		if err != nil {
			t.Fatalf("request %d: %v", i, err)
		}
	}
	return replies
}

// testFastClient has a client without nonce that sends one request again and
// again, each signed after the reply to the one before.
func testFastClient(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	payload := fields{"keyid": key, "plaintext": "AAAA"}
	for i := range 1000 {
		r := c.deliver(t, "Encrypt", c.unsigned(payload).bare().signed(c.apikey))
		if want(t, r, 200, textSuccess); t.Failed() {
			t.Fatalf("request %d of 1000", i+1)
		}
	}
}

// testNoDelay: the reply to a request from the future does not wait for it. The
// bound of 2 ms is tested with a fake clock elsewhere; here the median leaves
// room for a busy machine.
func testNoDelay(t *testing.T, g *target) {
	c := g.enroll(t)
	var took []time.Duration
	for i := range 21 {
		q := c.unsigned(nil).bare().at(time.Now().Add(9*time.Minute + time.Duration(i)*time.Millisecond)).signed(c.apikey)
		start := time.Now()
		want(t, c.deliver(t, "ListKey", q), 200, textSuccessful)
		took = append(took, time.Since(start))
	}
	slices.Sort(took)
	if took[10] > 200*time.Millisecond {
		t.Errorf("replies to requests 9 minutes ahead took %s", took)
	}
}

func testSameTimestamp(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	now := time.Now()
	replies := inParallel(t, 200, func(ctx context.Context, i int) (reply, error) {
		payload := fields{"keyid": key, "plaintext": b64([]byte(strconv.Itoa(i)))}
		return c.do(ctx, "Encrypt", c.unsigned(payload).bare().at(now).signed(c.apikey))
	})
	for _, r := range replies {
		want(t, r, 200, textSuccess)
	}
}

// testOtherAction: a signed body is usable once, for one action. The captured
// request need not have succeeded as what it was meant for.
func testOtherAction(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	keyed := fields{"keyid": key}
	for _, row := range []struct {
		first   string
		payload fields
		code    int
		then    string
	}{
		{"ListKey", nil, 200, "DeleteAllKey"}, {"ListKey", nil, 200, "DeleteALLKey"}, {"ListKey", fields{}, 200, "DeleteAllKey"},
		{"EnableKey", keyed, 200, "DeleteKey"}, {"EnableKey", keyed, 200, "DisableKey"}, {"Nonsense", keyed, 404, "DeleteKey"},
		{"Encrypt", keyed, 400, "DeleteKey"}, {"Nonsense", nil, 404, "DeleteAllKey"},
	} {
		q := c.unsigned(row.payload).signed(c.apikey)
		if r := c.deliver(t, row.first, q); r.Code != row.code {
			t.Errorf("%s: got %s", row.first, r.body)
		}
		r := c.deliver(t, row.then, q)
		r.action = fmt.Sprintf("%s sent as %s", row.first, row.then)
		want(t, r, 400, textReplay)
	}
	if !c.hasKey(t, key) {
		t.Error("the key is gone")
	}
	want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}), 200, textSuccess)
}
