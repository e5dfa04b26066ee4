package e2e

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// act calls an action that its payload names.
func (c *tenant) act(t testing.TB, action string, payload fields) reply {
	t.Helper()
	return c.call(t, action, payload.with(fields{"action": action}))
}

// array is an array of a result.
func (r reply) array(t testing.TB, name string, n int) []any {
	t.Helper()
	list, _ := r.Result[name].([]any)
	if len(list) != n {
		t.Fatalf("%s: %d in %s, want %d: %.300s", r.action, len(list), name, n, r.body)
	}
	return list
}

func TestBatch(t *testing.T) {
	eachTarget(t, func(t *testing.T, g *target) {
		c := g.enroll(t)
		t.Run("contract", func(t *testing.T) { batchContract(t, c) })
		t.Run("sdk", func(t *testing.T) { batchSDK(t, g, c) })
		t.Run("beside", func(t *testing.T) { batchBeside(t, c, g.enroll(t)) })
	})
}

// batchContract is signed by the tests' own client.
func batchContract(t *testing.T, c *tenant) {
	id, next := c.createAES(t), c.createAES(t)
	var items []any
	for i := range api.MaxBatch {
		items = append(items, b64(fmt.Appendf(nil, "%01000d", i)))
	}
	made := c.act(t, "BatchEncrypt", fields{"keyid": id, "plaintexts": items})
	want(t, made, 200, textSuccess)
	made.array(t, "failures", 0)
	ciphertexts := made.array(t, "ciphertexts", len(items))
	one := c.call(t, "Decrypt", fields{"keyid": id, "ciphertext": ciphertexts[123]})
	want(t, one, 200, textSuccess)
	if one.Result["plaintext"] != items[123] {
		t.Error("item 123 decrypts to something else")
	}
	ciphertexts[7] = "AAAA"
	moved := c.act(t, "BatchReEncrypt", fields{"keyid": id, "ciphertexts": ciphertexts, "ukeyid": next})
	want(t, moved, 200, textSuccess)
	failed := moved.array(t, "failures", 1)[0].(map[string]any)
	if failed["index"] != 7.0 || failed["code"] != 400.0 || failed["message"] != api.MessageDecryptionFailed {
		t.Errorf("failure: %v", failed)
	}
	again := moved.array(t, "ciphertexts", len(items))
	again[7] = again[8]
	opened := c.act(t, "BatchDecrypt", fields{"keyid": next, "ciphertexts": again})
	want(t, opened, 200, textSuccess)
	for i, p := range opened.array(t, "plaintexts", len(items)) {
		if p != items[i] && i != 7 {
			t.Fatalf("item %d is another one", i)
		}
	}
	want(t, c.act(t, "BatchDecrypt", fields{"keyid": id, "ciphertexts": append(items, "AAAA")}), 400, "Parameter invalid, The ciphertexts length error.")
	want(t, c.call(t, "BatchDecrypt", fields{"keyid": id, "ciphertexts": items[:1]}), 400, "sign error")
	want(t, c.act(t, "Encrypt", fields{"keyid": id, "plaintexts": items}), 400, "Request body too large.")
	q := c.unsigned(fields{"action": "BatchEncrypt", "keyid": id, "plaintexts": items}).signed(c.apikey)
	q.envelope["timestamp"] = "1700000000000" // not about now: it is not even read
	want(t, c.deliver(t, "BatchEncrypt", q), 400, "Request body too large.")
	if now := c.act(t, "ReEncrypt", fields{"keyid": id, "ciphertext": ciphertexts[0], "uaad": "QQ=="}); now.Code != 200 {
		t.Errorf("ReEncrypt: %s", now.body)
	} else {
		want(t, c.call(t, "Decrypt", fields{"keyid": id, "ciphertext": now.Result["ciphertext"]}), 400, api.MessageDecryptionFailed)
		want(t, c.call(t, "Decrypt", fields{"keyid": id, "ciphertext": now.Result["ciphertext"], "aad": "QQ=="}), 200, textSuccess)
	}
}

