package e2e

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"
)

// Texts of the contract that many tests expect.
const (
	textSuccess    = "success!"
	textSuccessful = "successful"
	textMissing    = "Missing required parameters"
	textSign       = "sign error"
	textReplay     = "Timestamp can't be repeated in 20 minutes"
	textKeyID      = "keyid error"
	textServer     = "Server exception."
	textNotFound   = "API Not Found"
	textDecryption = "Decryption failed, Please confirm that your parameters are correct."
)

// A reply is an envelope that has been found well-formed.
type reply struct {
	Code    int
	Message string
	Result  fields

	action    string
	signature string // header Ehsm-Reply-Signature
	body      []byte
}

// parseReply checks what section 2.3 of the contract demands of every reply.
func parseReply(resp *http.Response, body []byte) (reply, error) {
	r := reply{signature: resp.Header.Get("Ehsm-Reply-Signature"), body: body}
	var members map[string]json.RawMessage
	if resp.StatusCode != http.StatusOK {
		return r, fmt.Errorf("got HTTP status %d, want 200: %.300s", resp.StatusCode, body)
	}
	if err := json.Unmarshal(body, &members); err != nil {
		return r, fmt.Errorf("reply is no JSON object: %w: %.300q", err, body)
	}
	if err := errors.Join(json.Unmarshal(members["code"], &r.Code), json.Unmarshal(members["message"], &r.Message),
		json.Unmarshal(members["result"], &r.Result)); err != nil {
		return r, fmt.Errorf("reply is no envelope: %w: %.300q", err, body)
	}
	lower := strings.ToLower(r.Message)
	switch {
	case r.Result == nil || r.Message == "":
		return r, fmt.Errorf("reply without result or message: %.300q", body)
	case r.Code != 200 && string(members["result"]) != "{}":
		return r, fmt.Errorf("error with a result: %.300q", body)
	case r.Code == 200 && !strings.Contains(lower, "success") && !strings.Contains(lower, "will be deleted after"):
		return r, fmt.Errorf("success whose message says otherwise: %.300q", body)
	}
	return r, nil
}

// send makes one HTTP request with a body, or without if body is nil.
func (g *target) send(ctx context.Context, method, path string, body []byte) (reply, error) {
	var r io.Reader
	if body != nil {
		r = strings.NewReader(string(body))
	}
	req, err := http.NewRequestWithContext(ctx, method, g.base()+path, r)
	if err != nil {
		return reply{}, err
	}
	req.Header.Set("Content-Type", "application/json")
	return g.roundTrip(req)
}

// roundTrip sends a request as it is.
func (g *target) roundTrip(req *http.Request) (reply, error) {
	resp, err := g.http.Do(req)
	if err != nil {
		return reply{}, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		return reply{}, fmt.Errorf("read the reply: %w", err)
	}
	return parseReply(resp, text)
}

