package bench

import (
	"bytes"
	"context"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

const (
	// batchItems is how many items a measured batch has, each of the chosen size.
	batchItems = 100
	// maxBatchSize is the largest size of an item, so that a batch is no longer than others'
	// bodies may be.
	maxBatchSize = 512
)

// batchOperations measure a hundred items in one request.
func batchOperations() []operation {
	return []operation{
		{"batchencrypt", api.BatchEncrypt, true, false, prepareBatchEncrypt, nil},
		{"batchdecrypt", api.BatchDecrypt, true, false, prepareBatchDecrypt, nil},
	}
}

func batchPlaintexts(size int) (all [][]byte) {
	for range batchItems {
		all = append(all, randomBytes(min(size, maxBatchSize)))
	}
	return all
}

func prepareBatchEncrypt(_ context.Context, t *tenant, size int) (any, proof, error) {
	plaintexts := batchPlaintexts(size)
	return api.BatchEncryptRequest{KeyID: t.keyID, Plaintexts: plaintexts}, func(ctx context.Context, body []byte) error {
		res, err := result[api.BatchEncryptResult](body)
		if err != nil {
			return err
		}
		return t.opensAll(ctx, res.Ciphertexts, plaintexts)
	}, nil
}

// opensAll reports whether the service decrypts all ciphertexts.
func (t *tenant) opensAll(ctx context.Context, ciphertexts, plaintexts [][]byte) error {
	items, err := t.client.BatchDecrypt(ctx, t.keyID, ciphertexts, ehsm.BatchAAD{}, "")
	if err == nil && len(items) != len(plaintexts) {
		err = errProof
	}
	for i, item := range items {
		if err == nil && !bytes.Equal(item.Value, plaintexts[i]) {
			err = errProof
		}
	}
	return err
}

func prepareBatchDecrypt(ctx context.Context, t *tenant, size int) (any, proof, error) {
	plaintexts := batchPlaintexts(size)
	items, err := t.client.BatchEncrypt(ctx, t.keyID, plaintexts, ehsm.BatchAAD{})
	if err != nil {
		return nil, nil, err
	}
	q := api.BatchDecryptRequest{KeyID: t.keyID}
	for _, item := range items {
		q.Ciphertexts = append(q.Ciphertexts, item.Value)
	}
	return q, func(_ context.Context, body []byte) error {
		res, err := result[api.BatchDecryptResult](body)
		if err == nil && len(res.Plaintexts) != batchItems {
			err = errProof
		}
		for i, p := range res.Plaintexts {
			if err == nil && !bytes.Equal(p, plaintexts[i]) {
				err = errProof
			}
		}
		return err
	}, nil
}
