package e2e

import (
	"context"
	"sync"
	"testing"
	"time"
)

// putPolicy makes a policy, or another one in the place of one, and returns its id.
func (c *tenant) putPolicy(t testing.TB, payload fields) string {
	t.Helper()
	r := c.call(t, "PutPolicy", named("PutPolicy", payload))
	want(t, r, 200, textSuccessful)
	return r.text(t, "policyId")
}

// under makes an API key of a user under a policy.
func (c *tenant) under(t testing.TB, g *target, policy string) (user *tenant, credential string) {
	t.Helper()
	r := c.call(t, "CreateCredential", named("CreateCredential", fields{"kind": "api-key", "role": "user", "policyId": policy}))
	user = &tenant{target: g, appid: c.appid, apikey: r.text(t, "apikey")}
	g.secret(user.apikey)
	return user, r.text(t, "credentialId")
}

// TestPolicies narrows, widens and deletes a policy under load at three nodes: what it
// denies is refused within a second everywhere, and nothing else is.
func TestPolicies(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	at := c.everywhere(t)
	owner := at[0]
	key, other := owner.createAES(t), owner.createAES(t)
	encrypts := func(key string) fields { return fields{"keyid": key, "plaintext": "AAAA"} }
	steady, _ := owner.under(t, c.nodes[0], owner.putPolicy(t, fields{"preset": "encrypt-only", "keys": []any{key}}))
	policy := owner.putPolicy(t, fields{"actions": []any{"Encrypt", "ListKey"}})
	user, credential := owner.under(t, c.nodes[0], policy)
	for _, g := range c.nodes { // at once
		want(t, steady.on(g).call(t, "Encrypt", encrypts(key)), 200, textSuccess)
		want(t, steady.on(g).call(t, "Encrypt", encrypts(other)), 400, "sign error")
		want(t, user.on(g).call(t, "ListKey", nil), 200, textSuccessful)
		want(t, user.on(g).call(t, "DisableKey", fields{"keyid": key}), 400, "sign error")
	}

	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	var load sync.WaitGroup
	done := make([]int, nodes)
	for i, g := range c.nodes {
		load.Go(func() {
			for ctx.Err() == nil {
				if r, err := steady.on(g).try(t.Context(), "Encrypt", encrypts(key)); err != nil || r.Code != 200 {
					t.Errorf("node %d, after %d requests: %s, %v", i, done[i], r.body, err)
					return
				}
				done[i]++
			}
		})
	}
	refused := func(r reply) bool { return r.Code == 400 && r.Message == "sign error" }
	everywhere := func(what string, since time.Time, expected func(reply) bool) {
		t.Helper()
		for i, g := range c.nodes {
			read := func(c *tenant) reply { return c.call(t, "Encrypt", encrypts(other)) }
			if lag, ok := await(user.on(g), read, expected, since); !ok {
				t.Errorf("%s: not so at node %d after %v", what, i, lag)
			}
		}
	}
	put := func(payload fields) time.Time {
		owner.putPolicy(t, fields{"policyId": policy}.with(payload))
		return time.Now()
	}
	for range 3 {
		everywhere("narrowed to a key", put(fields{"actions": []any{"Encrypt"}, "keys": []any{key}}), refused)
		everywhere("widened", put(fields{"preset": "encrypt-only"}), func(r reply) bool { return r.Code == 200 })
		everywhere("narrowed to another action", put(fields{"preset": "sign-only"}), refused)
		everywhere("widened", put(fields{"preset": "encrypt-only"}), func(r reply) bool { return r.Code == 200 })
	}
	want(t, owner.call(t, "DeletePolicy", named("DeletePolicy", fields{"policyId": policy})), 200, textSuccessful)
	everywhere("deleted", time.Now(), refused)
	want(t, owner.call(t, "SetCredentialPolicy", named("SetCredentialPolicy", fields{"credentialId": credential, "policyId": "00000000-0000-0000-0000-000000000000"})), 200, textSuccessful)
	everywhere("taken away", time.Now(), func(r reply) bool { return r.Code == 200 })
	stop()
	load.Wait()
	t.Logf("requests beside 14 changes: %v", done)
}

// TestPoliciesRolledBack has a host put all rows back as they were before a policy was
// narrowed, another one deleted and a third one chosen, and restart every core.
func TestPoliciesRolledBack(t *testing.T) {
	t.Parallel()
	s := newSite(t, 2, nil)
	s.up(t)
	one, two := s.machines[0], s.machines[1]
	owner, bystander := one.g.enroll(t), one.g.enroll(t)
	wide := fields{"actions": []any{"ListKey"}}
	narrowed, deleted := owner.putPolicy(t, wide), owner.putPolicy(t, wide)
	first, _ := owner.under(t, one.g, narrowed)
	second, _ := owner.under(t, one.g, deleted)
	third, credential := owner.under(t, one.g, owner.putPolicy(t, wide))
	tight := owner.putPolicy(t, fields{"preset": "sign-only"})
	for _, c := range []*tenant{first, second, third} {
		want(t, c.call(t, "ListKey", nil), 200, textSuccessful)
	}
	r := s.rollback(t)
	r.exec(t, "CREATE TABLE before AS TABLE records")
	owner.putPolicy(t, fields{"policyId": narrowed, "preset": "sign-only"})
	want(t, owner.call(t, "DeletePolicy", named("DeletePolicy", fields{"policyId": deleted})), 200, textSuccessful)
	want(t, owner.call(t, "SetCredentialPolicy", named("SetCredentialPolicy", fields{"credentialId": credential, "policyId": tight})), 200, textSuccessful)
	one.anchored(t, 3)
	two.anchored(t, 3)
	r.takeBack(t, "before")
	for _, n := range s.machines {
		n.restart(t)
	}
	for _, n := range s.machines {
		n.ready(t)
		want(t, bystander.on(n.g).call(t, "ListKey", nil), 200, textSuccessful)
		for i, c := range []*tenant{first, second, third} {
			if reply := c.on(n.g).call(t, "ListKey", nil); reply.Code == 200 {
				t.Errorf("credential %d may again what it may no more", i)
			}
		}
	}
}
