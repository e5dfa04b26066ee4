// Package rest is the native API at the edge: HTTP in, HTTP out, limits, and
// nothing else. It answers HTTP status 200 to everything on the API's path; the
// code is in the envelope, because existing clients read nothing else.
package rest

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
)

// A Relay executes requests. There is always a reply; an error beside it is for
// the log.
type Relay interface {
	Do(ctx context.Context, req relay.Request) (relay.Reply, error)
}

// Options adjust a Handler. The zero value is usable.
type Options struct {
	// MaxBody is the largest request body in bytes. Default 102400.
	MaxBody int
	// MaxBatchBody is the largest body of a batch in bytes, at most 8 MiB, which is the
	// default.
	MaxBatchBody int
	// Log takes one line per server error. Default: nothing is logged.
	Log *slog.Logger
	// Now is the clock that replies are held by. Default time.Now.
	Now func() time.Time
	// Observe is told of every request of the API: its action, as the client
	// wrote it, the code of the reply, and how long it took. Default: nobody is.
	Observe func(action string, code int, took time.Duration)
	// Metrics serves /metrics. Default: there is no such path.
	Metrics http.Handler
	// Collateral is that of this node's own platform. Default: there is none.
	Collateral Collateral
}

const defaultMaxBody = 100 << 10 // bytes; "100 kB" of the native API as existing servers count it

// A Handler serves /ehsm, /healthz, /readyz, /attestation/collateral and, if
// there are any, /metrics.
type Handler struct {
	relay        Relay
	collateral   Collateral // nil: none
	observe      func(action string, code int, took time.Duration)
	metrics      http.Handler // nil: none
	maxBody      int
	maxBatchBody int
	batches      budget
	log          *slog.Logger
	now          func() time.Time
	hold         *holder
	ready        *readiness
	bodies       sync.Pool // of *[]byte

	idPrefix string // differs between processes
	ids      atomic.Uint64
	header   fixedHeader
}

// fixedHeader holds header values that never change, so that a reply shares
// them.
type fixedHeader struct{ json, noStore []string }

// New returns a handler that serves requests by r. It is ready when all checks
// pass.
func New(r Relay, checks []Check, opts Options) *Handler {
	if opts.MaxBody <= 0 {
		opts.MaxBody = defaultMaxBody
	}
	if opts.MaxBatchBody <= 0 || opts.MaxBatchBody > defaultMaxBatchBody {
		opts.MaxBatchBody = defaultMaxBatchBody
	}
	if opts.Log == nil {
		opts.Log = slog.New(slog.DiscardHandler)
	}
	if opts.Now == nil {
		opts.Now = time.Now
	}
	h := &Handler{
		relay: r, collateral: opts.Collateral, observe: opts.Observe, metrics: opts.Metrics, maxBody: opts.MaxBody, maxBatchBody: opts.MaxBatchBody, log: opts.Log, now: opts.Now,
		hold: newHolder(opts.Now), ready: newReadiness(checks, opts.Log),
		idPrefix: rand.Text()[:8] + "-",
		header:   fixedHeader{json: []string{"application/json; charset=utf-8"}, noStore: []string{"no-store"}},
	}
	h.batches.left.Store(maxBatchBodies)
	return h
}

// ServeHTTP implements http.Handler.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case isAPI(r.URL.Path):
		h.serveAPI(w, r)
	case r.URL.Path == "/healthz":
		h.write(w, http.StatusOK, []byte(`{"status":"ok"}`), "")
	case r.URL.Path == "/readyz":
		status, body := h.ready.check(r.Context())
		h.write(w, status, body, "")
	case r.URL.Path == collateralPath:
		h.serveCollateral(w, r)
	case r.URL.Path == "/metrics" && h.metrics != nil:
		h.metrics.ServeHTTP(w, r)
	default:
		h.write(w, http.StatusNotFound, notFound, "")
	}
}

// isAPI reports whether path is /ehsm or /ehsm/ in any letter case. ASCII only:
// Unicode folding would take U+017F for an s.
func isAPI(path string) bool {
	path = strings.TrimSuffix(path, "/")
	if len(path) != len("/ehsm") || path[0] != '/' {
		return false
	}
	for i := 1; i < len(path); i++ {
		if path[i]|0x20 != "/ehsm"[i] {
			return false
		}
	}
	return true
}

