package ehsm

import (
	"context"

	"github.com/ehsm-kms/ehsm/api"
)

// EnrollFinish sends the second request of attested enrollment and returns the reply
// as it came: what is in it is encrypted, and its recipient finds out whether it is
// genuine. Package attested makes the request. It is not sent twice.
func (c *Client) EnrollFinish(ctx context.Context, req api.EnrollFinishRequest) (res api.EnrollFinishResult, err error) {
	err = c.post(ctx, api.EnrollFinish, req, &res)
	return res, err
}
