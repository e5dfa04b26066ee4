package core

import (
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"hash"
	"sync"
	"sync/atomic"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// openApp is a tenant ready for use.
type openApp struct {
	record.App
	credentials []*openCredential // in the order of App.Credentials
	apiKeys     []*openCredential // those that are API keys
	looked      atomic.Int64      // see lookAgain
}

// maxLooks is how often in a second an app is read anew for signatures that do not
// verify.
const maxLooks = 10

// lookAgain reports whether the store is to be asked for a newer state of an app
// that a signature does not verify under: another node may just have given it the
// credential. It is so maxLooks times in a second, so that strangers do not have the
// store read for each of their requests. now is in Unix milliseconds.
func (a *openApp) lookAgain(now int64) bool {
	second := now / 1000 * (maxLooks + 1) // and how often in it
	for {
		last := a.looked.Load()
		next := max(last, second) + 1
		if next > second+maxLooks {
			return false
		}
		if a.looked.CompareAndSwap(last, next) {
			return true
		}
	}
}

// openCredential is a credential ready for use.
type openCredential struct {
	record.Credential
	noted atomic.Int64 // the last minute of use that was noted, see useTimes
	// Of an API key.
	text     secret.Bytes
	requests macs         // under the text
	replies  secret.Bytes // key of reply signatures, 32 bytes
	// Of a key pair.
	public publicKey
	login  bool // of a workload that has logged in: the app has no record of it
}

// newOpenApp takes over the texts of the app's API keys.
func newOpenApp(a record.App, texts []secret.Bytes) (*openApp, error) {
	o := &openApp{App: a}
	for _, c := range a.Credentials {
		open := &openCredential{Credential: c}
		if c.Kind == record.APIKey {
			open.text, texts = texts[0], texts[1:]
			reply := api.ReplyKey(open.text.Expose())
			open.requests, open.replies = newMACs(open.text), secret.New(reply[:])
			o.apiKeys = append(o.apiKeys, open)
		}
		var err error
		if open.public, err = newPublicKey(&c); err != nil {
			return nil, fmt.Errorf("open credential %s: %w", c.ID, err)
		}
		o.credentials = append(o.credentials, open)
	}
	return o, nil
}

// texts are those of the API keys, in the order of their credentials.
func (a *openApp) texts() []secret.Bytes {
	texts := make([]secret.Bytes, 0, len(a.apiKeys))
	for _, c := range a.apiKeys {
		texts = append(texts, c.text)
	}
	return texts
}

// newStranger makes the app that stands in for one that does not exist, and its
// credential for one that does not, so that all of them cost the same. Nobody has
// its key.
func newStranger() (*openApp, error) {
	key := make([]byte, apiKeyLen)
	rand.Read(key) // never fails
	a := record.App{State: record.Active, Credentials: []record.Credential{record.FirstCredential(0)}}
	return newOpenApp(a, []secret.Bytes{secret.New(key)})
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