// must is send for tests that cannot go on without a reply.
func (g *target) must(t testing.TB, method, path string, body []byte) reply {
	t.Helper()
	r, err := g.send(context.Background(), method, path, body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return r
}

// A tenant is an enrolled app and a client of it.
type tenant struct {
	*target
	appid, apikey string
}

func (g *target) enroll(t testing.TB) *tenant {
	t.Helper()
	r := g.must(t, http.MethodGet, "/ehsm?Action=Enroll", nil)
	want(t, r, 200, textSuccessful)
	c := &tenant{target: g, appid: r.text(t, "appid"), apikey: r.text(t, "apikey")}
	g.secret(c.apikey)
	return c
}

// A request is one request in the making; a test may change any part of it
// before or after it is signed.
type request struct {
	envelope  fields // appid, timestamp, nonce; sign after signing
	payload   string // JSON text, "" for none
	canonical string // of the payload, as it is signed
	text      string // what was signed
}

// stamp is a time as requests carry it.
func stamp(t time.Time) string { return strconv.FormatInt(t.UnixMilli(), 10) }

// unsigned returns a request with a random nonce and the time of now. A nil
// payload is none.
func (c *tenant) unsigned(payload fields) *request {
	q := c.raw("", "")
	if payload != nil {
		q.payload, q.canonical = jsonText(payload), canonical(payload, form{})
	}
	return q
}

// raw is unsigned with the payload and its canonical string given as texts.
func (c *tenant) raw(payload, text string) *request {
	return &request{
		envelope: fields{"appid": c.appid, "timestamp": stamp(time.Now()), "nonce": strconv.FormatUint(rand.Uint64(), 10)},
		payload:  payload, canonical: text,
	}
}

// at sets the timestamp.
func (q *request) at(t time.Time) *request { q.envelope["timestamp"] = stamp(t); return q }

// bare drops the nonce, as the Go and Python clients do.
func (q *request) bare() *request { delete(q.envelope, "nonce"); return q }

// signed signs what the request now is.
func (q *request) signed(apikey string) *request {
	parts := []string{"appid=" + q.envelope["appid"].(string)}
	if nonce, ok := q.envelope["nonce"].(string); ok && nonce != "" {
		parts = append(parts, "nonce="+nonce)
	}
	if q.payload != "" {
		parts = append(parts, "payload="+q.canonical)
	}
	q.text = strings.Join(append(parts, "timestamp="+q.envelope["timestamp"].(string)), "&")
	q.envelope["sign"] = sign(apikey, q.text)
	return q
}

// body is the request as it is sent.
func (q *request) body() []byte {
	if q.payload == "" {
		return []byte(jsonText(q.envelope))
	}
	return []byte(strings.TrimSuffix(jsonText(q.envelope), "}") + `,"payload":` + q.payload + `}`)
}

// do sends a signed request and checks the signature of the reply.
func (c *tenant) do(ctx context.Context, action string, q *request) (reply, error) {
	r, err := c.send(ctx, http.MethodPost, "/ehsm?Action="+action, q.body())
	if err != nil {
		return r, fmt.Errorf("%s: %w", action, err)
	}
	r.action = action
	if r.signature == "" {
		if r.Code == 200 {
			return r, fmt.Errorf("%s: success without a reply signature", action)
		}
		return r, nil
	}
	if sent, ok := q.envelope["sign"].(string); ok && r.signature != replySignature(c.apikey, sent, action, r.body) {
		return r, fmt.Errorf("%s: reply signature does not verify: %s", action, r.body)
	}
	return r, nil
}

// try signs and sends a payload; nil is none.
func (c *tenant) try(ctx context.Context, action string, payload fields) (reply, error) {
	return c.do(ctx, action, c.unsigned(payload).signed(c.apikey))
}

// call is try for tests that cannot go on without a reply.
func (c *tenant) call(t testing.TB, action string, payload fields) reply {
	t.Helper()
	r, err := c.try(context.Background(), action, payload)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// deliver is do for tests that cannot go on without a reply.
func (c *tenant) deliver(t testing.TB, action string, q *request) reply {
	t.Helper()
	r, err := c.do(context.Background(), action, q)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// want checks code and message of a reply.
func want(t testing.TB, r reply, code int, message string) {
	t.Helper()
	if r.Code != code || r.Message != message {
		t.Errorf("%s: got %d %q, want %d %q", r.action, r.Code, r.Message, code, message)
	}
}

// text returns a member of the result that must be a text.
func (r reply) text(t testing.TB, name string) string {
	t.Helper()
	s, ok := r.Result[name].(string)
	if !ok {
		t.Fatalf("%s: result has no text %q: %s", r.action, name, r.body)
	}
	return s
}

// bytes returns a member of the result that must be base64.
func (r reply) bytes(t testing.TB, name string) []byte {
	t.Helper()
	b, err := base64.StdEncoding.Strict().DecodeString(r.text(t, name))
	if err != nil {
		t.Fatalf("%s: %s is no base64: %v", r.action, name, err)
	}
	return b
}

// integer returns a member of the result that must be an integer.
func (r reply) integer(t testing.TB, name string) int64 {
	t.Helper()
	f, ok := r.Result[name].(float64)
	if !ok || f != float64(int64(f)) {
		t.Fatalf("%s: result has no integer %q: %s", r.action, name, r.body)
	}
	return int64(f)
}

// with returns f with other members set.
func (f fields) with(more fields) fields {
	f = maps.Clone(f)
	maps.Copy(f, more)
	return f
}

// without returns f less one member.
func (f fields) without(name string) fields {
	f = maps.Clone(f)
	delete(f, name)
	return f
}

func b64(b []byte) string { return base64.StdEncoding.EncodeToString(b) }

// Usages and the origin that most tests take.
const (
	encryptDecrypt = "EH_KEYUSAGE_ENCRYPT_DECRYPT"
	signVerify     = "EH_KEYUSAGE_SIGN_VERIFY"
	internalKey    = "EH_INTERNAL_KEY"
	externalKey    = "EH_EXTERNAL_KEY"
)

// create makes a key.
func (c *tenant) create(t testing.TB, spec, usage string) string {
	t.Helper()
	r := c.call(t, "CreateKey", fields{"keyspec": spec, "origin": internalKey, "keyusage": usage})
	want(t, r, 200, textSuccess)
	return r.text(t, "keyid")
}

func (c *tenant) createAES(t testing.TB) string {
	t.Helper()
	return c.create(t, "EH_AES_GCM_256", encryptDecrypt)
}
