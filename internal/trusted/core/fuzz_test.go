package core

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"strconv"
	"testing"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	fuzzTenant = "86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c"
	fuzzKey    = "aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"
)

// fuzzHost has one tenant with a key, known to the seeds, so that a corpus keeps its
// meaning. What is random in the core does not decide any outcome.
func fuzzHost(f *testing.F) (*host, domain, *tenant) {
	d := newDomain(f)
	h := d.host(f, Limits{})
	c := h.adopt(d, fuzzTenant, "a key of the fuzz target's tenant")
	id := c.keyRecord(fuzzKey)
	version, material := id, secret.New(make([]byte, 16))
	version.Type, version.Version = wire.KeyVersion, 1
	v := record.KeyVersion{Spec: primitive.AESGCM128, Usage: record.EncryptDecrypt, Origin: record.Internal}
	k := record.Key{Spec: v.Spec, Usage: v.Usage, Origin: v.Origin, State: record.Active, Primary: 1}
	k.Versions = []record.Version{{Number: 1, State: record.Active, Digest: record.VersionDigest(version, v, material)}}
	sealedVersion, err := record.SealKeyVersion(d.keys, record.Header{ID: version, Revision: 1}, v, material)
	if err != nil {
		f.Fatal(err)
	}
	sealedKey, err := record.SealKey(d.keys, record.Header{ID: id, Revision: 1}, k)
	if err != nil {
		f.Fatal(err)
	}
	h.rows[id] = wire.Write{ID: id, Revision: 1, Sealed: sealedKey}
	h.rows[version] = wire.Write{ID: version, Revision: 1, Sealed: sealedVersion}
	want(f, "Encrypt", c.do(0, "Encrypt", encrypts(fuzzKey)), 200, "success!")
	return h, d, c
}

// FuzzCall sends any body with any action to a core that knows one tenant. The
// records it asks for are there, as far as they exist. Nothing but GetVersion and
// Enroll succeeds without a signature, which a mutated body does not have unless
// it is one of the seeds in other words.
func FuzzCall(f *testing.F) {
	h, d, c := fuzzHost(f)
	body := func(payload string) []byte {
		return c.signText(`{"appid":"`+fuzzTenant+`","timestamp":"`+c.stamp()+`","nonce":"1","payload":`+payload+`}`, canon.Skipping)
	}
	signed := map[string][]byte{ // by action
		"CreateKey":       body(`{"keyspec":"EH_AES_GCM_128","origin":"EH_INTERNAL_KEY","keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT"}`),
		"Encrypt":         body(`{"keyid":"` + fuzzKey + `","plaintext":"aGVsbG8=","aad":""}`),
		"GenerateDataKey": body(`{"keyid":"` + fuzzKey + `","keylen":16}`),
		"ListKey":         body(`{}`),
		"DeleteAllKey":    body(`{"action":"DeleteAllKey"}`),
		"DisableKey":      body(`{"keyid":"` + fuzzKey + `"}`),
	}
	var macs []string
	for _, action := range slices.Sorted(maps.Keys(signed)) {
		f.Add(action, false, signed[action])
		f.Add(action, true, bytes.ReplaceAll(signed[action], []byte("nonce"), []byte("ecnon")))
		macs = append(macs, signOf(signed[action]))
	}
	f.Add("Enroll", true, []byte(nil))
	f.Add("GetVersion", true, []byte(`{}`))
	f.Add("Enroll", false, []byte(`{"appid":"x"}`))
	f.Add("Encrypt", false, []byte(`{"appid":"`+fuzzTenant+`","timestamp":"`+c.stamp()+`","sign":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","payload":{}}`))
	rows := maps.Clone(h.rows)

	f.Fuzz(func(t *testing.T, action string, get bool, body []byte) {
		h.rows, h.history, h.frames, h.calls = maps.Clone(rows), nil, nil, nil
		clear(h.replays)
		h.cores[0] = d.start(t, h, Limits{}) // what it has seen must not depend on other inputs
		a, err := h.try(0, &wire.Call{Action: action, Get: get, Body: body})
		if err != nil {
			if len(action) > wire.MaxName || len(body) > wire.MaxBody {
				return
			}
			t.Fatalf("Call: %v", err)
		}
		checkEnvelope(t, a)
		open := get && (action == "Enroll" || action == "GetVersion")
		v, _ := canon.Parse(body)
		if genuine := slices.Contains(macs, v.Get("sign").Text()); a.Code == codeOK && !open && !genuine {
			t.Errorf("an unsigned %s succeeds: %s", action, a.Reply)
		} else if a.Sign != "" && !genuine {
			t.Errorf("the reply to an unsigned %s is signed: %s", action, a.Reply)
		}
	})
}

