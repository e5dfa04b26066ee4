package ehsm

import (
	"context"
	"errors"
	"fmt"
	"time"
	"unicode/utf8"

	"github.com/ehsm-kms/ehsm/api"
)

// A SecretValue is the value of a secret: text of 1 to api.MaxSecretData UTF-16
// units. It formats as "secret" under every verb and refuses to be marshaled. The
// zero value is empty.
type SecretValue struct {
	get func() string // see APIKey
}

// NewSecretValue returns a value with this text.
func NewSecretValue(text string) SecretValue {
	return SecretValue{get: func() string { return text }}
}

// Expose returns the text.
func (v SecretValue) Expose() string {
	if v.get == nil {
		return ""
	}
	return v.get()
}

// Format implements fmt.Formatter.
func (v SecretValue) Format(f fmt.State, _ rune) { fmt.Fprint(f, "secret") }

// errMarshalValue is returned by every attempt to encode a SecretValue.
var errMarshalValue = errors.New("ehsm: the value of a secret must not be marshaled")

// MarshalText implements encoding.TextMarshaler, so that JSON and YAML encoders
// fail instead of printing.
func (v SecretValue) MarshalText() ([]byte, error) { return nil, errMarshalValue }

// MarshalBinary implements encoding.BinaryMarshaler, so that gob fails.
func (v SecretValue) MarshalBinary() ([]byte, error) { return nil, errMarshalValue }

// Secret is one version of a secret.
type Secret struct {
	Name    string
	Version int // from 1
	Created time.Time
	Value   SecretValue
}

// SecretOptions are what a new secret may have beside its value.
type SecretOptions struct {
	// KeyID is the symmetric key that encrypts all values of the secret; the
	// tenant's default key if it is "". Without that key the values are lost.
	KeyID string
	// Description has up to api.MaxSecretDescription UTF-16 units.
	Description string
	// RotationInterval is how often the owner means to change the value: 1 to 4
	// digits and d, h, m or s, from 6 to 8760 hours. Nothing rotates by itself.
	RotationInterval string
}

// checkText refuses what JSON cannot carry unchanged.
func checkText(action string, texts ...string) error {
	for _, s := range texts {
		if !utf8.ValidString(s) {
			return fmt.Errorf("%s: %w", action, ErrNotText)
		}
	}
	return nil
}

// change calls an action that changes a secret.
func (c *Client) change(ctx context.Context, action string, payload any, texts ...string) error {
	if err := checkText(action, texts...); err != nil {
		return err
	}
	return c.call(ctx, action, false, payload, &api.Empty{})
}

// CreateSecret makes a secret with its first version. Its name, any text of 1 to
// api.MaxSecretName UTF-16 units, is taken until the secret is gone;
// IsSecretExists then is true for the error.
func (c *Client) CreateSecret(ctx context.Context, name string, value SecretValue, o SecretOptions) error {
	return c.change(ctx, api.CreateSecret, api.CreateSecretRequest{
		SecretName: name, SecretData: value.Expose(), EncryptionKeyID: o.KeyID,
		Description: o.Description, RotationInterval: o.RotationInterval,
	}, name, value.Expose(), o.Description)
}

// PutSecretValue makes a new version of a secret, which is the current one then.
// Older ones stay readable.
func (c *Client) PutSecretValue(ctx context.Context, name string, value SecretValue) error {
	return c.change(ctx, api.PutSecretValue,
		api.PutSecretValueRequest{SecretName: name, SecretData: value.Expose()}, name, value.Expose())
}

// UpdateSecretDescription sets the description of a secret; "" clears it.
func (c *Client) UpdateSecretDescription(ctx context.Context, name, description string) error {
	return c.change(ctx, api.UpdateSecretDesc,
		api.UpdateSecretDescRequest{SecretName: name, Description: description}, name, description)
}

