package ehsm

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
)

func TestPolicies(t *testing.T) {
	var action, sent, result string
	s := &fakeServer{answer: func(a string, payload map[string]any) string {
		delete(payload, "action")
		b, _ := json.Marshal(payload)
		action, sent = a, string(b)
		return succeed(result)
	}}
	c := s.start(t)
	const policy = "0b7e8a52-6c1d-4f0e-9a35-2d4c6e8f1a3b"
	sign := PolicyOptions{Preset: api.PresetSignOnly, AllKeys: true}
	for _, row := range []struct {
		name, result string
		call         func() error
		action, sent string
		err          string
	}{
		{"create", `{"policyId":"` + policy + `"}`, func() error { _, err := c.CreatePolicy(t.Context(), sign); return err }, api.PutPolicy, `{"preset":"sign-only"}`, ""},
		{"create of keys", `{"policyId":"` + policy + `"}`, func() error {
			_, err := c.CreatePolicy(t.Context(), PolicyOptions{Actions: []string{api.Sign}, Keys: []string{testKeyID}, Description: "d"})
			return err
		}, api.PutPolicy, `{"actions":["Sign"],"description":"d","keys":["` + testKeyID + `"]}`, ""},
		{"create without an id", `{}`, func() error { _, err := c.CreatePolicy(t.Context(), sign); return err }, api.PutPolicy, `{"preset":"sign-only"}`, "no policyId"},
		{"replace", `{"policyId":"` + policy + `"}`, func() error { return c.ReplacePolicy(t.Context(), policy, sign) }, api.PutPolicy, `{"policyId":"` + policy + `","preset":"sign-only"}`, ""},
		{"replace of another", `{"policyId":"x"}`, func() error { return c.ReplacePolicy(t.Context(), policy, sign) }, api.PutPolicy, `{"policyId":"` + policy + `","preset":"sign-only"}`, "another one"},
		{"get", `{"policyId":"` + policy + `"}`, func() error { _, err := c.GetPolicy(t.Context(), policy); return err }, api.GetPolicy, `{"policyId":"` + policy + `"}`, ""},
		{"get of another", `{"policyId":"x"}`, func() error { _, err := c.GetPolicy(t.Context(), policy); return err }, api.GetPolicy, `{"policyId":"` + policy + `"}`, "another one"},
		{"list", `{"list":[]}`, func() error { _, err := c.ListPolicies(t.Context()); return err }, api.ListPolicies, `{}`, ""},
		{"delete", `{}`, func() error { return c.DeletePolicy(t.Context(), policy) }, api.DeletePolicy, `{"policyId":"` + policy + `"}`, ""},
		{"test", `{"allowed":true,"reason":"r"}`, func() error {
			res, err := c.TestPolicy(t.Context(), api.TestPolicyRequest{PolicyID: policy, TestAction: api.Sign, KeyID: testKeyID})
			if !res.Allowed || res.Reason != "r" {
				t.Errorf("test: got %+v", res)
			}
			return err
		}, api.TestPolicy, `{"keyid":"` + testKeyID + `","policyId":"` + policy + `","testAction":"Sign"}`, ""},
		{"set", `{}`, func() error { return c.SetCredentialPolicy(t.Context(), api.FirstCredential, policy) }, api.SetCredentialPolicy,
			`{"credentialId":"` + api.FirstCredential + `","policyId":"` + policy + `"}`, ""},
		{"credential", `{"credentialId":"c","apikey":"k"}`, func() error {
			_, _, err := c.CreateCredential(t.Context(), CredentialOptions{Policy: policy})
			return err
		}, api.CreateCredential, `{"kind":"api-key","policyId":"` + policy + `","role":"user"}`, ""},
	} {
		result, action = row.result, ""
		err := row.call()
		if (err == nil) != (row.err == "") || err != nil && !strings.Contains(err.Error(), row.err) {
			t.Errorf("%s: got error %v, want %q", row.name, err, row.err)
		}
		if action != row.action || sent != row.sent {
			t.Errorf("%s: sent %s %s, want %s %s", row.name, action, sent, row.action, row.sent)
		}
	}
}

// What allows too much by mistake is not sent.
func TestPolicyOptions(t *testing.T) {
	s := &fakeServer{answer: func(a string, _ map[string]any) string {
		t.Errorf("%s was sent", a)
		return refuse(400, "x")
	}}
	c := s.start(t)
	for name, o := range map[string]PolicyOptions{
		"zero":               {},
		"no actions":         {AllKeys: true},
		"no keys":            {Preset: api.PresetSignOnly},
		"empty keys":         {Preset: api.PresetSignOnly, Keys: []string{}},
		"all keys and one":   {Preset: api.PresetSignOnly, Keys: []string{testKeyID}, AllKeys: true},
		"keys alone":         {Keys: []string{testKeyID}},
		"empty actions":      {Actions: []string{}, AllKeys: true},
		"no keys of actions": {Actions: []string{api.Sign}},
	} {
		if _, err := c.CreatePolicy(t.Context(), o); err == nil {
			t.Errorf("create, %s: got no error", name)
		}
	}
	if err := c.ReplacePolicy(t.Context(), "", PolicyOptions{Preset: api.PresetSignOnly, AllKeys: true}); err == nil {
		t.Error("replace of no policy: got no error")
	}
	if b, _ := json.Marshal(api.PutPolicyRequest{Keys: []string{}}); string(b) != `{"keys":[]}` {
		t.Errorf("an empty list of keys is encoded as %s: it must not look like none", b)
	}
}
