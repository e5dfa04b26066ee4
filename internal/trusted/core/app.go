package core

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"

	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// replyLabel derives the key that signs replies from a tenant's API key.
const replyLabel = "ehsm-reply/v1"

// openApp is a tenant ready for use.
type openApp struct {
	record.App
	requests macs // under the API key's text
	replies  macs // under the reply key
	material secret.Bytes
}

func newOpenApp(a record.App, apiKey secret.Bytes) (*openApp, error) {
	reply, err := hkdf.Key(sha256.New, apiKey.Expose(), nil, replyLabel, sha256.Size)
	if err != nil {
		return nil, err
	}
	return &openApp{App: a, requests: newMACs(apiKey), replies: newMACs(secret.New(reply)), material: apiKey}, nil
}

// macs computes HMAC-SHA-256 under one key. Keyed states are pooled, because
// keying costs as much as a short message.
type macs struct{ pool *sync.Pool }

func newMACs(key secret.Bytes) macs {
	return macs{&sync.Pool{New: func() any { return hmac.New(sha256.New, key.Expose()) }}}
}

// sum returns the MAC over the parts.
func (m macs) sum(parts ...[]byte) (tag [sha256.Size]byte) {
	h := m.pool.Get().(hash.Hash)
	defer m.pool.Put(h)
	h.Reset()
	for _, p := range parts {
		h.Write(p)
	}
	h.Sum(tag[:0])
	return tag
}
