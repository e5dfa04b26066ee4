package core

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

func unhex(t testing.TB, text string) []byte {
	t.Helper()
	b, err := hex.DecodeString(text)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// act calls an action that its payload names.
func (c *tenant) act(action string, payload m) reply {
	c.h.t.Helper()
	return c.do(0, action, with(payload, m{"action": action}))
}

func (c *tenant) mustAct(action string, payload m) reply {
	c.h.t.Helper()
	r := c.act(action, payload)
	if r.Code != 200 {
		c.h.t.Fatalf("%s: %d %s", action, r.Code, r.Message)
	}
	return r
}

// list returns an array of a result.
func (r reply) list(name string) []any { l, _ := r.Result[name].([]any); return l }

// outcomes returns what became of each item: its value, or code and text.
func (r reply) outcomes(t testing.TB, name string) (all []string) {
	t.Helper()
	for _, v := range r.list(name) {
		all = append(all, fmt.Sprint(v))
	}
	for _, f := range r.list("failures") {
		f := f.(m)
		i := int(f["index"].(float64))
		if i >= len(all) || all[i] != "<nil>" {
			t.Fatalf("failure of item %d of %d, which is %v", i, len(all), all[i])
		}
		all[i] = fmt.Sprintf("%v %v", f["code"], f["message"])
	}
	if slices.Contains(all, "<nil>") {
		t.Fatalf("null without a failure: %q", all)
	}
	return all
}

// plant stores a key with known material, one of each version, the last one primary.
func (h *host) plant(d domain, c *tenant, id wire.UUID, spec primitive.Spec, usage record.Usage, materials ...[]byte) string {
	h.t.Helper()
	name := wire.RecordID{Type: wire.Key, Tenant: c.id(), ID: id}
	k := record.Key{Spec: spec, Usage: usage, Origin: record.Internal, State: record.Active, Primary: uint32(len(materials))}
	v := record.KeyVersion{Spec: spec, Usage: usage, Origin: record.Internal}
	for i, b := range materials {
		version, material := name, secret.Copy(b)
		version.Type, version.Version = wire.KeyVersion, uint32(i+1)
		k.Versions = append(k.Versions, record.Version{Number: uint32(i + 1), State: record.Active, Digest: record.VersionDigest(version, v, material)})
		sealed, err := record.SealKeyVersion(d.keys, record.Header{ID: version, Revision: 1}, v, material)
		if err != nil {
			h.t.Fatal(err)
		}
		h.rows[version] = wire.Write{ID: version, Revision: 1, Sealed: sealed}
	}
	sealed, err := record.SealKey(d.keys, record.Header{ID: name, Revision: 1}, k)
	if err != nil {
		h.t.Fatal(err)
	}
	h.rows[name] = wire.Write{ID: name, Revision: 1, Sealed: sealed}
	return id.String()
}

// TestBatchKnownAnswers decrypts, and encrypts anew, the ciphertexts of format 1 that
// are kept from earlier releases.
func TestBatchKnownAnswers(t *testing.T) {
	text, err := os.ReadFile("../primitive/testdata/messages.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors struct {
		Messages []struct{ Name, Spec, Material, KeyID, AAD, Plaintext, Ciphertext string }
	}
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	h, d := newHost(t)
	c := h.enroll()
	n := 0
	for _, v := range vectors.Messages {
		spec, _ := primitive.ParseSpec(v.Spec)
		ciphertext := unhex(t, v.Ciphertext)
		if _, version, _ := primitive.PeekVersion(ciphertext); version != 1 || v.AAD != "" && ignoresAdditionalData(spec) || v.Plaintext == "" {
			continue
		}
		n++
		id := h.plant(d, c, wire.UUID(unhex(t, v.KeyID)), spec, record.EncryptDecrypt, unhex(t, v.Material))
		want := b64(unhex(t, v.Plaintext))
		payload := m{"keyid": id, "ciphertexts": []string{b64(ciphertext), "AAAA", b64(ciphertext)}, "aad": b64(unhex(t, v.AAD))}
		got := c.mustAct("BatchDecrypt", payload).outcomes(t, "plaintexts")
		if !slices.Equal(got, []string{want, "400 " + textDecryption, want}) {
			t.Errorf("%s: got %.200q, want %q", v.Name, got, want)
		}
		again := c.mustAct("BatchReEncrypt", payload).outcomes(t, "ciphertexts")
		opened := c.mustAct("BatchDecrypt", with(payload, m{"ciphertexts": []string{again[0], again[2]}})).outcomes(t, "plaintexts")
		if !slices.Equal(opened, []string{want, want}) || again[0] == again[2] || again[0] == b64(ciphertext) {
			t.Errorf("%s: encrypted anew it is %.200q", v.Name, opened)
		}
	}
	if n < 5 {
		t.Errorf("%d vectors were of use", n)
	}
}

// TestBatchIsSingles has each item come out as that of a request of its own.
func TestBatchIsSingles(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	flip := func(text string) string { b := unb64(t, text); b[len(b)-1] ^= 1; return b64(b) }
	for _, spec := range symmetricSpecs {
		id := c.mustCreate(spec, forCrypt)
		for _, aad := range []string{"", "YWFk"} {
			shared := m{"keyid": id, "aad": aad}
			cts := []string{"AAAA", b64(make([]byte, 93)), b64(make([]byte, 6200))}
			for _, n := range []int{1, 15, 16, 17, 6144} {
				ct := c.mustDo("Encrypt", with(shared, m{"plaintext": b64(make([]byte, n))})).text("ciphertext")
				cts = append(cts, ct, flip(ct), b64(append(unb64(t, ct), 0)), ct[:len(ct)-4])
			}
			cts = append(cts, c.mustAct("BatchEncrypt", with(shared, m{"plaintexts": []string{hello, "AA==", hello}})).outcomes(t, "ciphertexts")...)
			for other := range map[string]bool{"": true, "YWFl": true, aad: true} {
				var want []string
				for _, ct := range cts {
					want = append(want, single(c.do(0, "Decrypt", m{"keyid": id, "ciphertext": ct, "aad": other}), "plaintext"))
				}
				got := c.mustAct("BatchDecrypt", m{"keyid": id, "ciphertexts": cts, "aad": other}).outcomes(t, "plaintexts")
				if !slices.Equal(got, want) {
					t.Errorf("%s, additional data %q: got %.300q, want %.300q", spec, other, got, want)
				}
			}
		}
	}
	for _, row := range []struct{ spec, padding string }{{"EH_RSA_2048", oaep}, {"EH_RSA_2048", pkcs1}, {"EH_SM2", ""}} {
		shared := m{"keyid": c.mustCreate(row.spec, forCrypt), "padding_mode": row.padding}
		plaintexts := []string{hello, b64(make([]byte, 190)), b64(make([]byte, 245)), b64(make([]byte, 256)), b64(make([]byte, 6144))}
		cts := c.mustAct("BatchEncrypt", with(shared, m{"plaintexts": plaintexts})).outcomes(t, "ciphertexts")
		for i, p := range plaintexts {
			one := single(c.do(0, "AsymmetricEncrypt", with(shared, m{"plaintext": p})), "ciphertext")
			if strings.Contains(one, " ") != strings.Contains(cts[i], " ") || strings.Contains(one, " ") && one != cts[i] {
				t.Errorf("%s %s: item %d: got %.80q, alone %.80q", row.spec, row.padding, i, cts[i], one)
			}
			if strings.Contains(one, " ") {
				cts[i] = b64(make([]byte, 256))
			}
		}
		cts = append(cts, flip(cts[0]), "AAAA")
		var want []string
		for _, ct := range cts {
			want = append(want, single(c.do(0, "AsymmetricDecrypt", with(shared, m{"ciphertext": ct})), "plaintext"))
		}
		if got := c.mustAct("BatchDecrypt", with(shared, m{"ciphertexts": cts})).outcomes(t, "plaintexts"); !slices.Equal(got, want) {
			t.Errorf("%s %s: got %.300q, want %.300q", row.spec, row.padding, got, want)
		}
	}
	for what, id := range signKeys(c) {
		for _, kind := range []string{"EH_RAW", "EH_DIGEST"} {
			shared := m{"keyid": id, "message_type": kind, "padding_mode": pss}
			messages := []string{hello, b64(make([]byte, 32)), b64(make([]byte, 6144))}
			signed := c.mustAct("BatchSign", with(shared, m{"messages": messages})).outcomes(t, "signatures")
			var signatures, want []string
			for i, message := range messages {
				one := single(c.do(0, "Sign", with(shared, m{"message": message})), "signature")
				if strings.Contains(one, " ") != strings.Contains(signed[i], " ") || strings.Contains(one, " ") && one != signed[i] {
					t.Errorf("%s %s: message %d: got %.80q, alone %.80q", what, kind, i, signed[i], one)
				}
				if strings.Contains(one, " ") {
					one = b64(make([]byte, 513))
				}
				signatures = append(signatures, one)
			}
			messages, signatures = append(messages, messages...), append(signatures, "AAAA", signatures[0], b64(make([]byte, 513)))
			for i, message := range messages {
				want = append(want, single(c.do(0, "Verify", with(shared, m{"message": message, "signature": signatures[i]})), "result"))
			}
			got := c.mustAct("BatchVerify", with(shared, m{"messages": messages, "signatures": signatures})).outcomes(t, "results")
			if !slices.Equal(got, want) {
				t.Errorf("%s %s: got %q, want %q", what, kind, got, want)
			}
		}
	}
}

// single is what became of a request on one item, as outcomes has it.
func single(r reply, name string) string {
	if r.Code != 200 {
		return fmt.Sprintf("%d %s", r.Code, r.Message)
	}
	return fmt.Sprint(r.Result[name])
}

// TestBatchAAD has additional data of single items.
func TestBatchAAD(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id := c.createKey()
	plaintexts := []string{"AAAA", "BBBB", "CCCC", "DDDD"}
	cts := c.mustAct("BatchEncrypt", m{"keyid": id, "plaintexts": plaintexts, "aads": []any{"", "QQ==", nil}}).outcomes(t, "ciphertexts")
	for i, aad := range []string{"", "QQ==", "", ""} {
		want(t, "item", c.do(0, "Decrypt", m{"keyid": id, "ciphertext": cts[i], "aad": aad}), 200, "success!")
		want(t, "item with other additional data", c.do(0, "Decrypt", m{"keyid": id, "ciphertext": cts[i], "aad": "Qg=="}), 400, textDecryption)
	}
	bad := "400 " + textDecryption
	got := c.mustAct("BatchDecrypt", m{"keyid": id, "ciphertexts": cts, "aads": []any{"QQ==", "QQ=="}}).outcomes(t, "plaintexts")
	if !slices.Equal(got, []string{bad, "BBBB", "CCCC", "DDDD"}) {
		t.Errorf("BatchDecrypt: got %q", got)
	}
	moved := c.mustAct("BatchReEncrypt", m{"keyid": id, "ciphertexts": cts, "aads": []any{nil, "QQ=="}, "uaads": []any{nil, nil, "Qw=="}}).outcomes(t, "ciphertexts")
	got = c.mustAct("BatchDecrypt", m{"keyid": id, "ciphertexts": moved, "aads": []any{nil, "QQ==", "Qw=="}}).outcomes(t, "plaintexts")
	if !slices.Equal(got, plaintexts) {
		t.Errorf("encrypted anew, with old and new additional data: got %q", got)
	}
}

// TestBatchRefusals has the request refused as a whole.
func TestBatchRefusals(t *testing.T) {
	h, d := rsaHost(t)
	c, other := h.enroll(), h.enroll()
	id := c.createKey()
	ct := c.mustDo("Encrypt", encrypts(id)).text("ciphertext")
	off, gone, expired := c.createKey(), c.createKey(), c.createKey()
	c.mustDo("DisableKey", named(off))
	c.mustDo("DeleteKey", named(gone))
	h.alter(d, c, expired, func(k *record.Key) { k.Expires = 1 })
	signs, sm2, sm4 := c.mustCreate("EH_EC_P256", forSigns), c.mustCreate("EH_SM2", forCrypt), c.mustCreate("EH_SM4_CTR", forCrypt)
	rsaKey := c.mustCreate("EH_RSA_2048", forCrypt)
	const missing, invalid = "Missing required parameters, The ", "Parameter invalid, The "
	many := slices.Repeat([]string{"AAAA"}, api.MaxBatch+1)
	enc, dec := m{"keyid": id, "plaintexts": []string{hello}}, m{"keyid": id, "ciphertexts": []string{ct}}
	sign := m{"keyid": signs, "messages": []string{hello}, "message_type": "EH_RAW"}
	re := m{"keyid": id, "ciphertext": ct}
	type row struct {
		action  string
		base, m m
		code    int
		want    string
	}
	rows := []row{
		{"BatchEncrypt", enc, m{"keyid": nil}, 400, missing + "keyid cannot be empty."},
		{"BatchEncrypt", enc, m{"plaintexts": nil}, 400, missing + "plaintexts cannot be empty."},
		{"BatchEncrypt", enc, m{"plaintexts": []string{}}, 400, missing + "plaintexts cannot be empty."},
		{"BatchEncrypt", enc, m{"plaintexts": []string{"", hello}}, 400, missing + "plaintexts cannot be empty."},
		{"BatchEncrypt", enc, m{"plaintexts": []any{nil, hello}}, 400, missing + "plaintexts cannot be empty."},
		{"BatchEncrypt", enc, m{"plaintexts": hello}, 400, invalid + "plaintexts must be of array type."},
		{"BatchEncrypt", enc, m{"plaintexts": m{"0": hello}}, 400, invalid + "plaintexts must be of array type."},
		{"BatchEncrypt", enc, m{"plaintexts": many}, 400, invalid + "plaintexts length error."},
		{"BatchEncrypt", enc, m{"plaintexts": []any{hello, 5}}, 400, invalid + "plaintexts must be of string type."},
		{"BatchEncrypt", enc, m{"plaintexts": []any{hello, []string{hello}}}, 400, invalid + "plaintexts must be of string type."},
		{"BatchEncrypt", enc, m{"plaintexts": []any{hello, "aGVsbG8"}}, 400, invalid + "plaintexts not a vailed base64 string."},
		{"BatchEncrypt", enc, m{"plaintexts": []any{b64(make([]byte, 6145))}}, 400, invalid + "plaintexts length error."},
		{"BatchEncrypt", enc, m{"aads": []string{"QQ==", "QQ=="}}, 400, invalid + "aads length error."},
		{"BatchEncrypt", enc, m{"aads": []string{"QQ=="}, "aad": "QQ=="}, 400, invalid + "aads type is incorrect."},
		{"BatchEncrypt", enc, m{"aads": []any{7}}, 400, invalid + "aads must be of string type."},
		{"BatchEncrypt", enc, m{"aads": "QQ=="}, 400, invalid + "aads must be of array type."},
		{"BatchEncrypt", enc, m{"aads": []string{"?"}}, 400, invalid + "aads not a vailed base64 string."},
		{"BatchEncrypt", enc, m{"plaintext": hello}, 400, invalid + "plaintext type is incorrect."},
		{"BatchEncrypt", enc, m{"keyid": off}, 400, "keyid is disabled"},
		{"BatchEncrypt", enc, m{"keyid": gone}, 400, "keyid error"},
		{"BatchEncrypt", enc, m{"keyid": expired}, 400, "keyid expire"},
		{"BatchEncrypt", enc, m{"keyid": other.createKey()}, 400, "keyid error"},
		{"BatchEncrypt", enc, m{"keyid": signs}, 500, server},
		{"BatchEncrypt", enc, m{"keyid": sm2, "aad": "QQ=="}, 500, server},
		{"BatchEncrypt", enc, m{"keyid": rsaKey}, 400, missing + "padding_mode cannot be empty."},
		{"BatchEncrypt", enc, m{"keyid": rsaKey, "padding_mode": pss}, 500, server},
		{"BatchEncrypt", enc, m{"keyid": c.mustCreate("EH_HMAC", forSigns)}, 500, server},
		{"BatchDecrypt", dec, m{"ciphertexts": nil}, 400, missing + "ciphertexts cannot be empty."},
		{"BatchDecrypt", dec, m{"ciphertexts": []string{b64(make([]byte, maxCiphertext+3))}}, 400, invalid + "ciphertexts length error."},
		{"BatchDecrypt", dec, m{"keyid": off}, 400, "keyid is disabled"},
		{"BatchDecrypt", dec, m{"keyid": gone}, 400, "keyid error"},
		{"BatchDecrypt", dec, m{"keyid": signs}, 500, server},
		{"BatchDecrypt", dec, m{"keyid": rsaKey, "padding_mode": oaep, "aads": []string{"QQ=="}}, 500, server},
		{"BatchDecrypt", dec, m{"plaintexts": []string{hello}}, 400, invalid + "plaintexts type is incorrect."},
		{"BatchSign", sign, m{"message_type": nil}, 400, missing + "message_type cannot be empty."},
		{"BatchSign", sign, m{"messages": []string{}}, 400, missing + "messages cannot be empty."},
		{"BatchSign", sign, m{"keyid": id}, 500, server},
		{"BatchSign", sign, m{"keyid": c.mustCreate("EH_RSA_2048", forSigns)}, 400, missing + "padding_mode cannot be empty."},
		{"BatchSign", sign, m{"digest_mode": "EH_MD5"}, 400, invalid + "digest_mode type is incorrect."},
		{"BatchVerify", sign, nil, 400, missing + "signatures cannot be empty."},
		{"BatchVerify", sign, m{"signatures": []string{hello, hello}}, 400, invalid + "signatures length error."},
		{"BatchVerify", sign, m{"signatures": []string{hello}, "messages": []string{hello, hello}}, 400, invalid + "signatures length error."},
		{"ReEncrypt", re, m{"ciphertext": nil}, 400, missing + "ciphertext cannot be empty."},
		{"ReEncrypt", re, m{"ciphertext": "AAAA"}, 400, textDecryption},
		{"ReEncrypt", re, m{"aad": "QQ=="}, 400, textDecryption},
		{"ReEncrypt", re, m{"keyid": off}, 400, "keyid is disabled"},
		{"ReEncrypt", re, m{"keyid": gone}, 400, "keyid error"},
		{"ReEncrypt", re, m{"keyid": expired}, 400, "keyid expire"},
		{"ReEncrypt", re, m{"ukeyid": expired}, 400, "keyid expire"},
		{"ReEncrypt", re, m{"ukeyid": off}, 400, "keyid is disabled"},
		{"ReEncrypt", re, m{"ukeyid": gone}, 400, "keyid error"},
		{"ReEncrypt", re, m{"ukeyid": other.createKey()}, 400, "keyid error"},
		{"ReEncrypt", re, m{"ukeyid": signs}, 500, server},
		{"ReEncrypt", re, m{"ukeyid": rsaKey}, 500, server},
		{"ReEncrypt", re, m{"ukeyid": "x"}, 400, invalid + "ukeyid length error."},
		{"ReEncrypt", re, m{"keyid": rsaKey, "ukeyid": id}, 500, server},
		{"ReEncrypt", re, m{"uaads": []string{"QQ=="}}, 400, invalid + "uaads type is incorrect."},
		{"BatchReEncrypt", dec, m{"uaads": []string{"QQ==", "QQ=="}}, 400, invalid + "uaads length error."},
		{"BatchReEncrypt", dec, m{"uaads": []string{"QQ=="}, "uaad": "QQ=="}, 400, invalid + "uaads type is incorrect."},
		{"BatchReEncrypt", dec, m{"ukeyid": off}, 400, "keyid is disabled"},
		{"BatchReEncrypt", dec, m{"ukeyid": sm2}, 500, server},
	}
	for _, r := range rows {
		want(t, fmt.Sprintf("%s %.200v", r.action, r.m), c.act(r.action, with(r.base, r.m)), r.code, r.want)
	}
	// An expired key still decrypts, and what it has can be moved to another one.
	h.alter(d, c, expired, func(k *record.Key) { k.Expires = 0 })
	old := c.mustDo("Encrypt", encrypts(expired)).text("ciphertext")
	h.alter(d, c, expired, func(k *record.Key) { k.Expires = 1 })
	moved := c.mustAct("ReEncrypt", m{"keyid": expired, "ciphertext": old, "ukeyid": sm4, "uaad": "QQ=="}).text("ciphertext")
	back := c.mustAct("ReEncrypt", m{"keyid": sm4, "ciphertext": moved, "aad": "Qg==", "ukeyid": id}).text("ciphertext")
	if got := c.mustDo("Decrypt", m{"keyid": id, "ciphertext": back, "aad": "Qg=="}).text("plaintext"); got != hello {
		t.Errorf("moved twice: got %q", got)
	}
}

// TestBatchOnItsWay has the host change what the signature does not tell apart, and
// send it to other actions.
func TestBatchOnItsWay(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id, target := c.createKey(), c.createKey()
	ct := c.mustDo("Encrypt", with(encrypts(id), m{"aad": "QQ=="})).text("ciphertext")
	sign := func(payload string) string {
		return string(c.signText(c.request(strings.NewReplacer("ID", id, "TARGET", target, "CT", ct).Replace(payload)), canon.Skipping))
	}
	for _, tt := range []struct{ name, sent, action, payload, old, new, want string }{
		{"as it is", "BatchEncrypt", "BatchEncrypt", `{"action":"BatchEncrypt","keyid":"ID","plaintexts":["AAAA","BBBB"],"aads":["QQ==","Qg=="]}`, "", "", "success!"},
		{"two items made one", "BatchEncrypt", "BatchEncrypt", `{"action":"BatchEncrypt","keyid":"ID","plaintexts":["AAAA","BBBB"]}`,
			`"AAAA","BBBB"`, `"AAAA&1=BBBB"`, "Parameter invalid, The plaintexts not a vailed base64 string."},
		{"additional data of an item moved to another", "BatchEncrypt", "BatchEncrypt", `{"action":"BatchEncrypt","keyid":"ID","plaintexts":["AAAA","BBBB"],"aads":["QQ==","Qg=="]}`,
			`"QQ==","Qg=="`, `"QQ==&1=Qg=="`, "Parameter invalid, The aads not a vailed base64 string."},
		{"an array made an object", "BatchEncrypt", "BatchEncrypt", `{"action":"BatchEncrypt","keyid":"ID","plaintexts":["AAAA"]}`,
			`["AAAA"]`, `{"0":"AAAA"}`, "Parameter invalid, The plaintexts must be of array type."},
		{"additional data taken out", "BatchEncrypt", "BatchEncrypt", `{"aads":["QQ=="],"action":"BatchEncrypt","keyid":"ID","plaintexts":["AAAA"]}`,
			`"aads":["QQ=="],"action":`, `"aads=0=QQ==&action":`, "sign error"},
		{"the target taken out", "ReEncrypt", "ReEncrypt", `{"action":"ReEncrypt","keyid":"ID","ciphertext":"CT","aad":"QQ==","uaad":"Qg==","ukeyid":"TARGET"}`,
			`"uaad":"Qg==","ukeyid":`, `"uaad=Qg==&ukeyid":`, "Parameter invalid, The uaad=Qg==&ukeyid type is incorrect."},
		{"decrypted in place", "Decrypt", "ReEncrypt", `{"action":"ReEncrypt","keyid":"ID","ciphertext":"CT","aad":"QQ=="}`, "", "", "sign error"},
		{"not named", "ReEncrypt", "ReEncrypt", `{"keyid":"ID","ciphertext":"CT","aad":"QQ=="}`, "", "", "sign error"},
		{"a batch decrypted in place", "BatchDecrypt", "BatchReEncrypt", `{"action":"BatchReEncrypt","keyid":"ID","ciphertexts":["CT"],"aad":"QQ=="}`, "", "", "sign error"},
		{"a batch not named", "BatchReEncrypt", "BatchReEncrypt", `{"keyid":"ID","ciphertexts":["CT"],"aad":"QQ=="}`, "", "", "sign error"},
	} {
		body := sign(tt.payload)
		changed := strings.Replace(body, tt.old, tt.new, 1)
		if tt.old != "" && changed == body {
			t.Fatalf("%s: nothing was changed", tt.name)
		}
		if r := c.send(0, tt.sent, []byte(changed)); r.Message != tt.want {
			t.Errorf("%s: got %d %q, want %q", tt.name, r.Code, r.Message, tt.want)
		}
	}
}

// TestBatchVersions has ciphertexts of several versions of a key in one batch.
func TestBatchVersions(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	id, materials := wire.NewUUID(), [][]byte{}
	var cts []string
	for i := range api.MaxBatchVersions + 2 {
		materials = append(materials, []byte(fmt.Sprintf("%016d", i)))
		s, err := primitive.NewSymmetric(primitive.AESGCM128, secret.Copy(materials[i]), id, uint32(i+1))
		if err != nil {
			t.Fatal(err)
		}
		ct, err := s.Encrypt(nil, []byte{byte(i)}, nil)
		if err != nil {
			t.Fatal(err)
		}
		cts = append(cts, b64(ct))
	}
	key := h.plant(d, c, id, primitive.AESGCM128, record.EncryptDecrypt, materials...)
	foreign := unb64(t, cts[0])
	foreign[20] = 99 // a version that there is not
	cts = append(cts, b64(foreign))
	n := api.MaxBatchVersions
	chosen := append(slices.Clone(cts[:n]), cts[n+2], cts[0])
	got := c.mustAct("BatchDecrypt", m{"keyid": key, "ciphertexts": chosen}).outcomes(t, "plaintexts")
	for i := range n {
		if got[i] != b64([]byte{byte(i)}) {
			t.Errorf("version %d: got %q", i+1, got[i])
		}
	}
	if got[n] != "400 "+textDecryption || got[n+1] != "AA==" {
		t.Errorf("the last ones: got %q", got[n:])
	}
	want(t, "one version more", c.act("BatchDecrypt", m{"keyid": key, "ciphertexts": cts[:n+1]}), 400, api.MessageBatchVersions)
	want(t, "one version more", c.act("BatchReEncrypt", m{"keyid": key, "ciphertexts": cts[:n+1]}), 400, api.MessageBatchVersions)
	for _, ct := range c.mustAct("BatchReEncrypt", m{"keyid": key, "ciphertexts": cts[:n]}).outcomes(t, "ciphertexts") {
		if _, version, _ := primitive.PeekVersion(unb64(t, ct)); version != uint32(n+2) {
			t.Errorf("encrypted anew under version %d, want %d", version, n+2)
		}
	}
	h.alter(d, c, key, func(k *record.Key) { k.Versions[0].State = record.Suspended })
	got = c.mustAct("BatchDecrypt", m{"keyid": key, "ciphertexts": cts[:2]}).outcomes(t, "plaintexts")
	if !slices.Equal(got, []string{"400 " + textDecryption, "AQ=="}) {
		t.Errorf("a version that is suspended: got %q", got)
	}
	h.alter(d, c, key, func(k *record.Key) { k.Versions[1].Digest[0] ^= 1 })
	want(t, "a version that does not belong to the key", c.act("BatchDecrypt", m{"keyid": key, "ciphertexts": cts[1:3]}), 500, api.MessageInternal)
}

// TestBatchPKCS1Failures counts each failed item as a request of its own.
func TestBatchPKCS1Failures(t *testing.T) {
	h, _ := rsaHost(t)
	h.now = h.now.Truncate(time.Minute)
	c := h.enroll()
	id := c.mustCreate("EH_RSA_2048", forCrypt)
	good := c.mustDo("AsymmetricEncrypt", m{"keyid": id, "plaintext": hello, "padding_mode": pkcs1}).text("ciphertext")
	cts := slices.Repeat([]string{b64(make([]byte, 256))}, maxPKCS1Failures+1)
	cts = append(append([]string{good}, cts...), good)
	got := c.mustAct("BatchDecrypt", m{"keyid": id, "ciphertexts": cts, "padding_mode": pkcs1}).outcomes(t, "plaintexts")
	for i, o := range got {
		want := "400 " + textDecryption
		switch {
		case i == 0:
			want = hello
		case i > maxPKCS1Failures:
			want = "429 Too many requests."
		}
		if o != want {
			t.Errorf("item %d: got %q, want %q", i, o, want)
		}
	}
	want(t, "afterwards", c.do(0, "AsymmetricDecrypt", m{"keyid": id, "ciphertext": good, "padding_mode": pkcs1}), 429, "Too many requests.")
}

// TestBatchAudit has one entry for a batch, which tells how many items there were, and
// of both keys.
func TestBatchAudit(t *testing.T) {
	h, _ := rsaHost(t)
	c := h.enroll()
	id, target := c.createKey(), c.createKey()
	ct := c.mustDo("Encrypt", encrypts(id)).text("ciphertext")
	h.frames = nil
	c.act("BatchEncrypt", m{"keyid": id, "plaintexts": []string{hello, hello}})
	c.act("BatchDecrypt", m{"keyid": id, "ciphertexts": []string{ct, "AAAA", ct, "AAAA"}})
	c.act("BatchReEncrypt", m{"keyid": id, "ciphertexts": []string{ct, "AAAA"}, "ukeyid": target})
	c.act("ReEncrypt", m{"keyid": id, "ciphertext": ct})
	c.act("ReEncrypt", m{"keyid": id, "ciphertext": "AAAA", "ukeyid": target})
	c.act("BatchSign", m{"keyid": id, "messages": []string{hello}, "message_type": "EH_RAW"})
	c.act("BatchDecrypt", m{"keyid": c.mustCreate("EH_RSA_2048", forCrypt), "ciphertexts": []string{ct}, "padding_mode": pkcs1})
	c.mustDo("DisableKey", named(target))
	c.act("ReEncrypt", m{"keyid": id, "ciphertext": ct, "ukeyid": target})
	want := []string{
		"BatchEncrypt 200 ok, 2 items",
		"BatchDecrypt 200 ok, 4 items, 2 failed: decryption failed",
		"BatchReEncrypt 200 ok, to " + target + "/1, 2 items, 1 failed: decryption failed",
		"ReEncrypt 200 ok, to " + id + "/1",
		"ReEncrypt 400 decryption failed, to " + target + "/1",
		"BatchSign 500 key type",
		"CreateKey 200 ok",
		"BatchDecrypt 200 ok, 1 items, 1 failed: PKCS#1 v1.5 decryption failed",
		"DisableKey 200 ok",
		"ReEncrypt 400 target: key disabled, to " + target,
	}
	if got := reasons(t, h); !slices.Equal(got, want) {
		t.Errorf("trail: got %q, want %q", got, want)
	}
}

// TestBatchTurns has a batch of private-key operations wait for its turns, in which
// others are served, and go on when they come.
func TestBatchTurns(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	id, aes := c.mustCreate("EH_EC_P256", forSigns), c.createKey()
	body := c.body(m{"action": "BatchSign", "keyid": id, "messages": []string{hello, hello}, "message_type": "EH_RAW"})
	gate, taken := h.cores[0].batches, 0
	for other := (wire.UUID{1}); ; taken++ { // all of another tenant's
		if turn, _ := gate.Ask(other); turn != nil {
			break
		}
	}
	signed := make(chan *wire.Answer)
	go func() { signed <- h.call(0, &wire.Call{Action: "BatchSign", Body: body}) }()
	for gate.Stats().Waiting < 2 {
		runtime.Gosched()
	}
	want(t, "Encrypt beside it", c.do(0, "Encrypt", encrypts(aes)), 200, "success!")
	c.mustAct("BatchEncrypt", m{"keyid": aes, "plaintexts": []string{hello}})
	for range taken + 1 {
		gate.Leave(wire.UUID{1})
	}
	want(t, "BatchSign", parseReply(t, <-signed), 200, "success!")
	if s := gate.Stats(); s.Taken != 0 || s.Waiting != 0 {
		t.Errorf("turns at the end: %+v", s)
	}
}

// FuzzBatch sends any payload, rightly signed. What succeeds has an outcome for each
// item, the same as alone.
func FuzzBatch(f *testing.F) {
	h, _, c := fuzzHost(f)
	ct := c.mustDo("Encrypt", encrypts(fuzzKey)).text("ciphertext")
	for _, items := range []string{`["CT"]`, `["CT","AAAA",""]`, `["CT",null]`, `[""]`, `[["CT"]]`, `"CT"`, `["AAAA&1=CT"]`} {
		items = strings.ReplaceAll(items, "CT", ct)
		f.Add([]byte(`{"action":"BatchDecrypt","keyid":"` + fuzzKey + `","ciphertexts":` + items + `}`))
		f.Add([]byte(`{"action":"BatchDecrypt","keyid":"` + fuzzKey + `","ciphertexts":` + items + `,"aads":` + items + `}`))
	}
	f.Add([]byte(`{"action":"BatchDecrypt","keyid":"` + fuzzKey + `","ciphertexts":["` + ct + `"],"aad":"QQ==","aads":[null]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		v, err := canon.Parse(payload)
		if err != nil {
			return
		}
		h.t, h.frames, h.calls = t, nil, nil
		clear(h.replays)
		h.cores[0].replays = newReplays(1024, 1024, 10*minutes)
		for form := range v.Forms() {
			r := c.send(0, "BatchDecrypt", c.signText(c.request(string(payload)), form))
			if r.Code != 200 {
				if len(r.Result) != 0 {
					t.Errorf("a refusal has the result %v", r.Result)
				}
				continue
			}
			got, shared := r.outcomes(t, "plaintexts"), v.Get("aad").Text()
			if v.Get("ciphertexts").Len() < len(got) {
				t.Fatalf("%d outcomes of %d items", len(got), v.Get("ciphertexts").Len())
			}
			for i, o := range got {
				aad := shared
				if aad == "" {
					aad = v.Get("aads").Elem(i).Text()
				}
				one := c.do(0, "Decrypt", m{"keyid": fuzzKey, "ciphertext": v.Get("ciphertexts").Elem(i).Text(), "aad": aad})
				if want := single(one, "plaintext"); o != want {
					t.Errorf("item %d: got %q, alone %q", i, o, want)
				}
			}
		}
	})
}