// serveAPI answers one request of the API.
func (h *Handler) serveAPI(w http.ResponseWriter, r *http.Request) {
	req := relay.Request{ID: h.newID(), Action: actionOf(r), Get: r.Method == http.MethodGet}
	began, code := time.Now(), http.StatusInternalServerError
	defer func() {
		if p := recover(); p != nil {
			h.log.ErrorContext(r.Context(), "request panicked", "request", req.ID, "panic", fmt.Sprint(p), "stack", string(debug.Stack()))
			h.write(w, http.StatusOK, relay.Internal().Body, "")
		}
		if h.observe != nil {
			h.observe(req.Action, code, time.Since(began))
		}
	}()
	buf := h.buffer()
	defer h.release(buf)
	taken := 0
	defer func() { h.batches.giveBack(taken) }()
	if refusal := h.read(r, &req, buf, &taken); refusal != nil {
		if code = http.StatusBadRequest; bytes.Equal(refusal, busy) {
			code = http.StatusTooManyRequests
		}
		h.write(w, http.StatusOK, refusal, "")
		return
	}
	reply, err := h.relay.Do(r.Context(), req)
	h.logError(r.Context(), &req, &reply, err)
	if reply.Release != 0 {
		h.hold.wait(reply.Release)
	}
	if reply.Code == http.StatusTooManyRequests {
		tarry(r.Context())
	}
	h.write(w, http.StatusOK, reply.Body, reply.Sign)
	code = reply.Code
}

// busyHold is how long a reply that says too many is held. A client that asks again at
// once would take as much of the processors by being refused as by being served.
const busyHold = 20 * time.Millisecond

// tarry waits for busyHold, or until the client has gone.
func tarry(ctx context.Context) {
	t := time.NewTimer(busyHold)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// actionOf returns the value of the query parameter Action.
func actionOf(r *http.Request) string {
	if v, ok := strings.CutPrefix(r.URL.RawQuery, "Action="); ok && !strings.ContainsAny(v, "&;%+") {
		return v
	}
	return r.URL.Query().Get("Action")
}

// read takes in the body, or returns the reply to a request that needs no core.
// Three actions are served to GET without a body, and to no other request.
func (h *Handler) read(r *http.Request, req *relay.Request, buf *[]byte, taken *int) (refusal []byte) {
	open := req.Action == "Enroll" || req.Action == "GetVersion" || req.Action == "GetEvidence"
	switch {
	case open && req.Get:
		if req.Action == "GetEvidence" {
			req.Body = challenge(r)
		}
		return nil
	case open, !req.Get && r.Method != http.MethodPost:
		return notFound
	}
	if r.ContentLength > int64(h.maxBody) && !req.Get && api.IsBatch(req.Action) {
		req.Body, refusal = h.readBatch(r, buf, taken)
		return refusal
	}
	body, err := readBody(r, h.maxBody, buf)
	switch {
	case errors.Is(err, errTooLarge):
		return tooLarge
	case err != nil:
		return invalidJSON // what has come of it is no JSON text
	case req.Get && len(body) == 0:
		return missing
	}
	req.Body = body
	return nil
}

// maxChallengeText is the longest challenge that is passed on: the core wants 43
// characters and has a text for everything else.
const maxChallengeText = 64

// challenge returns the query parameter of GetEvidence, as it came.
func challenge(r *http.Request) []byte {
	text := r.URL.Query().Get(api.ChallengeParam)
	return []byte(text[:min(len(text), maxChallengeText)])
}

// newID returns a request id that no other request of any process has.
func (h *Handler) newID() string {
	var room [8 + 1 + 13]byte
	return string(strconv.AppendUint(append(room[:0], h.idPrefix...), h.ids.Add(1), 36))
}

// logError writes the line about a request that failed on this side. Codes
// below 500 are the client's affair, and so is a client that has gone.
func (h *Handler) logError(ctx context.Context, req *relay.Request, reply *relay.Reply, err error) {
	switch {
	case err != nil && ctx.Err() != nil && errors.Is(err, ctx.Err()):
	case err != nil:
		h.log.ErrorContext(ctx, "request failed", "request", req.ID, "action", clip(req.Action), "code", reply.Code, "err", err)
	case reply.Code >= 500:
		h.log.WarnContext(ctx, "core answered an error", "request", req.ID, "action", clip(req.Action), "code", reply.Code)
	}
}

// clip shortens what a client has chosen.
func clip(s string) string { return s[:min(len(s), 64)] }

// write sends a reply. Errors are the connection's: nobody is left to tell.
func (h *Handler) write(w http.ResponseWriter, status int, body []byte, sign string) {
	header := w.Header()
	header["Content-Type"] = h.header.json
	header["Cache-Control"] = h.header.noStore // replies carry secrets
	if sign != "" {
		header["Ehsm-Reply-Signature"] = []string{sign}
	}
	if len(body) > 2000 { // net/http counts shorter ones itself
		header["Content-Length"] = []string{strconv.Itoa(len(body))}
	}
	w.WriteHeader(status)
	w.Write(body)
}
