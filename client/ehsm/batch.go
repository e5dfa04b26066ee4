package ehsm

import (
	"cmp"
	"context"
	"fmt"

	"github.com/ehsm-kms/ehsm/api"
)

// A BatchItem is what became of one item of a batch: a value, or why there is none.
// Err is an *api.Error as the action on one item would have given, so that
// IsDecryptionFailed and the like tell what it is.
type BatchItem[T any] struct {
	Value T
	Err   error
}

// BatchAAD is the additional data of the items of a batch: All, or Each its own, nil for
// none. At most one of the two is set. Each may be shorter than the items.
type BatchAAD struct {
	All  []byte
	Each [][]byte
}

// BatchEncrypt is Encrypt of 1 to api.MaxBatch plaintexts in one request, or with an RSA
// or SM2 key AsymmetricEncrypt with api.OAEP. The error is about the request: the items
// have their own.
func (c *Client) BatchEncrypt(ctx context.Context, keyID string, plaintexts [][]byte, aad BatchAAD) ([]BatchItem[[]byte], error) {
	var res api.BatchEncryptResult
	q := api.BatchEncryptRequest{KeyID: keyID, Plaintexts: plaintexts, AAD: aad.All, AADs: aad.Each, PaddingMode: api.OAEP}
	if err := c.batch(ctx, api.BatchEncrypt, plaintexts, q, &res); err != nil {
		return nil, err
	}
	return texts(api.BatchEncrypt, len(plaintexts), res.Ciphertexts, res.Failures)
}

// BatchDecrypt is Decrypt of 1 to api.MaxBatch ciphertexts in one request, or with an
// RSA or SM2 key AsymmetricDecrypt; without a padding it is api.OAEP. The caller may zero
// the plaintexts.
func (c *Client) BatchDecrypt(ctx context.Context, keyID string, ciphertexts [][]byte, aad BatchAAD, padding api.PaddingMode) ([]BatchItem[[]byte], error) {
	var res api.BatchDecryptResult
	q := api.BatchDecryptRequest{KeyID: keyID, Ciphertexts: ciphertexts, AAD: aad.All, AADs: aad.Each, PaddingMode: cmp.Or(padding, api.OAEP)}
	if err := c.batch(ctx, api.BatchDecrypt, ciphertexts, q, &res); err != nil {
		return nil, err
	}
	return texts(api.BatchDecrypt, len(ciphertexts), res.Plaintexts, res.Failures)
}

// A ReEncryption says what is to be encrypted anew, and how. Keys are symmetric.
type ReEncryption struct {
	From string // id of the key that the ciphertexts are encrypted under
	To   string // id of the key to encrypt under; "": the primary version of From
	// AAD is the additional data as of now, NewAAD that from now on. Where an item has
	// none that is new it keeps what it has.
	AAD, NewAAD BatchAAD
}

// ReEncrypt has the core decrypt a ciphertext and encrypt the plaintext, which does not
// leave it, under another key or the primary version of the same one. Additional data is
// All of r.AAD and of r.NewAAD.
func (c *Client) ReEncrypt(ctx context.Context, r ReEncryption, ciphertext []byte) ([]byte, error) {
	var res api.EncryptResult
	err := c.call(ctx, api.ReEncrypt, true, api.ReEncryptRequest{
		KeyID: r.From, Ciphertext: ciphertext, AAD: r.AAD.All, UKeyID: r.To, UAAD: r.NewAAD.All,
	}, &res)
	if err == nil && len(res.Ciphertext) == 0 {
		err = missing(api.ReEncrypt, "ciphertext")
	}
	return res.Ciphertext, err
}

// BatchReEncrypt is ReEncrypt of 1 to api.MaxBatch ciphertexts in one request.
// IsTooManyVersions is true for the error if they name more versions of the key than
// that takes: send fewer.
func (c *Client) BatchReEncrypt(ctx context.Context, r ReEncryption, ciphertexts [][]byte) ([]BatchItem[[]byte], error) {
	var res api.BatchEncryptResult
	q := api.BatchReEncryptRequest{
		KeyID: r.From, Ciphertexts: ciphertexts, AAD: r.AAD.All, AADs: r.AAD.Each, UKeyID: r.To, UAAD: r.NewAAD.All, UAADs: r.NewAAD.Each,
	}
	if err := c.batch(ctx, api.BatchReEncrypt, ciphertexts, q, &res); err != nil {
		return nil, err
	}
	return texts(api.BatchReEncrypt, len(ciphertexts), res.Ciphertexts, res.Failures)
}

