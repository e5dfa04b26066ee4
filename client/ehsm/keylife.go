package ehsm

import (
	"context"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/api"
)

// RotateKey gives a key new material, a version that protects new data from now on,
// and returns its number. What older versions have protected is still read: Decrypt
// and Verify find the version. Keys of imported material have none but the first.
func (c *Client) RotateKey(ctx context.Context, keyID string) (version uint32, err error) {
	var res api.RotateKeyResult
	err = c.call(ctx, api.RotateKey, false, api.KeyRequest{KeyID: keyID}, &res)
	if err == nil && res.KeyVersion == 0 {
		err = missing(api.RotateKey, "keyversion")
	}
	return res.KeyVersion, err
}

// KeyVersions returns all versions of a key, the oldest first.
func (c *Client) KeyVersions(ctx context.Context, keyID string) ([]api.KeyVersion, error) {
	var res api.ListKeyVersionsResult
	err := c.call(ctx, api.ListKeyVersions, true, api.KeyRequest{KeyID: keyID}, &res)
	if err == nil && res.Versions == nil {
		err = missing(api.ListKeyVersions, "versions")
	}
	return res.Versions, err
}

// DisableKeyVersion has nothing processed with an old version until
// EnableKeyVersion. The primary version is none.
func (c *Client) DisableKeyVersion(ctx context.Context, keyID string, version uint32) error {
	return c.call(ctx, api.DisableKeyVersion, false, api.KeyVersionRequest{KeyID: keyID, KeyVersion: version}, &api.Empty{})
}

// EnableKeyVersion undoes DisableKeyVersion and ScheduleKeyVersionDeletion.
func (c *Client) EnableKeyVersion(ctx context.Context, keyID string, version uint32) error {
	return c.call(ctx, api.EnableKeyVersion, false, api.KeyVersionRequest{KeyID: keyID, KeyVersion: version}, &api.Empty{})
}

// ScheduleKeyVersionDeletion makes an old version unusable and returns when its
// material is destroyed: after so many days, 1 to api.MaxDeletionDays, or those of
// the domain with 0, or at once with Immediately.
func (c *Client) ScheduleKeyVersionDeletion(ctx context.Context, keyID string, version uint32, days int) (time.Time, error) {
	return c.scheduleDeletion(ctx, api.ScheduleKeyVersionDeletion, api.ScheduleDeletionRequest{KeyID: keyID, KeyVersion: version}, days)
}

// Immediately is the number of days after which something deleted is destroyed at
// the next opportunity.
const Immediately = -1

// ScheduleKeyDeletion makes a key unusable and returns when its material is
// destroyed, with days as of ScheduleKeyVersionDeletion. Until then CancelKeyDeletion
// gives it back.
func (c *Client) ScheduleKeyDeletion(ctx context.Context, keyID string, days int) (time.Time, error) {
	return c.scheduleDeletion(ctx, api.ScheduleKeyDeletion, api.ScheduleDeletionRequest{KeyID: keyID}, days)
}

func (c *Client) scheduleDeletion(ctx context.Context, action string, req api.ScheduleDeletionRequest, days int) (time.Time, error) {
	switch {
	case days == Immediately:
		req.Immediately = true
	case days < 0 || days > api.MaxDeletionDays:
		return time.Time{}, fmt.Errorf("%s: %d days, want at most %d", action, days, api.MaxDeletionDays)
	default:
		req.Days = days
	}
	var res api.ScheduleDeletionResult
	err := c.call(ctx, action, false, req, &res)
	if err == nil && res.DeletionDate == 0 {
		err = missing(action, "deletionDate")
	}
	return time.UnixMilli(res.DeletionDate).UTC(), err
}

// CancelKeyDeletion gives a deleted key back, as it was, if its material has not
// been destroyed.
func (c *Client) CancelKeyDeletion(ctx context.Context, keyID string) error {
	return c.call(ctx, api.CancelKeyDeletion, false, api.KeyRequest{KeyID: keyID}, &api.Empty{})
}

// DescribeKey returns all there is to know of a key, also of a deleted one that can
// be had back.
func (c *Client) DescribeKey(ctx context.Context, keyID string) (api.KeyDescription, error) {
	var res api.KeyDescription
	err := c.call(ctx, api.DescribeKey, true, api.KeyRequest{KeyID: keyID}, &res)
	if err == nil && res.KeyID != keyID {
		err = fmt.Errorf("%s: %w: got key %q, want %q", api.DescribeKey, ErrReply, res.KeyID, keyID)
	}
	return res, err
}

// UpdateKey changes what the request has. Values of tags are not empty: the canonical
// string, which the signature covers, does not show what is empty.
func (c *Client) UpdateKey(ctx context.Context, req api.UpdateKeyRequest) error {
	for name, value := range req.Tags {
		if name == "" || value == "" {
			return fmt.Errorf("%s: tag %q has an empty name or value", api.UpdateKey, name)
		}
	}
	return c.call(ctx, api.UpdateKey, false, req, &api.Empty{})
}