// stamp is the host's time as a request gives it.
func (c *tenant) stamp() string { return strconv.FormatInt(c.h.now.UnixMilli(), 10) }

// checkEnvelope checks what clients rely on in every reply.
func checkEnvelope(t *testing.T, a *wire.Answer) {
	t.Helper()
	var r struct {
		Code    *int
		Message *string
		Result  map[string]any
	}
	d := json.NewDecoder(bytes.NewReader(a.Reply))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil || d.More() {
		t.Fatalf("reply %q: %v", a.Reply, err)
	}
	switch {
	case a.Kind != wire.Final || r.Code == nil || r.Message == nil || r.Result == nil:
		t.Errorf("reply %q of kind %d lacks a member", a.Reply, a.Kind)
	case *r.Code != a.Code:
		t.Errorf("reply %q: Code is %d", a.Reply, a.Code)
	case !slices.Contains([]int{codeOK, codeBad, codeUnknown, codeTooMany, codeInternal}, a.Code):
		t.Errorf("reply %q: the code is unknown", a.Reply)
	case a.Code != codeOK && len(r.Result) != 0:
		t.Errorf("reply %q: an error has a result", a.Reply)
	}
}

// FuzzValidate checks any payload for any action: what passes has every required
// member within its bounds, and reading the members does not fail.
func FuzzValidate(f *testing.F) {
	all := actions()
	for _, payload := range []string{
		`{}`, `{"keyid":"` + fuzzKey + `","plaintext":"aGVsbG8=","aad":"YQ=="}`, `{"keyid":"` + fuzzKey + `","keylen":1024}`,
		`{"keyid":"` + fuzzKey + `","keylen":1e3}`, `{"keyspec":"EH_SM2","Keyspec":"EH_SM2","origin":"EH_INTERNAL_KEY","keyusage":null}`,
		`{"keyid":"` + fuzzKey + `","action":"EnableKey"}`, `{"x":[{}]}`, `{"keyid":"\ud800","plaintext":"===="}`,
	} {
		for _, name := range []string{"Encrypt", "Decrypt", "GenerateDataKey", "CreateKey", "EnableKey", "DeleteAllKey"} {
			f.Add(name, []byte(payload))
		}
	}
	f.Fuzz(func(t *testing.T, name string, payload []byte) {
		a := all[name]
		v, err := canon.Parse(payload)
		if a == nil || err != nil {
			return
		}
		p, err := validate(v, a.members, a.mutates)
		if err != nil {
			if r := asRefusal(err); r.code != codeBad || r.message == "" {
				t.Errorf("refused with %d %q", r.code, r.message)
			}
			return
		}
		for i := range a.members {
			m := &a.members[i]
			w, err := p.find(m)
			if err != nil || empty(w) && !m.optional {
				t.Fatalf("%s passes without %s", name, m.name)
			}
			p.text(m.name)
			p.integer(m.name)
			if b := p.bytes(m.name); m.kind == kindBase64 && (len(b) > m.max || !empty(w) && canon.UTF16Len(w.Text()) > m.max) {
				t.Errorf("%s passes with %d bytes of %s", name, len(b), m.name)
			}
			if n := w.Number(); m.kind == kindInteger && !empty(w) && (n < float64(m.min) || n > float64(m.max)) {
				t.Errorf("%s passes with %s = %v", name, m.name, n)
			}
		}
		if a.mutates {
			for member := range v.Members() {
				if !known(a.members, member) {
					t.Errorf("%s passes with the unknown member %q", name, member)
				}
			}
		}
	})
}
