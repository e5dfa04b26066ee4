package rest

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
)

// collateralPath is where clients without a way to Intel find what verifies the
// evidence of this node.
const collateralPath = "/attestation/collateral"

// A Collateral is what Intel says of this node's own platform; *collateral.Own.
type Collateral interface {
	// JSON returns the collateral, which is not written to, and until when all of
	// it is in force. The text of errors that wrap collateral.ErrNoEvidence or
	// collateral.ErrNoSource is for everybody.
	JSON(ctx context.Context) (body []byte, expires time.Time, err error)
}

const (
	maxCollateralAge  = time.Hour // for which others may keep an answer
	collateralRetry   = 30        // seconds, until it may have been fetched
	collateralTimeout = 10 * time.Second
)

// serveCollateral answers with HTTP status 200, and with 404 where there is none
// or 503 where there is none yet.
func (h *Handler) serveCollateral(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		w.Header().Set("Allow", "GET, HEAD")
		h.write(w, http.StatusMethodNotAllowed, notFound, "")
		return
	}
	err := collateral.ErrNoSource
	if h.collateral != nil {
		ctx, cancel := context.WithTimeout(r.Context(), collateralTimeout)
		defer cancel()
		var body []byte
		var expires time.Time
		if body, expires, err = h.collateral.JSON(ctx); err == nil {
			h.writeCollateral(w, r, body, expires)
			return
		}
	}
	status := http.StatusNotFound
	if !errors.Is(err, collateral.ErrNoSource) && !errors.Is(err, collateral.ErrNoEvidence) {
		if !errors.Is(err, collateral.ErrNotYet) {
			h.log.ErrorContext(r.Context(), "this node's collateral cannot be served", "err", err)
		}
		status, err = http.StatusServiceUnavailable, collateral.ErrNotYet
		w.Header().Set("Retry-After", strconv.Itoa(collateralRetry))
	}
	message, _ := json.Marshal(err.Error()) // cannot fail: a string
	h.write(w, status, fmt.Appendf(nil, `{"code":%d,"message":%s,"result":{}}`, status, message), "")
}

// writeCollateral sends what is public and signed, so that caches may keep it.
func (h *Handler) writeCollateral(w http.ResponseWriter, r *http.Request, body []byte, expires time.Time) {
	age := max(0, min(expires.Sub(h.now()), maxCollateralAge))
	sum := sha256.Sum256(body)
	header := w.Header()
	header["Content-Type"] = h.header.json
	header.Set("Cache-Control", fmt.Sprintf("public, max-age=%d", int(age.Seconds())))
	header.Set("ETag", `"`+hex.EncodeToString(sum[:16])+`"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(body))
}

// QuoteFrom returns a function that asks the core behind r for evidence, as any
// stranger may, for collateral.NewOwn.
func QuoteFrom(r Relay) func(context.Context) ([]byte, error) {
	return func(ctx context.Context) ([]byte, error) {
		challenge := make([]byte, api.EvidenceChallenge)
		rand.Read(challenge) // never fails
		reply, err := r.Do(ctx, relay.Request{
			ID: "own-" + rand.Text(), Action: api.GetEvidence, Get: true,
			Body: []byte(base64.RawURLEncoding.EncodeToString(challenge)),
		})
		if err != nil {
			return nil, fmt.Errorf("ask the core for evidence: %w", err)
		}
		return collateral.QuoteIn(reply.Body)
	}
}
