package e2e

import (
	"context"
	"testing"
	"time"
)

// keyLines are about making, finding and ending keys.
func keyLines() []line {
	return []line{
		{"14-key-lookup", testKeyLookup},
		{"15-create-aes", testCreateAES},
		{"16-create-refusals", testCreateRefusals},
		{"30-list", testList},
		{"30-delete-all", testDeleteAll},
		{"31-enable-disable-delete", testStates},
		{"32-no-expiry", testNoExpiry},
		{"31-changes-at-once", testConcurrentChanges},
	}
}

// A listed key is one item of ListKey.
type listed struct {
	spec     string
	state    int64
	creation int64
	expiry   int64
}

// list returns the tenant's keys, having checked the form of every item.
func (c *tenant) list(t testing.TB) map[string]listed {
	t.Helper()
	r := c.call(t, "ListKey", nil)
	want(t, r, 200, textSuccessful)
	items, ok := r.Result["list"].([]any)
	if !ok {
		t.Fatalf("no list: %s", r.body)
	}
	keys := make(map[string]listed, len(items))
	for _, item := range items {
		m, _ := item.(map[string]any)
		i := reply{Result: m, action: "ListKey", body: r.body}
		if i.text(t, "alias") != "" {
			t.Errorf("alias is not empty: %v", m)
		}
		id := i.text(t, "keyid")
		if _, twice := keys[id]; twice || !isUUID(id) {
			t.Errorf("key %q is listed twice, or is no UUID", id)
		}
		keys[id] = listed{i.text(t, "keyspec"), i.integer(t, "keyState"), i.integer(t, "creationDate"), i.integer(t, "expireTime")}
	}
	return keys
}

func (c *tenant) hasKey(t testing.TB, key string) bool {
	t.Helper()
	_, ok := c.list(t)[key]
	return ok
}

// testKeyLookup: a key that is not there, another's and one that was deleted
// cannot be told apart.
func testKeyLookup(t *testing.T, g *target) {
	c, other := g.enroll(t), g.enroll(t)
	own, foreign, deleted := c.createAES(t), other.createAES(t), c.createAES(t)
	sealed := c.call(t, "Encrypt", fields{"keyid": own, "plaintext": "AAAA"}).text(t, "ciphertext")
	want(t, c.call(t, "DeleteKey", fields{"keyid": deleted}), 200, textSuccessful)
	uses := map[string]fields{
		"Encrypt": {"plaintext": "AAAA"}, "Decrypt": {"ciphertext": sealed},
		"GenerateDataKey": {"keylen": 16}, "GenerateDataKeyWithoutPlaintext": {"keylen": 16},
	}
	for action, payload := range uses {
		var bodies []string
		for _, key := range []string{foreign, deleted, "3f2504e0-4f89-41d3-9a0c-0305e82c3301", "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz", c.appid} {
			r := c.call(t, action, payload.with(fields{"keyid": key}))
			want(t, r, 400, textKeyID)
			bodies = append(bodies, string(r.body))
		}
		for _, b := range bodies {
			if b != bodies[0] {
				t.Errorf("%s: %s differs from %s", action, b, bodies[0])
			}
		}
	}
	want(t, c.call(t, "DisableKey", fields{"keyid": own}), 200, textSuccessful)
	for action, payload := range uses {
		want(t, c.call(t, action, payload.with(fields{"keyid": own})), 400, "keyid is disabled")
		want(t, other.call(t, action, payload.with(fields{"keyid": own})), 400, textKeyID)
	}
	want(t, c.call(t, "EnableKey", fields{"keyid": own}), 200, textSuccessful)
	for action, payload := range uses {
		want(t, c.call(t, action, payload.with(fields{"keyid": own})), 200, textSuccess)
	}
}

func testCreateAES(t *testing.T, g *target) {
	c := g.enroll(t)
	seen := map[string]bool{}
	for _, spec := range []string{"EH_AES_GCM_128", "EH_AES_GCM_192", "EH_AES_GCM_256"} {
		key := c.create(t, spec, encryptDecrypt)
		if seen[key] || !isUUID(key) || key[14] != '4' {
			t.Errorf("keyid %q is no UUID of version 4, or comes a second time", key)
		}
		seen[key] = true
		if got := c.list(t)[key].spec; got != spec {
			t.Errorf("listed as %s, want %s", got, spec)
		}
	}
}

