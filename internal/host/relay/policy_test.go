package relay

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func ruleRecord(n byte) wire.RecordID {
	return wire.RecordID{Type: wire.Policy, Tenant: tenant, ID: wire.UUID{n}}
}

// TestPolicyHints has signers under policies: after the first request of one the
// policy comes along, and the store is not read.
func TestPolicyHints(t *testing.T) {
	g := newRig(t, Options{})
	core := &policyCore{fakeCore: g.core}
	g.Relay.core = core
	g.store.put(wire.RecordID{Type: wire.TenantSettings, Tenant: tenant, ID: tenant}, 0, 0)
	for n := range byte(9) {
		g.store.put(ruleRecord(n+1), 0, 0)
	}
	n := 0
	ask := func(credential string, policy byte) (calls int, last string) {
		t.Helper()
		core.policy, g.core.calls = ruleRecord(policy), nil
		n++
		body := fmt.Appendf(nil, `{"appid":"%s","nonce":"%d","credential":"%s","payload":{}}`, tenant, n, credential)
		if r, err := g.Do(context.Background(), Request{ID: "r", Action: "Read", Body: body}); err != nil || r.Code != 200 {
			t.Fatalf("got code %d, error %v", r.Code, err)
		}
		for _, c := range g.core.calls {
			calls++
			last = fmt.Sprint(c.Records)
		}
		return calls, last
	}
	pair, login := wire.UUID{7}.String(), api.LoginTokenPrefix+"x"
	for _, row := range []struct {
		name, credential string
		policy           byte
		calls            int
	}{
		{"first", "", 1, 2}, {"known", "", 1, 1},
		{"another API key", "", 2, 2}, {"both are known", "", 1, 1}, {"both are known", "", 2, 1},
		{"a key pair", pair, 3, 2}, {"a known key pair", pair, 3, 1}, {"a key pair under another one", pair, 4, 2}, {"a known key pair", pair, 4, 1},
		{"a login", login, 5, 2}, {"another login", login + "y", 5, 1},
		{"API keys as before", "", 1, 1}, {"API keys as before", "", 2, 1},
		{"a third", "", 6, 2}, {"a fourth", "", 7, 2}, {"a fifth", "", 8, 2}, {"it takes the place of the oldest", "", 1, 2},
	} {
		reads := g.store.reads
		calls, last := ask(row.credential, row.policy)
		if calls != row.calls || calls == 1 && g.store.reads != reads {
			t.Errorf("%s: got %d calls and %d reads, want %d calls", row.name, calls, g.store.reads-reads, row.calls)
		}
		if row.credential == pair && strings.Contains(last, ruleRecord(1).String()) {
			t.Errorf("%s: the policy of another signer comes along", row.name)
		}
	}
}

// A sealed request of a workload does not show that the settings are needed.
func TestSettingsHints(t *testing.T) {
	g := newRig(t, Options{})
	settings := wire.RecordID{Type: wire.TenantSettings, Tenant: tenant, ID: tenant}
	g.Relay.core = &policyCore{fakeCore: g.core, policy: settings}
	g.store.put(settings, 0, 0)
	for i, want := range []int{2, 1, 1} {
		g.core.calls = nil
		body := fmt.Appendf(nil, `{"sealed":"%d","appid":"%s"}`, i, tenant)
		if r, err := g.Do(context.Background(), Request{ID: "r", Action: "Read", Body: body}); err != nil || r.Code != 200 {
			t.Fatalf("got code %d, error %v", r.Code, err)
		}
		if len(g.core.calls) != want {
			t.Errorf("request %d: got %d calls, want %d", i, len(g.core.calls), want)
		}
	}
}

// A policyCore needs a policy for each request, as the real core does.
type policyCore struct {
	*fakeCore
	policy wire.RecordID
}

func (c *policyCore) Call(ctx context.Context, call *wire.Call) (*wire.Answer, error) {
	if slices.ContainsFunc(call.Records, func(f wire.Ref) bool { return f.ID == c.policy }) {
		return c.fakeCore.Call(ctx, call)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.calls = append(c.calls, *call)
	return &wire.Answer{Kind: wire.Need, NeedRecords: []wire.RecordID{c.policy}}, nil
}
