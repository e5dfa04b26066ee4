package ehsm

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
)

// collateralPath is beside api.Path.
const collateralPath = "/attestation/collateral"

// Limits of the answers to what anybody may ask, in bytes.
const (
	maxCollateral = 4 << 20
	maxReason     = 512 // shown of an answer that is none
)

// ErrNoCollateral says that the service offers no collateral: it has no source,
// has not fetched it yet, or runs on a platform without SGX quotes.
var ErrNoCollateral = errors.New("service offers no collateral")

// Evidence asks the core for evidence over the challenge, 32 fresh random bytes,
// before anything secret is sent. No credentials are needed. Nothing of the
// answer is verified here; package attested does that.
func (c *Client) Evidence(ctx context.Context, challenge [api.EvidenceChallenge]byte) (api.GetEvidenceResult, error) {
	var res api.GetEvidenceResult
	query := "&" + api.ChallengeParam + "=" + base64.RawURLEncoding.EncodeToString(challenge[:])
	body, status, err := c.get(ctx, c.URL(api.GetEvidence)+query, maxReply)
	switch {
	case err != nil:
	case status != http.StatusOK:
		err = fmt.Errorf("%w: HTTP status %d", ErrReply, status)
	default:
		if err = refusal(body, true); err == nil {
			err = decode(body, &res)
		}
	}
	return res, c.explain(api.GetEvidence, err)
}

// Collateral asks the service for what its platform's maker says of the platform,
// as JSON. All of it is signed by that maker; nothing is verified here. Errors:
// ErrNoCollateral, with the reason that the service gives.
func (c *Client) Collateral(ctx context.Context) ([]byte, error) {
	body, status, err := c.get(ctx, strings.TrimSuffix(c.base, api.Path)+collateralPath, maxCollateral)
	if err != nil {
		return nil, fmt.Errorf("get collateral: %w", err)
	}
	if status != http.StatusOK {
		return nil, fmt.Errorf("get collateral: %w: HTTP status %d: %q", ErrNoCollateral, status, body[:min(len(body), maxReason)])
	}
	return body, nil
}

// get fetches a bounded body, whatever the status.
func (c *Client) get(ctx context.Context, url string, limit int) (body []byte, status int, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, 0, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, 0, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(io.LimitReader(resp.Body, int64(limit)+1))
	switch {
	case err != nil:
		return nil, 0, fmt.Errorf("read reply: %w", err)
	case len(body) > limit:
		return nil, 0, fmt.Errorf("%w: it is longer than %d bytes", ErrReply, limit)
	}
	return body, resp.StatusCode, nil
}
