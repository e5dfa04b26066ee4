package attested

import (
	"context"
	"crypto/ed25519"
	"fmt"
	"sync"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

const (
	maxReplyKeys = 64 // instances that are remembered
	findAttempts = 8  // for evidence of a wanted one, where a balancer chooses who answers
)

// ReplyKeys returns what an ehsm.KeyPair needs to check replies: the reply keys of
// instances whose evidence v has verified, asked for when an instance is first met. c
// reaches the service and needs no credentials.
func (v *Verifier) ReplyKeys(c *ehsm.Client) func(ctx context.Context, instance string) (ed25519.PublicKey, error) {
	var mu sync.Mutex
	known := map[string]ed25519.PublicKey{}
	return func(ctx context.Context, instance string) (ed25519.PublicKey, error) {
		mu.Lock()
		defer mu.Unlock()
		for range findAttempts {
			if key := known[instance]; key != nil {
				return key, nil
			}
			r, err := v.Verify(ctx, c)
			if err != nil {
				return nil, err
			}
			if len(known) >= maxReplyKeys {
				clear(known) // of instances that are gone
			}
			if len(r.ReplyKey) == ed25519.PublicKeySize {
				known[r.Instance] = r.ReplyKey
			}
		}
		if key := known[instance]; key != nil {
			return key, nil
		}
		return nil, fmt.Errorf("the service shows no evidence of instance %q", instance)
	}
}
