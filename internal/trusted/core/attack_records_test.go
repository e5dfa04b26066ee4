package core

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// forgeries are attacks without any credential.
var forgeries = []attack{
	{"requests without a signature", func(a *attacker) bool {
		text := a.alice.request("")
		done := a.succeeds(0, "ListKey", []byte(text))
		for _, sign := range []string{"", "AAAA", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="} {
			done = done || a.succeeds(0, "ListKey", withSign(text, sign))
		}
		return done
	}},
	{"a signature under an empty or chosen API key", func(a *attacker) bool {
		done := false
		for _, key := range []string{"", "chosen", a.bob.apikey} {
			thief := &tenant{h: a.host, appid: a.alice.appid, apikey: key}
			done = done || a.succeeds(0, "ListKey", thief.body(nil))
		}
		return done
	}},
	{"a tenant that does not exist", func(a *attacker) bool {
		thief := &tenant{h: a.host, appid: wire.NewUUID().String()}
		return a.succeeds(0, "ListKey", thief.body(nil)) || a.succeeds(0, "CreateKey", thief.body(newKey))
	}},
	{"an app record of the attacker's making", func(a *attacker) bool {
		id := appID(a.alice.id())
		w := a.rows[id]
		w.Sealed = append(w.Sealed[:len(w.Sealed)-apiKeyLen-16:len(w.Sealed)-apiKeyLen-16], make([]byte, 16)...)
		a.rows[id] = w
		thief := &tenant{h: a.host, appid: a.alice.appid}
		return a.succeeds(a.start(), "ListKey", thief.body(nil))
	}},
	{"an altered app record", func(a *attacker) bool {
		return a.altered(appID(a.alice.id()), func(core int) bool { return a.succeeds(core, "ListKey", a.alice.body(nil)) })
	}},
	{"an altered key record", func(a *attacker) bool {
		key := a.alice.createKey()
		return a.altered(a.alice.keyRecord(key), func(core int) bool { return a.usable(core, a.alice, key) })
	}},
	{"an altered key version", func(a *attacker) bool {
		key := a.alice.createKey()
		return a.altered(a.version(a.alice, key), func(core int) bool { return a.usable(core, a.alice, key) })
	}},
	{"enrollment in a domain that is closed", func(a *attacker) bool {
		a.domain.settings.Enrollment = manifest.EnrollmentClosed
		answer, err := a.try(a.start(), &wire.Call{Action: "Enroll", Get: true})
		return err == nil && answer.Code == codeOK
	}},
	{"enrollment in production", func(a *attacker) bool {
		a.domain.settings.Mode = manifest.Production // with open enrollment, which no manifest says
		answer, err := a.try(a.start(), &wire.Call{Action: "Enroll", Get: true})
		return err == nil && answer.Code == codeOK
	}},
	{"a genesis opened for enrollment", func(a *attacker) bool {
		dir := a.t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(a.domain.dir)); err != nil {
			a.t.Fatal(err)
		}
		name := filepath.Join(dir, domainkey.GenesisFile)
		b, err := os.ReadFile(name)
		if err != nil {
			a.t.Fatal(err)
		}
		edited := bytes.Replace(b, []byte(`"requestWindowSeconds": 600`), []byte(`"requestWindowSeconds": 3600`), 1)
		if bytes.Equal(b, edited) {
			a.t.Fatal("the genesis is not edited")
		}
		if err := os.WriteFile(name, edited, 0o600); err != nil {
			a.t.Fatal(err)
		}
		_, _, err = domainkey.Open(dir, a.domain.platform, secret.NewHeap())
		return err == nil
	}},
	{"an app record of a domain of the attacker", func(a *attacker) bool {
		thief := &tenant{h: a.host, appid: a.alice.appid, apikey: "chosen"}
		a.putApp(newDomain(a.t), thief, 1, record.App{State: record.Active})
		return a.succeeds(a.start(), "ListKey", thief.body(nil))
	}},
}

// altered tries a record with changed, missing and additional bytes, each on a
// core that has not seen the record.
func (a *attacker) altered(id wire.RecordID, works func(core int) bool) bool {
	w := a.rows[id]
	try := func(sealed []byte) bool {
		a.rows[id] = wire.Write{ID: id, Revision: w.Revision, Sealed: sealed}
		core := a.start()
		defer func() { a.cores = a.cores[:core] }()
		return works(core)
	}
	if !try(w.Sealed) {
		a.t.Fatal("preparation: the genuine record is refused")
	}
	done := try(w.Sealed[:len(w.Sealed)-1]) || try(append(slices.Clone(w.Sealed), 0)) || try(nil)
	for i := 0; i < len(w.Sealed); i += 5 {
		b := slices.Clone(w.Sealed)
		b[i] ^= 1 << (i % 8)
		done = done || try(b)
	}
	return done
}

func (a *attacker) version(c *tenant, keyid string) wire.RecordID {
	id := c.keyRecord(keyid)
	id.Type, id.Version = wire.KeyVersion, 1
	return id
}

// relabel presents one record as another one.
func (a *attacker) relabel(as, id wire.RecordID) {
	a.rows[as] = wire.Write{ID: as, Revision: max(a.rows[as].Revision, 1), Sealed: a.rows[id].Sealed}
}