// BatchSign is SignMessage of 1 to api.MaxBatch messages in one request, or SignDigest if
// kind is api.DigestMessage.
func (c *Client) BatchSign(ctx context.Context, keyID string, messages [][]byte, kind api.MessageType, o SignatureOptions) ([]BatchItem[[]byte], error) {
	var res api.BatchSignResult
	if err := c.batch(ctx, api.BatchSign, messages, o.batch(keyID, messages, kind), &res); err != nil {
		return nil, err
	}
	return texts(api.BatchSign, len(messages), res.Signatures, res.Failures)
}

// BatchVerify is VerifyMessage, or VerifyDigest, of 1 to api.MaxBatch messages, each with
// its signature. A false one is no error.
func (c *Client) BatchVerify(ctx context.Context, keyID string, messages, signatures [][]byte, kind api.MessageType, o SignatureOptions) ([]BatchItem[bool], error) {
	if len(messages) != len(signatures) {
		return nil, fmt.Errorf("%s: got %d signatures, want one for each of %d messages", api.BatchVerify, len(signatures), len(messages))
	}
	for i, signature := range signatures {
		if len(signature) == 0 {
			return nil, fmt.Errorf("%s: signature %d is empty", api.BatchVerify, i)
		}
	}
	var res api.BatchVerifyResult
	q := api.BatchVerifyRequest{BatchSignRequest: o.batch(keyID, messages, kind), Signatures: signatures}
	if err := c.batch(ctx, api.BatchVerify, messages, q, &res); err != nil {
		return nil, err
	}
	return outcomes(api.BatchVerify, len(messages), res.Results, res.Failures, func(v *bool) (bool, bool) {
		return v != nil && *v, v != nil
	})
}

func (o SignatureOptions) batch(keyID string, messages [][]byte, kind api.MessageType) api.BatchSignRequest {
	return api.BatchSignRequest{
		KeyID: keyID, Messages: messages, MessageType: kind, DigestMode: o.Digest, PaddingMode: cmp.Or(o.Padding, api.PSS),
	}
}

// batch calls an action on items, which must not be empty: the signature does not cover
// those at the end.
func (c *Client) batch(ctx context.Context, action string, items [][]byte, payload, result any) error {
	if len(items) == 0 || len(items) > api.MaxBatch {
		return fmt.Errorf("%s: got %d items, want 1 to %d", action, len(items), api.MaxBatch)
	}
	for i, item := range items {
		if len(item) == 0 {
			return fmt.Errorf("%s: item %d is empty", action, i)
		}
	}
	return c.call(ctx, action, true, payload, result)
}

// texts are the outcomes of n items with values that are not empty.
func texts(action string, n int, values [][]byte, failures []api.Failure) ([]BatchItem[[]byte], error) {
	return outcomes(action, n, values, failures, func(v []byte) ([]byte, bool) { return v, len(v) > 0 })
}

// outcomes joins values and failures. There must be one of the two for each of n items.
func outcomes[V, T any](action string, n int, values []V, failures []api.Failure, read func(V) (T, bool)) ([]BatchItem[T], error) {
	if len(values) != n {
		return nil, fmt.Errorf("%s: %w: %d values for %d items", action, ErrReply, len(values), n)
	}
	items := make([]BatchItem[T], n)
	for _, f := range failures {
		if f.Index < 0 || f.Index >= n || items[f.Index].Err != nil {
			return nil, fmt.Errorf("%s: %w: failure of item %d of %d", action, ErrReply, f.Index, n)
		}
		items[f.Index].Err = fmt.Errorf("%s: item %d: %w", action, f.Index, &api.Error{Code: f.Code, Message: f.Message})
	}
	for i, v := range values {
		value, ok := read(v)
		if ok == (items[i].Err != nil) {
			return nil, fmt.Errorf("%s: %w: item %d has not one of value and failure", action, ErrReply, i)
		}
		items[i].Value = value
	}
	return items, nil
}

// IsTooManyVersions reports whether the ciphertexts of a batch name more versions of
// their key than one request takes: send fewer at a time.
func IsTooManyVersions(err error) bool { return refused(err, api.MessageBatchVersions) }
