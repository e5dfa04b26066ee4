package core

import (
	"bytes"
	"crypto/ed25519"
	"crypto/hpke"
	"encoding/base64"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// A rekeyScene is a domain with three custodians, two of whom decide, and a tenant who
// has lost everything.
type rekeyScene struct {
	*host
	domain     domain
	custodians []hpke.PrivateKey
	frank      *admin
	alice      *tenant
	key        string  // of alice
	owner      *holder // whom she wants to be
}

func newRekeyScene(t *testing.T) *rekeyScene {
	t.Helper()
	s := &rekeyScene{domain: newDomain(t)}
	q := &manifest.Quorum{Threshold: 2}
	for _, name := range []string{"dave", "erin", "fay"} {
		key, err := hpke.MLKEM768X25519().GenerateKey()
		if err != nil {
			t.Fatal(err)
		}
		s.custodians = append(s.custodians, key)
		q.Members = append(q.Members, manifest.Person{Name: name, Key: key.PublicKey().Bytes()})
	}
	s.domain.custodians = q
	s.host = s.domain.host(t, Limits{})
	s.frank, s.alice = s.admin("frank"), s.enroll()
	s.key = s.alice.createKey()
	s.owner = &holder{tenant: s.alice, ed25519: adminKey("alice")}
	return s
}

func (s *rekeyScene) public() string {
	return base64.StdEncoding.EncodeToString(s.owner.ed25519.Public().(ed25519.PublicKey))
}

// about is what custodians are asked, and what they approve.
func (s *rekeyScene) about() map[string]any {
	return map[string]any{"appid": s.alice.appid, "kind": "ed25519", "publicKey": s.public()}
}

// prepare asks for approvals and has all custodians open theirs.
func (s *rekeyScene) prepare(t *testing.T) (finish map[string]any, approvals []string) {
	t.Helper()
	p := s.about()
	p["seconds"] = 3600
	r := s.frank.must(api.PrepareRekey, p)
	finish = s.about()
	for _, name := range []string{"revision", "expires", "domainKey"} {
		finish[name] = r.Result[name]
	}
	if r.Result["threshold"] != 2.0 || len(listOf(r)) != 3 {
		t.Fatalf("got %v", r.Result)
	}
	of := api.Rekey{
		Domain: s.cores[0].keys.Domain(), AppID: s.alice.id(), Kind: "ed25519", PublicKey: s.owner.ed25519.Public().(ed25519.PublicKey),
		Revision: uint64(finish["revision"].(float64)), Expires: int64(finish["expires"].(float64)), DomainKey: uint32(finish["domainKey"].(float64)),
	}
	for i, c := range listOf(r) {
		c := c.(map[string]any)
		enc, _ := base64.StdEncoding.DecodeString(c["enc"].(string))
		sealed, _ := base64.StdEncoding.DecodeString(c["ciphertext"].(string))
		o, err := hpke.NewRecipient(enc, s.custodians[i], hpke.HKDFSHA256(), hpke.AES256GCM(), of.Statement())
		if err != nil {
			t.Fatal(err)
		}
		approval, err := o.Open(nil, sealed)
		if err != nil || len(approval) != api.RekeyApprovalSize || bytes.Contains(r.answer.Reply, approval) {
			t.Fatalf("custodian %d: got %d bytes, %v", i, len(approval), err)
		}
		approvals = append(approvals, base64.StdEncoding.EncodeToString(approval))
		of.AppID[0] ^= 1 // another statement: it does not open
		if o, err = hpke.NewRecipient(enc, s.custodians[i], hpke.HKDFSHA256(), hpke.AES256GCM(), of.Statement()); err != nil {
			t.Fatal(err)
		}
		if _, err := o.Open(nil, sealed); err == nil {
			t.Error("a custodian can be shown another statement")
		}
		of.AppID[0] ^= 1
	}
	return finish, approvals
}

func TestRekey(t *testing.T) {
	s := newRekeyScene(t)
	other, id := s.alice.newAPIKey(t, nil)
	old := s.rows[appID(s.alice.id())]
	finish, approvals := s.prepare(t)
	finish["approvals"] = []any{approvals[2], approvals[0]}
	s.owner.credential = s.frank.must(api.RekeyApp, finish).text("credentialId")

	want(t, "its key", s.owner.do("Encrypt", encrypts(s.key)), 200, "success!")
	want(t, "the lost API key", s.alice.do(0, "ListKey", nil), 400, "sign error")
	want(t, "the other API key", other.do(0, "ListKey", nil), 400, "sign error")
	list := mustName(t, s.owner, "ListCredentials", nil).Result["credentials"].([]any)
	if len(list) != 1 || list[0].(map[string]any)["role"] != "owner" || list[0].(map[string]any)["credentialId"] == id {
		t.Errorf("got %v", list)
	}
	want(t, "again", s.frank.ask(0, api.RekeyApp, finish), 400, api.MessageRekey)

	// The row of before is not accepted again, by a new core either.
	s.rows[old.ID] = old
	s.cores = append(s.cores, s.domain.start(t, s.host, Limits{}))
	for core := range s.cores {
		if r := s.alice.do(core, "ListKey", nil); r.Code == 200 {
			t.Errorf("core %d: a lost API key is good again", core)
		}
	}
}

func TestRekeyRefusals(t *testing.T) {
	for _, row := range []struct {
		name    string
		change  func(s *rekeyScene, finish map[string]any, approvals []string) []string
		message string
	}{
		{"one approval", func(_ *rekeyScene, _ map[string]any, a []string) []string { return a[:1] }, api.MessageRekey},
		{"one approval twice", func(_ *rekeyScene, _ map[string]any, a []string) []string { return []string{a[0], a[0]} }, api.MessageRekey},
		{"one, and none", func(_ *rekeyScene, _ map[string]any, a []string) []string {
			return []string{a[0], base64.StdEncoding.EncodeToString(make([]byte, 32))}
		}, api.MessageRekey},
		{"many tries", func(_ *rekeyScene, _ map[string]any, a []string) []string { return slices.Repeat(a[:1], 4) }, api.MessageRekey},
		{"another public key", func(s *rekeyScene, f map[string]any, a []string) []string {
			f["publicKey"] = adding("mallory")["publicKey"]
			return a
		}, api.MessageRekey},
		{"another app", func(s *rekeyScene, f map[string]any, a []string) []string {
			f["appid"] = s.enroll().appid
			return a
		}, api.MessageRekey},
		{"a later end", func(s *rekeyScene, f map[string]any, a []string) []string {
			f["expires"] = f["expires"].(float64) + 1
			return a
		}, api.MessageRekey},
		{"a DomainKey that is not there", func(s *rekeyScene, f map[string]any, a []string) []string {
			f["domainKey"] = 7
			return a
		}, api.MessageRekey},
		{"after its end", func(s *rekeyScene, _ map[string]any, a []string) []string {
			s.now = s.now.Add(time.Hour)
			return a
		}, api.MessageRekey},
		{"after a change of the app", func(s *rekeyScene, _ map[string]any, a []string) []string {
			s.alice.mustDo("DeleteAllKey", nil)
			return a
		}, api.MessageRekey},
		{"after a change of the app, with its number", func(s *rekeyScene, f map[string]any, a []string) []string {
			s.alice.mustDo("DeleteAllKey", nil)
			f["revision"] = f["revision"].(float64) + 1
			return a
		}, api.MessageRekey},
		{"a deleted app", func(s *rekeyScene, _ map[string]any, a []string) []string {
			s.frank.must(api.DeleteApp, map[string]any{"appid": s.alice.appid})
			return a
		}, api.MessageAppUnknown},
		{"the domain itself", func(s *rekeyScene, f map[string]any, a []string) []string {
			f["appid"] = api.DomainAppID
			return a
		}, api.MessageAppUnknown},
		{"a key that is none", func(s *rekeyScene, f map[string]any, a []string) []string {
			f["publicKey"] = "AAAA"
			return a
		}, api.MessageAdminKey},
		{"custodians who were replaced", func(s *rekeyScene, _ map[string]any, a []string) []string {
			next := *s.cores[0].terms.Load()
			q := *next.custodians
			q.Members = q.Members[2:]
			next.custodians = &q
			s.cores[0].terms.Store(&next)
			return a[:2]
		}, api.MessageRekey},
		{"no custodians", func(s *rekeyScene, _ map[string]any, a []string) []string {
			next := *s.cores[0].terms.Load()
			next.custodians = nil
			s.cores[0].terms.Store(&next)
			return a
		}, api.MessageRekeyNobody},
	} {
		t.Run(row.name, func(t *testing.T) {
			s := newRekeyScene(t)
			finish, approvals := s.prepare(t)
			given := []any{}
			for _, a := range row.change(s, finish, approvals) {
				given = append(given, a)
			}
			finish["approvals"] = given
			before := maps.Clone(s.rows)
			want(t, row.name, s.frank.ask(0, api.RekeyApp, finish), 400, row.message)
			for id, w := range s.rows {
				if old := before[id]; old.Revision != w.Revision {
					t.Errorf("%s was changed", id)
				}
			}
		})
	}
	s := newRekeyScene(t)
	p := s.about()
	p["seconds"], p["action"] = 3600, api.PrepareRekey
	want(t, "a tenant", s.alice.do(0, api.PrepareRekey, p), 404, "API Not Found")
	p["appid"] = wire.NewUUID().String()
	want(t, "nobody's app", s.frank.ask(0, api.PrepareRekey, p), 400, api.MessageAppUnknown)
}

// A suspended app stays so: administrators end what they have begun.
func TestRekeySuspended(t *testing.T) {
	s := newRekeyScene(t)
	named := map[string]any{"appid": s.alice.appid}
	s.frank.must(api.DisableApp, named)
	finish, approvals := s.prepare(t)
	finish["approvals"] = []any{approvals[0], approvals[1]}
	s.owner.credential = s.frank.must(api.RekeyApp, finish).text("credentialId")
	want(t, "suspended", s.owner.do("Encrypt", encrypts(s.key)), 400, "sign error")
	s.frank.must(api.EnableApp, named)
	want(t, "enabled", s.owner.do("Encrypt", encrypts(s.key)), 200, "success!")
}