func testCreateRefusals(t *testing.T, g *target) {
	c := g.enroll(t)
	good := fields{"keyspec": "EH_AES_GCM_256", "origin": internalKey, "keyusage": encryptDecrypt}
	for name, row := range map[string]struct {
		change  fields
		code    int
		message string
	}{
		"AES to sign":           {fields{"keyusage": signVerify}, 500, textServer},
		"AES-128 to sign":       {fields{"keyspec": "EH_AES_GCM_128", "keyusage": signVerify}, 500, textServer},
		"AES-192 to sign":       {fields{"keyspec": "EH_AES_GCM_192", "keyusage": signVerify}, 500, textServer},
		"external AES to sign":  {fields{"origin": externalKey, "keyusage": signVerify}, 500, textServer},
		"SM4-CTR to sign":       {fields{"keyspec": "EH_SM4_CTR", "keyusage": signVerify}, 500, textServer},
		"SM4-CBC to sign":       {fields{"keyspec": "EH_SM4_CBC", "keyusage": signVerify}, 500, textServer},
		"HMAC to encrypt":       {fields{"keyspec": "EH_HMAC"}, 500, textServer},
		"external RSA":          {fields{"keyspec": "EH_RSA_2048", "origin": externalKey}, 500, textServer},
		"external EC":           {fields{"keyspec": "EH_EC_P256", "origin": externalKey}, 500, textServer},
		"external SM2":          {fields{"keyspec": "EH_SM2", "origin": externalKey}, 500, textServer},
		"external HMAC":         {fields{"keyspec": "EH_HMAC", "origin": externalKey, "keyusage": signVerify}, 500, textServer},
		"RSA-3071":              {fields{"keyspec": "EH_RSA_3071"}, 400, "Parameter invalid, The keyspec type is incorrect."},
		"SM9":                   {fields{"keyspec": "EH_SM9"}, 400, "Parameter invalid, The keyspec type is incorrect."},
		"number of a keyspec":   {fields{"keyspec": 1}, 400, "Parameter invalid, The keyspec type is incorrect."},
		"random origin":         {fields{"origin": "EH_RANDOM"}, 400, "Parameter invalid, The origin type is incorrect."},
		"no usage":              {fields{"keyusage": null{}}, 500, textServer},
		"empty usage":           {fields{"keyusage": ""}, 500, textServer},
		"unknown usage":         {fields{"keyusage": "EH_KEYUSAGE_NONE"}, 500, textServer},
		"usage in lower case":   {fields{"keyusage": "eh_keyusage_encrypt_decrypt"}, 500, textServer},
		"usage a number":        {fields{"keyusage": 1}, 500, textServer},
		"usage a list":          {fields{"keyusage": []any{encryptDecrypt}}, 500, textServer},
		"two spellings of spec": {fields{"Keyspec": "EH_AES_GCM_128"}, 400, "Parameter invalid, The keyspec type is incorrect."},
	} {
		payload := good.with(row.change)
		if _, ok := payload["keyusage"].(null); ok {
			payload = payload.without("keyusage")
		}
		r := c.call(t, "CreateKey", payload)
		r.action = name
		want(t, r, row.code, row.message)
	}
	if keys := c.list(t); len(keys) != 0 {
		t.Errorf("refused keys are listed: %v", keys)
	}
}

func testList(t *testing.T, g *target) {
	c, other := g.enroll(t), g.enroll(t)
	if keys := c.list(t); len(keys) != 0 {
		t.Errorf("a fresh tenant has keys: %v", keys)
	}
	before := time.Now().Add(-2 * time.Second).UnixMilli()
	made := map[string]string{}
	for _, spec := range []string{"EH_AES_GCM_128", "EH_AES_GCM_192", "EH_AES_GCM_256"} {
		made[c.create(t, spec, encryptDecrypt)] = spec
	}
	foreign := other.createAES(t)
	r := c.call(t, "CreateKey", fields{"keyspec": "EH_AES_GCM_256", "origin": externalKey, "keyusage": encryptDecrypt})
	want(t, r, 200, textSuccess)
	made[r.text(t, "keyid")] = "EH_AES_GCM_256"
	keys := c.list(t)
	for key, spec := range made {
		k := keys[key]
		if k.spec != spec || k.state != 1 || k.creation < before || k.creation > time.Now().UnixMilli()+2000 {
			t.Errorf("key of spec %s is listed as %+v", spec, k)
		}
	}
	if _, ok := keys[foreign]; ok || len(keys) != len(made) {
		t.Errorf("%d keys are listed, want %d of the tenant's own", len(keys), len(made))
	}
}