// batchSDK has our own client do the same.
func batchSDK(t *testing.T, g *target, c *tenant) {
	client, err := ehsm.New(ehsm.Config{URL: g.base(), CAFile: g.data("tls", "cert.pem"), AppID: c.appid, APIKey: ehsm.NewAPIKey(c.apikey)})
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	id, ec, rsa := c.createAES(t), c.create(t, "EH_EC_P256", "EH_KEYUSAGE_SIGN_VERIFY"), c.create(t, "EH_RSA_2048", "EH_KEYUSAGE_ENCRYPT_DECRYPT")
	texts := [][]byte{[]byte("a"), bytes.Repeat([]byte("b"), 180), []byte("c")}
	values := func(items []ehsm.BatchItem[[]byte], err error) (all [][]byte) {
		t.Helper()
		for _, item := range items {
			if err == nil {
				err = item.Err
			}
			all = append(all, item.Value)
		}
		if err != nil {
			t.Fatal(err)
		}
		return all
	}
	aad := ehsm.BatchAAD{Each: [][]byte{nil, []byte("x")}}
	anew := ehsm.ReEncryption{From: id, AAD: aad, NewAAD: ehsm.BatchAAD{All: []byte("y")}}
	cts := values(client.BatchReEncrypt(t.Context(), anew, values(client.BatchEncrypt(t.Context(), id, texts, aad))))
	got := values(client.BatchDecrypt(t.Context(), id, cts, ehsm.BatchAAD{All: []byte("y")}, ""))
	wrapped := values(client.BatchDecrypt(t.Context(), rsa, values(client.BatchEncrypt(t.Context(), rsa, texts, ehsm.BatchAAD{})), ehsm.BatchAAD{}, ""))
	for i := range texts {
		if !bytes.Equal(got[i], texts[i]) || !bytes.Equal(wrapped[i], texts[i]) {
			t.Errorf("item %d: got %q and %q, want %q", i, got[i], wrapped[i], texts[i])
		}
	}
	signatures := values(client.BatchSign(t.Context(), ec, texts, api.RawMessage, ehsm.SignatureOptions{}))
	signatures[1] = signatures[0]
	verdicts, err := client.BatchVerify(t.Context(), ec, texts, signatures, api.RawMessage, ehsm.SignatureOptions{})
	if err != nil || fmt.Sprint(verdicts) != "[{true <nil>} {false <nil>} {true <nil>}]" {
		t.Errorf("BatchVerify: %v, %v", verdicts, err)
	}
	items, err := client.BatchDecrypt(t.Context(), id, [][]byte{cts[0], []byte("none")}, ehsm.BatchAAD{All: []byte("y")}, "")
	if err != nil || items[0].Err != nil || !ehsm.IsDecryptionFailed(items[1].Err) {
		t.Errorf("BatchDecrypt: %v, %v", items, err)
	}
}

// batchBeside has requests of others served while private-key operations of a batch are
// under way.
func batchBeside(t *testing.T, c, other *tenant) {
	id, aes, ec := c.create(t, "EH_RSA_2048", "EH_KEYUSAGE_SIGN_VERIFY"), other.createAES(t), other.create(t, "EH_EC_P256", "EH_KEYUSAGE_SIGN_VERIFY")
	messages := make([]any, 400)
	for i := range messages {
		messages[i] = "AAAA"
	}
	batches := make(chan reply, 4)
	for range cap(batches) {
		go func() {
			r, err := c.try(t.Context(), "BatchSign", fields{"action": "BatchSign", "keyid": id, "messages": messages, "message_type": "EH_RAW", "padding_mode": "EH_RSA_PKCS1"})
			if err != nil {
				t.Error(err)
			}
			batches <- r
		}()
	}
	served := 0
	for done := 0; done < cap(batches); {
		want(t, other.call(t, "Encrypt", fields{"keyid": aes, "plaintext": "AAAA"}), 200, textSuccess)
		want(t, other.call(t, "Sign", fields{"keyid": ec, "message": "AAAA", "message_type": "EH_RAW"}), 200, textSuccess)
		served++
		select {
		case r := <-batches:
			want(t, r, 200, textSuccess)
			r.array(t, "signatures", len(messages))
			done++
		default:
		}
	}
	if t.Logf("%d rounds beside %d batches", served, cap(batches)); served < 10 {
		t.Errorf("beside %d batches of %d signatures there were %d rounds of others, want at least 10", cap(batches), len(messages), served)
	}
}

// TestBatchSealed has ehsm encrypt a file anew in sealed requests, which are longer than
// others may be.
func TestBatchSealed(t *testing.T) {
	t.Parallel()
	m := newMiddle(t, newTarget(t, dev))
	m.pin(t)
	p := []string{"--profile", "sealed"}
	run := func(args ...string) string { return m.must(t, "", append(args, p...)...) }
	key, next := run("key", "create"), run("key", "create")
	plain := fmt.Sprintf(`{"keyid":%q,"plaintexts":[%s]}`, key, strings.TrimSuffix(strings.Repeat(`"c2VjcmV0IGl0ZW0=",`, api.MaxBatch), ","))
	out := run("api", "BatchEncrypt", plain)
	var lines []string
	for _, line := range strings.Split(out, `"`) {
		if ct, err := base64.StdEncoding.DecodeString(line); err == nil && len(ct) > 90 {
			lines = append(lines, line)
		}
	}
	file := filepath.Join(t.TempDir(), "old")
	if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")), 0o600); err != nil {
		t.Fatal(err)
	}
	run("rewrap", file, "--to", next, "--out", file+".new")
	asked, replied := m.last()
	if len(asked) < 150<<10 || bytes.Contains(asked, []byte(lines[0][:40])) || !bytes.HasPrefix(replied, []byte(`{"code":200,"message":"sealed"`)) {
		t.Errorf("on its way: %d bytes %.60s, reply %.60s", len(asked), asked, replied)
	}
	text, err := os.ReadFile(file + ".new")
	if err != nil {
		t.Fatal(err)
	}
	anew := strings.Split(string(text), "\n")
	if len(lines) != api.MaxBatch || len(anew) != len(lines) {
		t.Fatalf("%d lines became %d, want %d", len(lines), len(anew), api.MaxBatch)
	}
	if got := m.must(t, anew[999], append([]string{"decrypt", "--key", next}, p...)...); got != "secret item" {
		t.Errorf("the last line decrypts to %q", got)
	}
}
