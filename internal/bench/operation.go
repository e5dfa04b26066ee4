package bench

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

const dataKeyLen = 32 // bytes of a data key, and of the ceiling's plaintext beside it

// errProof is returned when a server answers, but not what was asked.
var errProof = errors.New("the answer is not what the operation promises")

// A proof looks into one answer. Measured requests are only checked for success;
// one per connection, before the measurement, is proved.
type proof func(ctx context.Context, body []byte) error

// operation is what a row measures.
type operation struct {
	name   string // of the option that chooses it
	action string
	sized  bool // it takes an input of a chosen size
	own    bool // each connection has a payload of its own
	// prepare returns the payload, which encodes as a JSON object, and the
	// proof of an answer to it.
	prepare func(ctx context.Context, t *tenant, size int) (payload any, p proof, err error)
	// primitive returns the cryptography alone on an input of that size, by the
	// standard library; nil if that is not what the operation is about.
	primitive func(size int) (once func() error, err error)
}

// operations returns all operations in the order of the documentation.
func operations() []operation {
	return slices.Concat([]operation{
		{"encrypt", api.Encrypt, true, false, prepareEncrypt, nil},
		{"decrypt", api.Decrypt, true, false, prepareDecrypt, nil},
		{"datakey", api.GenerateDataKey, false, false, prepareDataKey, nil},
		{"createkey", api.CreateKey, false, false, prepareCreateKey(api.AESGCM256, api.EncryptDecrypt), nil},
		{"createkey-rsa2048", api.CreateKey, false, false, prepareCreateKey(api.RSA2048, api.SignVerify), nil},
	}, batchOperations(), asymmetricOperations(), secretOperations())
}

// OperationNames returns the names that Options.Operations may have.
func OperationNames() []string {
	var names []string
	for _, op := range operations() {
		names = append(names, op.name)
	}
	return names
}

func findOperation(name string) (operation, error) {
	for _, op := range operations() {
		if op.name == name {
			return op, nil
		}
	}
	return operation{}, fmt.Errorf("operation is %q, want one of %s", name, strings.Join(OperationNames(), ", "))
}

// tenant is who sends the requests.
type tenant struct {
	client *ehsm.Client
	cred   ehsm.Credentials
	keyID  string // AES-256
}

// newTenant takes the tenant of cfg, or enrolls one, and makes a key.
func newTenant(ctx context.Context, cfg ehsm.Config) (*tenant, error) {
	client, err := ehsm.New(cfg)
	if err != nil {
		return nil, err
	}
	t := &tenant{client: client, cred: ehsm.Credentials{AppID: cfg.AppID, APIKey: cfg.APIKey}}
	if cfg.APIKey.IsZero() {
		if t.cred, err = client.Enroll(ctx); err != nil {
			return nil, err
		}
		t.client = client.With(t.cred)
	}
	t.keyID, err = t.client.CreateKey(ctx, api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
	return t, err
}

func prepareEncrypt(_ context.Context, t *tenant, size int) (any, proof, error) {
	plaintext := randomBytes(size)
	return api.EncryptRequest{KeyID: t.keyID, Plaintext: plaintext}, func(ctx context.Context, body []byte) error {
		res, err := result[api.EncryptResult](body)
		if err != nil {
			return err
		}
		return t.opens(ctx, t.keyID, res.Ciphertext, plaintext)
	}, nil
}

func prepareDecrypt(ctx context.Context, t *tenant, size int) (any, proof, error) {
	plaintext := randomBytes(size)
	ciphertext, err := t.client.Encrypt(ctx, t.keyID, plaintext, nil)
	return api.DecryptRequest{KeyID: t.keyID, Ciphertext: ciphertext}, func(_ context.Context, body []byte) error {
		res, err := result[api.DecryptResult](body)
		if err == nil && !bytes.Equal(res.Plaintext, plaintext) {
			err = errProof
		}
		return err
	}, err
}

func prepareDataKey(_ context.Context, t *tenant, size int) (any, proof, error) {
	return api.DataKeyRequest{KeyID: t.keyID, KeyLen: size}, func(ctx context.Context, body []byte) error {
		res, err := result[api.DataKeyResult](body)
		switch {
		case err != nil:
			return err
		case len(res.Plaintext) != size:
			return errProof
		}
		return t.opens(ctx, t.keyID, res.Ciphertext, res.Plaintext)
	}, nil
}

func prepareCreateKey(spec api.KeySpec, usage api.KeyUsage) preparation {
	return func(context.Context, *tenant, int) (any, proof, error) {
		payload := api.CreateKeyRequest{KeySpec: spec, Origin: api.InternalKey, KeyUsage: usage}
		return payload, func(_ context.Context, body []byte) error {
			res, err := result[api.CreateKeyResult](body)
			if err == nil && len(res.KeyID) != 36 {
				err = errProof
			}
			return err
		}, nil
	}
}

// opens reports whether the service decrypts ciphertext to plaintext.
func (t *tenant) opens(ctx context.Context, keyID string, ciphertext, plaintext []byte) error {
	got, err := t.client.Decrypt(ctx, keyID, ciphertext, nil)
	if err == nil && !bytes.Equal(got, plaintext) {
		err = errProof
	}
	return err
}

// result reads the result of a success.
func result[T any](body []byte) (T, error) {
	var reply api.Reply[T]
	err := json.Unmarshal(body, &reply)
	return reply.Result, err
}

func randomBytes(n int) []byte {
	b := make([]byte, n)
	rand.Read(b) // never fails
	return b
}