// mixtures present genuine records as what they are not, to a core that has seen
// none of them.
var mixtures = []attack{
	{"bob's app record as that of alice", func(a *attacker) bool {
		a.relabel(appID(a.alice.id()), appID(a.bob.id()))
		thief := &tenant{h: a.host, appid: a.alice.appid, apikey: a.bob.apikey}
		return a.succeeds(a.start(), "ListKey", thief.body(nil))
	}},
	{"alice's key for a request of bob", func(a *attacker) bool {
		key := a.alice.createKey()
		return a.usable(a.start(), a.bob, key)
	}},
	{"alice's key under the name of bob", func(a *attacker) bool {
		key := a.alice.createKey()
		a.relabel(a.bob.keyRecord(key), a.alice.keyRecord(key))
		a.relabel(a.version(a.bob, key), a.version(a.alice, key))
		return a.usable(a.start(), a.bob, key)
	}},
	{"alice's key by alice's name in a call of bob", func(a *attacker) bool {
		key := a.alice.createKey()
		a.edit = func(r *wire.Ref) {
			if r.ID.Type != wire.App {
				w := a.rows[wire.RecordID{Type: r.ID.Type, Tenant: a.alice.id(), ID: r.ID.ID, Version: r.ID.Version}]
				*r = wire.Ref{ID: w.ID, Revision: w.Revision, Tag: w.Tag(), Sealed: w.Sealed}
			}
		}
		return a.usable(a.start(), a.bob, key)
	}},
	{"alice's material in bob's key", func(a *attacker) bool {
		key, target := a.bob.createKey(), a.alice.createKey()
		a.relabel(a.version(a.bob, key), a.version(a.alice, target))
		return a.usable(a.start(), a.bob, key)
	}},
	{"material of another key of the tenant", func(a *attacker) bool {
		key, target := a.alice.createKey(), a.alice.createKey()
		a.relabel(a.version(a.alice, key), a.version(a.alice, target))
		return a.usable(a.start(), a.alice, key)
	}},
	{"an enabled key record for a disabled key", func(a *attacker) bool {
		enabled, disabled := a.alice.createKey(), a.alice.createKey()
		a.must(0, a.alice, "DisableKey", named(disabled))
		a.relabel(a.alice.keyRecord(disabled), a.alice.keyRecord(enabled))
		return a.usable(a.start(), a.alice, disabled)
	}},
	{"an older state under a newer number", func(a *attacker) bool {
		key := a.alice.createKey()
		older := a.rows[a.alice.keyRecord(key)]
		a.must(0, a.alice, "DisableKey", named(key))
		older.Revision = 3
		a.rows[older.ID] = older
		return a.usable(0, a.alice, key)
	}},
	{"other material that was sealed for the same version", func(a *attacker) bool {
		// As a rotation would leave behind that two nodes did at once.
		key := a.alice.createKey()
		id := a.version(a.alice, key)
		material, err := primitive.NewMaterial(primitive.AESGCM256)
		if err != nil {
			a.t.Fatal(err)
		}
		v := record.KeyVersion{Spec: primitive.AESGCM256, Usage: record.EncryptDecrypt, Origin: record.Internal}
		sealed, err := record.SealKeyVersion(a.domain.keys, record.Header{ID: id, Revision: 1}, v, material)
		if err != nil {
			a.t.Fatal(err)
		}
		a.rows[id] = wire.Write{ID: id, Revision: 1, Sealed: sealed}
		return a.usable(a.start(), a.alice, key)
	}},
	{"records of other types", func(a *attacker) bool {
		key := a.alice.createKey()
		ids := []wire.RecordID{appID(a.alice.id()), a.alice.keyRecord(key), a.version(a.alice, key)}
		genuine, done := a.snapshot(), false
		for _, as := range ids {
			for _, id := range ids {
				if as != id {
					a.rows = maps.Clone(genuine)
					a.relabel(as, id)
					done = done || a.usable(a.start(), a.alice, key)
				}
			}
		}
		return done
	}},
	{"a key of a domain of the attacker", func(a *attacker) bool {
		key := wire.RecordID{Type: wire.Key, Tenant: a.alice.id(), ID: wire.NewUUID()}
		v := key
		v.Type, v.Version = wire.KeyVersion, 1
		foreign := newDomain(a.t)
		attributes := record.KeyVersion{Spec: primitive.AESGCM128, Usage: record.EncryptDecrypt, Origin: record.Internal}
		material := secret.New(make([]byte, 16))
		sealedVersion, err := record.SealKeyVersion(foreign.keys, record.Header{ID: v, Revision: 1}, attributes, material)
		if err != nil {
			a.t.Fatal(err)
		}
		sealedKey, err := record.SealKey(foreign.keys, record.Header{ID: key, Revision: 1}, record.Key{
			Spec: primitive.AESGCM128, Usage: record.EncryptDecrypt, Origin: record.Internal, State: record.Active, Primary: 1,
			Versions: []record.Version{{Number: 1, State: record.Active, Digest: record.VersionDigest(v, attributes, material)}},
		})
		if err != nil {
			a.t.Fatal(err)
		}
		a.rows[key] = wire.Write{ID: key, Revision: 1, Sealed: sealedKey}
		a.rows[v] = wire.Write{ID: v, Revision: 1, Sealed: sealedVersion}
		return a.usable(0, a.alice, key.ID.String())
	}},
}
