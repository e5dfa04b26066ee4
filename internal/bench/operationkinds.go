package bench

import (
	"bytes"
	"context"
	"fmt"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// asymmetricOperations measure keys of other kinds than AES.
func asymmetricOperations() []operation {
	return []operation{
		{"sign-p256", api.Sign, true, false, prepareSign(api.ECP256, ehsm.SignatureOptions{}), primitiveSignP256},
		{"sign-rsa2048", api.Sign, true, false, prepareSign(api.RSA2048, ehsm.SignatureOptions{Padding: api.PSS}), primitiveSignRSA},
		{"verify-p256", api.Verify, true, false, prepareVerify(api.ECP256, ehsm.SignatureOptions{}), primitiveVerifyP256},
		{"decrypt-rsa2048", api.AsymmetricDecrypt, true, false, prepareRSADecrypt, primitiveDecryptRSA},
	}
}

// secretOperations measure the reading of one secret, and the writing of one by
// each connection.
func secretOperations() []operation {
	return []operation{
		{"getsecret", api.GetSecretValue, true, false, prepareGetSecret, nil},
		{"putsecret", api.PutSecretValue, true, true, preparePutSecret, nil},
	}
}

type preparation = func(context.Context, *tenant, int) (any, proof, error)

func prepareSign(spec api.KeySpec, o ehsm.SignatureOptions) preparation {
	return func(ctx context.Context, t *tenant, size int) (any, proof, error) {
		keyID, err := t.client.CreateKey(ctx, spec, api.SignVerify, api.InternalKey)
		message := randomBytes(size)
		q := api.SignRequest{KeyID: keyID, Message: message, MessageType: api.RawMessage, DigestMode: api.SHA256, PaddingMode: o.Padding}
		return q, func(ctx context.Context, body []byte) error {
			res, err := result[api.SignResult](body)
			if err != nil {
				return err
			}
			ok, err := t.client.VerifyMessage(ctx, keyID, message, res.Signature, o)
			if err == nil && !ok {
				err = errProof
			}
			return err
		}, err
	}
}

func prepareVerify(spec api.KeySpec, o ehsm.SignatureOptions) preparation {
	return func(ctx context.Context, t *tenant, size int) (any, proof, error) {
		keyID, err := t.client.CreateKey(ctx, spec, api.SignVerify, api.InternalKey)
		if err != nil {
			return nil, nil, err
		}
		message := randomBytes(size)
		signature, err := t.client.SignMessage(ctx, keyID, message, o)
		q := api.VerifyRequest{
			SignRequest: api.SignRequest{KeyID: keyID, Message: message, MessageType: api.RawMessage, DigestMode: api.SHA256, PaddingMode: o.Padding},
			Signature:   signature,
		}
		return q, func(_ context.Context, body []byte) error {
			res, err := result[api.VerifyResult](body)
			if err == nil && !res.Result {
				err = errProof
			}
			return err
		}, err
	}
}

const maxOAEP = 190 // bytes that OAEP-SHA-256 leaves of 2048 bits

func prepareRSADecrypt(ctx context.Context, t *tenant, size int) (any, proof, error) {
	keyID, err := t.client.CreateKey(ctx, api.RSA2048, api.EncryptDecrypt, api.InternalKey)
	if err != nil {
		return nil, nil, err
	}
	plaintext := randomBytes(min(size, maxOAEP))
	ciphertext, err := t.client.AsymmetricEncrypt(ctx, keyID, plaintext, api.OAEP)
	q := api.AsymmetricDecryptRequest{KeyID: keyID, Ciphertext: ciphertext, PaddingMode: api.OAEP}
	return q, func(_ context.Context, body []byte) error {
		res, err := result[api.DecryptResult](body)
		if err == nil && !bytes.Equal(res.Plaintext, plaintext) {
			err = errProof
		}
		return err
	}, err
}

// newSecret makes a secret with a value of size characters.
func newSecret(ctx context.Context, t *tenant, size int) (name, value string, err error) {
	name, value = fmt.Sprintf("bench-%x", randomBytes(8)), fmt.Sprintf("%0*d", min(size, 4096), 1)
	return name, value, t.client.CreateSecret(ctx, name, ehsm.NewSecretValue(value), ehsm.SecretOptions{})
}

func prepareGetSecret(ctx context.Context, t *tenant, size int) (any, proof, error) {
	name, value, err := newSecret(ctx, t, size)
	return api.GetSecretValueRequest{SecretName: name}, func(_ context.Context, body []byte) error {
		res, err := result[api.GetSecretValueResult](body)
		if err == nil && res.SecretData != value {
			err = errProof
		}
		return err
	}, err
}

func preparePutSecret(ctx context.Context, t *tenant, size int) (any, proof, error) {
	name, value, err := newSecret(ctx, t, size)
	return api.PutSecretValueRequest{SecretName: name, SecretData: value}, func(ctx context.Context, _ []byte) error {
		got, err := t.client.GetSecretValue(ctx, name, 0)
		if err == nil && got.Value.Expose() != value {
			err = errProof
		}
		return err
	}, err
}
