package ehsm

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/ehsm-kms/ehsm/api"
)

// EnrollFinish sends the second request of attested enrollment and returns the reply
// as it came: what is in it is encrypted, and its recipient finds out whether it is
// genuine. Package attested makes the request. It is not sent twice.
func (c *Client) EnrollFinish(ctx context.Context, req api.EnrollFinishRequest) (res api.EnrollFinishResult, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	text, err := json.Marshal(req)
	if err != nil {
		return res, c.explain(api.EnrollFinish, err)
	}
	body, _, err := c.exchange(ctx, http.MethodPost, api.EnrollFinish, text)
	if err == nil {
		err = refusal(body, true)
	}
	if err == nil {
		err = decode(body, &res)
	}
	return res, c.explain(api.EnrollFinish, outcome(err, false))
}
