package e2e

import (
	"context"
	"sync"
	"testing"
	"time"
)

// named is a payload that names its action, as the actions about credentials want.
func named(action string, more fields) fields { return fields{"action": action}.with(more) }

// TestCredentials rotates an API key under load at three nodes, and revokes one.
func TestCredentials(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	at := c.everywhere(t)
	key := at[0].createAES(t)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var mu sync.Mutex
	apikey := at[0].apikey
	var load sync.WaitGroup
	done := make([]int, nodes)
	for i := range nodes {
		load.Go(func() {
			for ctx.Err() == nil {
				mu.Lock()
				now := &tenant{target: c.nodes[i], appid: at[0].appid, apikey: apikey}
				mu.Unlock()
				r, err := now.try(t.Context(), "Encrypt", fields{"keyid": key, "plaintext": "AAAA"})
				if err != nil || r.Code != 200 {
					t.Errorf("node %d, after %d requests: %s, %v", i, done[i], r.body, err)
					return
				}
				done[i]++
			}
		})
	}
	for i := range 2 * nodes { // the second successor of a key takes the place of the first
		mu.Lock()
		now := &tenant{target: c.nodes[i%nodes], appid: at[0].appid, apikey: apikey}
		mu.Unlock()
		r := now.call(t, "RotateAPIKey", named("RotateAPIKey", fields{"overlapSeconds": 1}))
		mu.Lock()
		apikey = r.text(t, "apikey")
		mu.Unlock()
		c.nodes[0].secret(apikey)
		select {
		case <-time.After(1200 * time.Millisecond): // as long as the overlap, and the requests under way
		case <-ctx.Done():
		}
	}
	stop()
	load.Wait()
	t.Logf("requests beside six rotations: %v", done)
	want(t, at[1].call(t, "ListKey", nil), 400, "sign error")

	owner := &tenant{target: c.nodes[0], appid: at[0].appid, apikey: apikey}
	r := owner.call(t, "CreateCredential", named("CreateCredential", fields{"kind": "api-key", "role": "user"}))
	user := &tenant{target: c.nodes[1], appid: owner.appid, apikey: r.text(t, "apikey")}
	c.nodes[0].secret(user.apikey)
	for _, g := range c.nodes { // at once
		want(t, user.on(g).call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}), 200, textSuccess)
	}
	want(t, owner.call(t, "RevokeCredential", named("RevokeCredential", fields{"credentialId": r.text(t, "credentialId")})), 200, textSuccessful)
	since := time.Now()
	for i, g := range c.nodes {
		read := func(c *tenant) reply { return c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}) }
		if lag, ok := await(user.on(g), read, func(r reply) bool { return r.Code == 400 && r.Message == "sign error" }, since); !ok {
			t.Errorf("node %d: a revoked key is good after %v", i, lag)
		}
	}
}

// TestCredentialsRolledBack has a host put the row of a tenant back as it was before
// a credential was revoked, and restart every core.
func TestCredentialsRolledBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	one, two := s.machines[0], s.machines[1]
	owner, bystander := one.g.enroll(t), one.g.enroll(t)
	made := owner.call(t, "CreateCredential", named("CreateCredential", fields{"kind": "api-key", "role": "owner"}))
	thief := &tenant{target: one.g, appid: owner.appid, apikey: made.text(t, "apikey")}
	want(t, thief.call(t, "ListKey", nil), 200, textSuccessful)
	r := s.rollback(t)
	r.exec(t, "CREATE TABLE before AS TABLE records")
	want(t, owner.call(t, "RevokeCredential", named("RevokeCredential", fields{"credentialId": made.text(t, "credentialId")})), 200, textSuccessful)
	one.anchored(t, 1)
	two.anchored(t, 1)
	r.takeBack(t, "before")
	for _, n := range s.machines {
		n.restart(t)
	}
	for _, n := range s.machines {
		n.ready(t)
		want(t, bystander.on(n.g).call(t, "ListKey", nil), 200, textSuccessful)
		if reply := thief.on(n.g).call(t, "ListKey", nil); reply.Code == 200 {
			t.Error("a revoked credential is good again")
		}
	}
}