// DeleteSecret hides the value of a secret at once and plans the secret to be gone
// after a number of days, 1 to api.MaxRecoveryPeriod, 30 if it is 0. Until then
// RestoreSecret brings it back; a second DeleteSecret sets another date.
func (c *Client) DeleteSecret(ctx context.Context, name string, days int) error {
	if days < 0 {
		return fmt.Errorf("%s: recovery period is %d days, want at least 0", api.DeleteSecret, days)
	}
	return c.change(ctx, api.DeleteSecret, api.DeleteSecretRequest{SecretName: name, RecoveryPeriod: days}, name)
}

// DeleteSecretNow has a secret and all its versions be gone, for good.
func (c *Client) DeleteSecretNow(ctx context.Context, name string) error {
	return c.change(ctx, api.DeleteSecret, api.DeleteSecretRequest{SecretName: name, ForceDelete: true}, name)
}

// RestoreSecret takes a planned deletion back.
func (c *Client) RestoreSecret(ctx context.Context, name string) error {
	return c.change(ctx, api.RestoreSecret, api.SecretRequest{SecretName: name}, name)
}

// GetSecretValue returns a version of a secret, the current one if version is 0.
// It is ErrNoSecretVersion if there is no such version.
func (c *Client) GetSecretValue(ctx context.Context, name string, version int) (Secret, error) {
	if err := checkText(api.GetSecretValue, name); err != nil {
		return Secret{}, err
	}
	var res api.GetSecretValueResult
	err := c.call(ctx, api.GetSecretValue, true, api.GetSecretValueRequest{SecretName: name, VersionID: version}, &res)
	switch {
	case err != nil:
		return Secret{}, err
	case res == api.GetSecretValueResult{}:
		return Secret{}, fmt.Errorf("%s: %w", api.GetSecretValue, ErrNoSecretVersion)
	case res.SecretName != name || version != 0 && res.VersionID != version:
		return Secret{}, fmt.Errorf("%s: %w: it is of another secret or version", api.GetSecretValue, ErrReply)
	case res.SecretData == "" || res.VersionID == 0:
		return Secret{}, missing(api.GetSecretValue, "secretData or versionId")
	}
	return Secret{res.SecretName, res.VersionID, time.UnixMilli(res.CreateTime), NewSecretValue(res.SecretData)}, nil
}

// ListSecrets returns the secrets of the tenant, the oldest first, at most
// api.MaxSecrets, those to be deleted included. The host can leave secrets out.
func (c *Client) ListSecrets(ctx context.Context) ([]api.Secret, error) {
	var res api.ListSecretsResult
	err := c.call(ctx, api.ListSecrets, true, api.SecretRequest{}, &res)
	if err == nil && res.SecretList == nil {
		err = missing(api.ListSecrets, "secretList")
	}
	return res.SecretList, err
}

// DescribeSecret returns all about a secret but its value, also of one that is to
// be deleted. IsSecretNotFound is true for the error if there is none.
func (c *Client) DescribeSecret(ctx context.Context, name string) (api.DescribeSecretResult, error) {
	var res api.DescribeSecretResult
	err := checkText(api.DescribeSecret, name)
	if err == nil {
		err = c.call(ctx, api.DescribeSecret, true, api.SecretRequest{SecretName: name}, &res)
	}
	if err == nil && res.SecretName == "" {
		err = fmt.Errorf("%s: %w", api.DescribeSecret, ErrSecretNotFound)
	}
	return res, err
}

// ListSecretVersions returns the newest versions of a secret in their order, at
// most api.MaxSecrets. The host cannot leave any out. IsSecretNotFound is true
// for the error if there is no such secret, or it is to be deleted.
func (c *Client) ListSecretVersions(ctx context.Context, name string) ([]api.SecretVersion, error) {
	var res api.ListSecretVersionIDsResult
	err := checkText(api.ListSecretVersionIds, name)
	if err == nil {
		err = c.call(ctx, api.ListSecretVersionIds, true, api.SecretRequest{SecretName: name}, &res)
	}
	if err == nil && len(res.VersionIDs) == 0 {
		err = fmt.Errorf("%s: %w", api.ListSecretVersionIds, ErrSecretNotFound)
	}
	return res.VersionIDs, err
}
