package core

import (
	"crypto/hmac"
	"crypto/sha256"
	"hash"
	"sync"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// openApp is a tenant ready for use.
type openApp struct {
	record.App
	requests macs         // under the API key's text
	replies  secret.Bytes // key of reply signatures, 32 bytes
	material secret.Bytes
}

func newOpenApp(a record.App, apiKey secret.Bytes) *openApp {
	reply := api.ReplyKey(apiKey.Expose())
	return &openApp{App: a, requests: newMACs(apiKey), replies: secret.New(reply[:]), material: apiKey}
}

// macs computes HMAC-SHA-256 under one key. Keyed states are pooled, because
// keying costs as much as a short message.
type macs struct{ pool *sync.Pool }

// keyed is a state with room for its result, which would escape otherwise.
type keyed struct {
	mac hash.Hash
	tag [sha256.Size]byte
}

func newMACs(key secret.Bytes) macs {
	return macs{&sync.Pool{New: func() any { return &keyed{mac: hmac.New(sha256.New, key.Expose())} }}}
}

// sum returns the MAC over a message.
func (m macs) sum(message []byte) [sha256.Size]byte {
	k := m.pool.Get().(*keyed)
	defer m.pool.Put(k)
	k.mac.Reset()
	k.mac.Write(message)
	k.mac.Sum(k.tag[:0])
	return k.tag
}