func testDeleteAll(t *testing.T, g *target) {
	c, other := g.enroll(t), g.enroll(t)
	foreign := other.createAES(t)
	for _, action := range []string{"DeleteAllKey", "DeleteALLKey"} {
		keys := []string{c.createAES(t), c.createAES(t), c.createAES(t)}
		sealed := c.call(t, "Encrypt", fields{"keyid": keys[0], "plaintext": "AAAA"}).text(t, "ciphertext")
		want(t, c.call(t, "DisableKey", fields{"keyid": keys[1]}), 200, textSuccessful)
		r := c.call(t, action, nil)
		want(t, r, 200, textSuccessful)
		if len(r.Result) != 0 {
			t.Errorf("%s: got result %v", action, r.Result)
		}
		if left := c.list(t); len(left) != 0 {
			t.Errorf("%s leaves %v", action, left)
		}
		want(t, c.call(t, "Decrypt", fields{"keyid": keys[0], "ciphertext": sealed}), 400, textKeyID)
		want(t, c.call(t, "EnableKey", fields{"keyid": keys[1]}), 400, "not find this keyid")
		want(t, c.call(t, action, nil), 200, textSuccessful) // nothing left to delete
	}
	// What is made afterwards lives.
	key := c.createAES(t)
	want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}), 200, textSuccess)
	if !c.hasKey(t, key) || !other.hasKey(t, foreign) {
		t.Error("a key made later, or another tenant's, is gone")
	}
}

func testStates(t *testing.T, g *target) {
	c, other := g.enroll(t), g.enroll(t)
	key, foreign := c.create(t, "EH_AES_GCM_192", encryptDecrypt), other.createAES(t)
	want(t, other.call(t, "DisableKey", fields{"keyid": key}), 400, "not find this keyid")
	for _, step := range []struct {
		action string
		state  int64
	}{{"DisableKey", 0}, {"DisableKey", 0}, {"EnableKey", 1}, {"EnableKey", 1}, {"DisableKey", 0}} {
		r := c.call(t, step.action, fields{"keyid": key})
		want(t, r, 200, textSuccessful)
		if k := c.list(t)[key]; k.state != step.state || k.spec != "EH_AES_GCM_192" || len(r.Result) != 0 {
			t.Errorf("after %s: %+v, result %v", step.action, k, r.Result)
		}
	}
	unknown := "3f2504e0-4f89-41d3-9a0c-0305e82c3301"
	for _, id := range []string{unknown, foreign} {
		want(t, c.call(t, "EnableKey", fields{"keyid": id}), 400, "not find this keyid")
		want(t, c.call(t, "DisableKey", fields{"keyid": id}), 400, "not find this keyid")
		want(t, c.call(t, "DeleteKey", fields{"keyid": id}), 200, textSuccessful)
	}
	want(t, other.call(t, "Encrypt", fields{"keyid": foreign, "plaintext": "AAAA"}), 200, textSuccess)
	want(t, c.call(t, "DeleteKey", fields{"keyid": key}), 200, textSuccessful) // a disabled one
	want(t, c.call(t, "DeleteKey", fields{"keyid": key}), 200, textSuccessful)
	if c.hasKey(t, key) || !other.hasKey(t, foreign) {
		t.Error("the wrong key is gone")
	}
	want(t, c.call(t, "EnableKey", fields{"keyid": key}), 400, "not find this keyid")
}

func testNoExpiry(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	if k := c.list(t)[key]; k.expiry != 253402300799000 {
		t.Errorf("a new key expires at %d, want the end of the year 9999", k.expiry)
	}
}

// testConcurrentChanges: changes of one key that meet each other succeed, or
// say that they have not after a number of attempts.
func testConcurrentChanges(t *testing.T, g *target) {
	c := g.enroll(t)
	key := c.createAES(t)
	replies := inParallel(t, 40, func(ctx context.Context, i int) (reply, error) {
		return c.try(ctx, []string{"EnableKey", "DisableKey"}[i%2], fields{"keyid": key})
	})
	done := 0
	for i, r := range replies {
		if r.Code == 200 {
			done++
		} else {
			want(t, r, 400, []string{"enableKey failed", "disableKey failed"}[i%2])
		}
	}
	if done < len(replies)/4 {
		t.Errorf("%d of %d changes of one key were made", done, len(replies))
	}
	want(t, c.call(t, "EnableKey", fields{"keyid": key}), 200, textSuccessful)
	want(t, c.call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}), 200, textSuccess)
	replies = inParallel(t, 40, func(ctx context.Context, i int) (reply, error) {
		return c.try(ctx, "CreateKey", fields{"keyspec": "EH_AES_GCM_128", "origin": internalKey, "keyusage": encryptDecrypt})
	})
	for _, r := range replies {
		want(t, r, 200, textSuccess)
	}
	if n := len(c.list(t)); n != 41 {
		t.Errorf("%d keys are listed, want 41", n)
	}
}
