package record

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Offsets in attributes, docs/formats.md#sealed-record-v1.
const (
	atLayout     = 0 // of all types
	atAppState   = 1
	atAppExposed = 2
	atSpec       = 1 // of keys and key versions
	atUsage      = 2
	atOrigin     = 3
	atKeyState   = 4
	atPaddings   = 5
	atDefault    = 6
	atCount      = 47
	atVersions   = 51
	atDestroy    = 47 // of layout 2
	atProtected  = 55
	atPeriod     = 64
	atDescribed  = 76
	atStated     = 4 // state, in a version
	atSecret     = 1 // state of a secret
	atCurrent    = 18
	atIncarnated = 30
	atSecretKey  = 46
	atInterval   = 62 // length of the interval
	atVersionKey = 9  // key of a secret version
	atKeyVersion = 25 // its version
	atWrapping   = 1  // of import sessions
	atSession    = 2  // their state
)

// set returns a change of one byte.
func set(at int, value byte) func([]byte) []byte {
	return func(b []byte) []byte { b[at] = value; return b }
}

func cut(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:len(b)-n] } }

func add(more ...byte) func([]byte) []byte {
	return func(b []byte) []byte { return append(b, more...) }
}

// count sets the number of versions and appends that many of them.
func count(stated uint32, numbers ...uint32) func([]byte) []byte {
	return func(b []byte) []byte {
		binary.BigEndian.PutUint32(b[atCount:], stated)
		b = b[:atVersions]
		for _, n := range numbers {
			v := make([]byte, versionV1Size)
			binary.BigEndian.PutUint32(v, n)
			v[atStated] = byte(Active)
			b = append(b, v...)
		}
		return b
	}
}

// inLayout2 says in layout 2 what layout 1 can say.
func inLayout2(b []byte) []byte {
	life := make([]byte, 8+1+4+4+2+8+2+4+4)
	v := bytes.Clone(b[atVersions:])
	v = append(v[:13:13], append(make([]byte, 8), v[13:]...)...)
	b = append(append(b[:atCount:atCount], life...), 0, 0, 0, 1)
	b[atLayout] = 2
	return append(b, v...)
}

func upTo(n uint32) (numbers []uint32) {
	for i := range n {
		numbers = append(numbers, i+1)
	}
	return numbers
}

// TestBadAttributes has records that are genuine in every way but say what this
// code does not know.
func TestBadAttributes(t *testing.T) {
	r := rings(t)[oneVersion]
	const app, key, version = "new app", "AES key", "AES key, version 1"
	const named, gone, value = "secret", "secret that is gone", "secret, version 1"
	const policy = "quote policy"
	const whole = "key with all that layout 2 says"
	const rsa, session, used = "RSA key that admits PSS only", "import session, opaque key pair of 600 bytes", "import session after too many failures"
	for _, row := range []struct {
		name, record string
		change       func([]byte) []byte
		cause        string
	}{
		{"app of layout 0", app, set(atLayout, 0), "layout 0 is unknown"},
		{"app of layout 3", app, set(atLayout, 3), "layout 3 is unknown"},
		{"app without attributes", app, cut(47), "got 0 bytes"},
		{"app cut short", app, cut(1), "malformed"},
		{"app with a byte more", app, add(0), "1 trailing bytes"},
		{"app without a state", app, set(atAppState, 0), "no state 0"},
		{"app of a key's state", app, set(atAppState, byte(Deactivated)), "no state 4"},
		{"app in pre-activation", app, set(atAppState, byte(PreActivation)), "no state 1"},
		{"app of an unknown state", app, set(atAppState, 255), "no state 255"},
		{"app exposed twice", app, set(atAppExposed, 2), "boolean is 2"},
		{"key of layout 0", key, set(atLayout, 0), "layout 0 is unknown"},
		{"key of layout 3", key, set(atLayout, 3), "layout 3 is unknown"},
		{"key of layout 1 in layout 2", key, inLayout2, "layout 1 in layout 2"},
		{"key of layout 2 cut short", whole, cut(1), "count"},
		{"key of layout 2 with a byte more", whole, add(0), "1 trailing bytes"},
		{"key to be destroyed before 1970", whole, set(atDestroy, 0x80), "before 1970"},
		{"key to be destroyed that is not deleted", whole, func(b []byte) []byte { clear(b[31:39]); return b }, "is not deleted"},
		{"key protected twice", whole, set(atProtected, 2), "boolean is 2"},
		{"key that rotates too late", whole, set(atPeriod, 0xa), "after 2650 days, limit 2560"},
		{"key that rotates without a period", whole, func(b []byte) []byte { clear(b[atPeriod : atPeriod+2]); return b }, "with a period of 0 days"},
		{"key that does not rotate after its period", whole, func(b []byte) []byte { clear(b[atPeriod+2 : atPeriod+10]); return b }, "next rotation at 0"},
		{"description that is no UTF-8", whole, set(atDescribed, 0xff), "description"},
		{"alias that is none", whole, func(b []byte) []byte { return bytes.Replace(b, []byte("mail"), []byte("ma l"), 1) }, "alias"},
		{"aliases out of order", whole, func(b []byte) []byte { return bytes.Replace(b, []byte("mail"), []byte("zail"), 1) }, "alias"},
		{"tag without a name", whole, func(b []byte) []byte {
			return bytes.Replace(b, []byte("\x00\x04team\x00\x04post"), []byte("\x00\x00\x00\x08teampost"), 1)
		}, "name of a tag"},
		{"tag twice", whole, func(b []byte) []byte { return bytes.Replace(b, []byte("team"), []byte("cost"), 1) }, "follows"},
		{"tag that is no UTF-8", whole, func(b []byte) []byte { return bytes.Replace(b, []byte("post"), []byte("pos\xff"), 1) }, "value of tag"},
		{"version to be destroyed before 1970", whole, func(b []byte) []byte { b[len(b)-versionV2Size+13] = 0x80; return b }, "before 1970"},
		{"key without attributes", key, cut(atVersions + versionV1Size), "got 0 bytes"},
		{"key cut short", key, cut(1), "count"},
		{"key with a byte more", key, add(0), "1 trailing bytes"},
		{"key with a version more", key, add(make([]byte, versionV1Size)...), "45 trailing bytes"},
		{"key without a spec", key, set(atSpec, 0), "spec"},
		{"key of an unknown spec", key, set(atSpec, 255), "spec"},
		{"key without a usage", key, set(atUsage, 0), "usage 0 is unknown"},
		{"key of an unknown usage", key, set(atUsage, 3), "usage 3 is unknown"},
		{"key without an origin", key, set(atOrigin, 0), "origin 0 is unknown"},
		{"key of an unknown origin", key, set(atOrigin, 3), "origin 3 is unknown"},
		{"key without a state", key, set(atKeyState, 0), "state 0 is unknown"},
		{"key of an unknown state", key, set(atKeyState, 7), "state 7 is unknown"},
		{"AES key with paddings", key, set(atPaddings, byte(primitive.AllowOAEP)), "padding set 0x4 does not fit"},
		{"RSA key without paddings", rsa, set(atPaddings, 0), "padding set 0x0 does not fit"},
		{"RSA key of an unknown padding", rsa, set(atPaddings, 8), "padding set 0x8 does not fit"},
		{"RSA key of all paddings and an unknown one", rsa, set(atPaddings, 15), "padding set 0xf does not fit"},
		{"RSA key relabelled as EC", rsa, set(atSpec, byte(primitive.ECP256)), "padding set 0x2 does not fit"},
		{"default twice", key, set(atDefault, 2), "boolean is 2"},
		{"version without a state", key, set(atVersions+atStated, 0), "version 1: state 0 is unknown"},
		{"version of an unknown state", key, set(atVersions+atStated, 7), "version 1: state 7 is unknown"},
		{"fewer versions than counted", key, count(2, 1), "count 2"},
		{"more versions than counted", key, count(1, 1, 2), "trailing bytes"},
		{"too many versions", key, count(MaxVersions+1, upTo(MaxVersions+1)...), "count 1001"},
		{"far too many versions", key, count(math.MaxUint32, 1), "count 4294967295"},
		{"version 0", key, count(1, 0), "version 0 follows"},
		{"version twice", key, count(2, 1, 1), "version 1 follows version 1"},
		{"versions out of order", key, count(3, 1, 3, 2), "version 2 follows version 3"},
		{"key version of layout 0", version, set(atLayout, 0), "layout 0 is unknown"},
		{"key version of layout 2", version, set(atLayout, 2), "layout 2 is unknown"},
		{"key version without attributes", version, cut(12), "got 0 bytes"},
		{"key version cut short", version, cut(1), "malformed"},
		{"key version with a byte more", version, add(0), "1 trailing bytes"},
		{"key version without a spec", version, set(atSpec, 0), "spec"},
		{"key version of an unknown spec", version, set(atSpec, 255), "spec"},
		{"key version of an unknown usage", version, set(atUsage, 3), "usage 3 is unknown"},
		{"key version without an origin", version, set(atOrigin, 0), "origin 0 is unknown"},
		{"session of layout 0", session, set(atLayout, 0), "layout 0 is unknown"},
		{"session of layout 2", session, set(atLayout, 2), "layout 2 is unknown"},
		{"session without attributes", session, cut(39), "got 0 bytes"},
		{"session cut short", session, cut(1), "malformed"},
		{"session with a byte more", session, add(0), "1 trailing bytes"},
		{"session without a wrapping spec", session, set(atWrapping, 0), "is no RSA spec"},
		{"session of an AES wrapping spec", session, set(atWrapping, byte(primitive.AESGCM256)), "is no RSA spec"},
		{"session of an unknown wrapping spec", session, set(atWrapping, 255), "is no RSA spec"},
		{"session without a state", session, set(atSession, 0), "session state 0 is unknown"},
		{"session of an unknown state", session, set(atSession, 4), "session state 4 is unknown"},
		{"used session with a key pair", session, set(atSession, byte(SessionUsed)), "state 2 with a key pair of 600 bytes"},
		{"exhausted session with a key pair", session, set(atSession, byte(SessionExhausted)), "state 3 with a key pair of 600 bytes"},
		{"quote policy of layout 0", policy, set(atLayout, 0), "layout 0 is unknown"},
		{"quote policy of layout 2", policy, set(atLayout, 2), "layout 2 is unknown"},
		{"quote policy cut short", policy, cut(1), "malformed"},
		{"quote policy without a signer", policy, cut(32), "malformed"},
		{"quote policy with a byte more", policy, add(0), "1 trailing bytes"},
		{"quote policy without a date", policy, func(b []byte) []byte { clear(b[1:9]); return b }, "no date"},
		{"open session without a key pair", used, set(atSession, byte(SessionOpen)), "state 1 with a key pair of 0 bytes"},
	} {
		s := sample(t, row.record)
		attributes, _ := openByLayout(t, r, s.Sealed)
		sealed := mustSeal(t, r.Keyring, s.header(), row.change(bytes.Clone(attributes)), s.Material)
		refused(t, row.name, r.Keyring, s.header(), sealed, row.cause)
	}
	for _, row := range []struct {
		name     string
		material []byte
		cause    string
	}{
		{"nothing", nil, "malformed"},
		{"name alone", []byte("\x00\x01n"), "malformed"},
		{"no name", []byte("\x00\x00\x00\x01d"), "no name"},
		{"name cut short", []byte("\x00\x05n\x00\x01d"), "malformed"},
		{"a byte more", []byte("\x00\x01n\x00\x01d."), "1 trailing bytes"},
		{"long name", join([]byte("\x00\xc1"), make([]byte, maxSecretName+3)), "over the limit"},
		{"long description", join([]byte("\x00\x01n\x30\x01"), make([]byte, maxDescription+1)), "over the limit"},
	} {
		s := sample(t, named)
		attributes, _ := openByLayout(t, r, s.Sealed)
		refused(t, "secret with material of "+row.name, r.Keyring, s.header(), mustSeal(t, r.Keyring, s.header(), attributes, row.material), row.cause)
	}
	s := sample(t, key)
	attributes, _ := openByLayout(t, r, s.Sealed)
	refused(t, "key with material", r.Keyring, s.header(), mustSeal(t, r.Keyring, s.header(), attributes, []byte("material")), "has material")
	s = sample(t, policy)
	attributes, _ = openByLayout(t, r, s.Sealed)
	refused(t, "quote policy with material", r.Keyring, s.header(), mustSeal(t, r.Keyring, s.header(), attributes, []byte("material")), "has material")
}

func mustSeal(t testing.TB, keys *domainkey.Keyring, h Header, attributes, material []byte) []byte {
	t.Helper()
	sealed, err := seal(keys, h, attributes, secret.Copy(material))
	if err != nil {
		t.Fatal(err)
	}
	return sealed
}

// TestExtremeAttributes has the ends of every number's range.
func TestExtremeAttributes(t *testing.T) {
	keys := rings(t)[oneVersion].Keyring
	const last = math.MaxUint32
	h := Header{wire.RecordID{Tenant: wire.UUID{1}, ID: wire.UUID{2}, Version: last}, math.MaxUint64}
	for _, want := range []any{
		App{
			State: Active, Created: math.MinInt64, Modified: math.MaxInt64, Generation: last, GenerationAt: -1,
			Credentials: []Credential{FirstCredential(math.MinInt64)},
		},
		App{State: Suspended, Exposed: true, Credentials: []Credential{FirstCredential(0)}},
		App{State: Active, Name: strings.Repeat("~", MaxText), Credentials: keyPairs(MaxCredentials)},
		Key{
			Spec: primitive.HMAC, Usage: SignVerify, Origin: External, State: Destroyed,
			Created: math.MinInt64, Modified: -1, Expires: math.MaxInt64, Deleted: 1, Generation: last, Primary: last,
			Versions: []Version{{1, Compromised, math.MinInt64, 0, [32]byte{255}}, {last, PreActivation, math.MaxInt64, 0, [32]byte{31: 1}}},
		},
		Key{Spec: primitive.AESGCM128, Usage: EncryptDecrypt, Origin: Internal, State: PreActivation, Versions: []Version{}},
		Key{Spec: primitive.RSA4096, Usage: EncryptDecrypt, Origin: Internal, State: Active, Paddings: 7, Versions: []Version{}},
		Key{Spec: primitive.RSA2048, Usage: SignVerify, Origin: Internal, State: Active, Paddings: primitive.AllowPSS, Versions: []Version{}},
		KeyVersion{Spec: primitive.SM2, Usage: SignVerify, Origin: External, Created: math.MinInt64},
		ImportSession{primitive.RSA4096, SessionExhausted, [16]byte{255, 15: 255}, math.MinInt64, math.MaxInt64, last},
		ImportSession{Wrapping: primitive.RSA2048, State: SessionUsed},
		ImportSession{Wrapping: primitive.RSA3072, State: SessionOpen, Created: -1},
		Key{Spec: primitive.AESGCM128, Usage: EncryptDecrypt, Origin: Internal, State: Active, Default: true, Versions: []Version{}},
		Secret{
			State: Active, Created: math.MinInt64, Modified: math.MaxInt64, Current: last, Planned: math.MaxInt64,
			Incarnation: wire.UUID{15: 1}, Key: wire.UUID{1}, Interval: "9999d", Rotated: -1,
			Name: strings.Repeat("\u4e00", 64), Description: strings.Repeat("\u4e00", 4096),
		},
		Secret{State: Active, Current: 1, Incarnation: wire.UUID{1}, Key: wire.UUID{15: 1}, Name: "\x00"},
		Secret{State: Destroyed, Modified: math.MaxInt64},
		SecretVersion{Created: math.MinInt64, Key: wire.UUID{1}, KeyVersion: last},
		QuotePolicy{math.MinInt64, [32]byte{255}, [32]byte{31: 255}},
		QuotePolicy{Created: 1},
		App{State: Destroyed, Name: "n", Credentials: []Credential{}},
		Token{[32]byte{255, 31: 1}, strings.Repeat("~", MaxText), User, MaxTokenUses, MaxTokenUses, true, math.MinInt64, math.MaxInt64, wire.UUID{15: 1}},
		Token{Role: Owner, Uses: 1, Expires: 1},
		Policy{Created: math.MinInt64, Modified: math.MaxInt64, Actions: policyActions(MaxPolicyActions), Keys: policyKeys(MaxPolicyKeys), Description: strings.Repeat("~", MaxText)},
		Policy{Actions: []string{"a"}, AllKeys: true},
		Policy{Deleted: math.MinInt64},
	} {
		sealed, err := sealAny(keys, &h, want, nil)
		if err != nil {
			t.Errorf("seal %+v: %v", want, err)
			continue
		}
		if got, _, err := openAny(keys, h, sealed); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("open: got %+v, %v, want %+v", got, err, want)
		}
	}
}

// policyActions makes names of actions as long as they may be.
func policyActions(n int) (names []string) {
	for i := range n {
		names = append(names, strings.Repeat("a", MaxText-3)+fmt.Sprintf("%03d", i))
	}
	return names
}

func policyKeys(n int) (keys []wire.UUID) {
	for i := range n {
		keys = append(keys, wire.UUID{byte(i >> 8), byte(i)})
	}
	return keys
}

// sealAny seals attributes of any type and sets the type in h. Types that have
// none of their own, or need some, get material.
func sealAny(keys *domainkey.Keyring, h *Header, attributes any, material []byte) ([]byte, error) {
	switch a := attributes.(type) {
	case App:
		h.ID.Type = wire.App
		return SealApp(keys, *h, a, splitByLayout(a, material))
	case Key:
		h.ID.Type = wire.Key
		return SealKey(keys, *h, a)
	case ImportSession:
		h.ID.Type = wire.ImportSession
		if material == nil {
			material = leastMaterial(a.State)
		}
		return SealImportSession(keys, *h, a, secret.Copy(material))
	case Secret:
		h.ID.Type = wire.Secret
		return SealSecret(keys, *h, a)
	case SecretVersion:
		h.ID.Type = wire.SecretVersion
		return SealSecretVersion(keys, *h, a, material)
	case QuotePolicy:
		h.ID.Type = wire.QuotePolicy
		return SealQuotePolicy(keys, *h, a)
	case Token:
		h.ID.Type = wire.Token
		return SealToken(keys, *h, a)
	case Policy:
		h.ID.Type = wire.Policy
		return SealPolicy(keys, *h, a)
	}
	h.ID.Type = wire.KeyVersion
	return SealKeyVersion(keys, *h, attributes.(KeyVersion), secret.Copy(material))
}

// leastSecret is what a secret must have: a name unless it is gone.
func leastSecret(s State) []byte {
	if s == Destroyed {
		return make([]byte, 4)
	}
	return []byte{0, 1, 'n', 0, 0}
}

// leastMaterial is what a session must have.
func leastMaterial(s SessionState) []byte {
	if s == SessionOpen {
		return []byte{1}
	}
	return nil
}

// TestSealRefusals has records that could not be opened again.
func TestSealRefusals(t *testing.T) {
	keys := rings(t)[oneVersion].Keyring
	good := sample(t, "AES key").key()
	with := func(change func(*Key)) Key {
		k := good
		change(&k)
		return k
	}
	for _, row := range []struct {
		name       string
		attributes any
		cause      string
	}{
		{"app without a state", App{}, "no state 0"},
		{"app in an unknown state", App{State: Compromised}, "no state 5"},
		{"destroyed app with a credential", App{State: Destroyed, Credentials: []Credential{FirstCredential(0)}}, "destroyed"},
		{"key without attributes", Key{}, "spec"},
		{"key without a usage", with(func(k *Key) { k.Usage = 0 }), "usage 0"},
		{"key without an origin", with(func(k *Key) { k.Origin = 0 }), "origin 0"},
		{"key without a state", with(func(k *Key) { k.State = 0 }), "state 0"},
		{"key with too many versions", with(func(k *Key) { k.Versions = make([]Version, MaxVersions+1) }), "1001 versions, limit 1000"},
		{"AES key with paddings", with(func(k *Key) { k.Paddings = primitive.AllowPSS }), "padding set 0x2 does not fit spec EH_AES_GCM_256"},
		{"RSA key without paddings", with(func(k *Key) { k.Spec = primitive.RSA3072 }), "padding set 0x0 does not fit spec EH_RSA_3072"},
		{"SM2 key with paddings", with(func(k *Key) { k.Spec, k.Paddings = primitive.SM2, primitive.AllowOAEP }), "padding set 0x4 does not fit"},
		{"session without attributes", ImportSession{}, "is no RSA spec"},
		{"session without a state", ImportSession{Wrapping: primitive.RSA2048}, "session state 0"},
		{"session of an unknown state", ImportSession{Wrapping: primitive.RSA2048, State: 4}, "session state 4"},
		{"version 0", with(func(k *Key) { k.Versions = []Version{{State: Active}} }), "version 0"},
		{"version without a state", with(func(k *Key) { k.Versions = []Version{{Number: 1}} }), "state 0"},
		{"version twice", with(func(k *Key) { k.Versions = []Version{good.Versions[0], good.Versions[0]} }), "version 1 follows version 1"},
		{"secret without attributes", Secret{}, "no state 0"},
		{"secret that is suspended", Secret{State: Suspended}, "no state 3"},
		{"destroyed secret with a name", Secret{State: Destroyed, Name: "n"}, "destroyed"},
		{"destroyed secret with a date", Secret{State: Destroyed, Planned: 1}, "destroyed"},
		{"secret without a name", Secret{State: Active, Current: 1, Incarnation: wire.UUID{1}, Key: wire.UUID{1}}, "no name"},
		{"secret with a long name", Secret{State: Active, Current: 1, Incarnation: wire.UUID{1}, Key: wire.UUID{1}, Name: strings.Repeat("n", maxSecretName+1)}, "name of"},
		{"secret with a long description", Secret{State: Active, Current: 1, Incarnation: wire.UUID{1}, Key: wire.UUID{1}, Name: "n", Description: strings.Repeat("n", maxDescription+1)}, "description of"},
		{"secret with a long interval", Secret{State: Active, Current: 1, Incarnation: wire.UUID{1}, Key: wire.UUID{1}, Name: "n", Interval: "10000d"}, "interval of"},
		{"secret version without a key", SecretVersion{KeyVersion: 1}, "no key"},
		{"policy without attributes", Policy{}, "without actions"},
		{"policy without actions", Policy{Keys: policyKeys(1)}, "without actions"},
		{"policy about no key", Policy{Actions: []string{"a"}}, "about no key"},
		{"policy about all keys and one", Policy{Actions: []string{"a"}, AllKeys: true, Keys: policyKeys(1)}, "about all keys with keys"},
		{"deleted policy with actions", Policy{Deleted: 1, Actions: policyActions(1)}, "deleted policy"},
		{"deleted policy with keys", Policy{Deleted: 1, Keys: policyKeys(1)}, "deleted policy"},
		{"deleted policy about all keys", Policy{Deleted: 1, AllKeys: true}, "deleted policy"},
		{"policy with too many actions", Policy{Actions: policyActions(MaxPolicyActions + 1), AllKeys: true}, "65 actions, limit 64"},
		{"policy with too many keys", Policy{Actions: policyActions(1), Keys: policyKeys(MaxPolicyKeys + 1)}, "257 keys, limit 256"},
		{"policy with an empty action", Policy{Actions: []string{""}, AllKeys: true}, "printable"},
		{"policy with an action that cannot be shown", Policy{Actions: []string{"a\n"}, AllKeys: true}, "printable"},
		{"policy with a long action", Policy{Actions: []string{strings.Repeat("a", MaxText+1)}, AllKeys: true}, "printable"},
		{"policy with an action twice", Policy{Actions: []string{"a", "a"}, AllKeys: true}, "action a follows action a"},
		{"policy with actions out of order", Policy{Actions: []string{"b", "a"}, AllKeys: true}, "action a follows action b"},
		{"policy with a key twice", Policy{Actions: []string{"a"}, Keys: []wire.UUID{{1}, {1}}}, "follows key"},
		{"policy with keys out of order", Policy{Actions: []string{"a"}, Keys: []wire.UUID{{2}, {1}}}, "follows key"},
		{"policy with a description that cannot be shown", Policy{Actions: []string{"a"}, AllKeys: true, Description: "\x7f"}, "printable"},
		{"token without attributes", Token{}, "role 0"},
		{"token without uses", Token{Role: Owner, Expires: 1}, "0 uses"},
		{"token with too many uses", Token{Role: Owner, Uses: MaxTokenUses + 1, Expires: 1}, "10001 uses"},
		{"token used too often", Token{Role: Owner, Uses: 1, Used: 2, Expires: 1}, "used 2 times of 1"},
		{"token without an end", Token{Role: Owner, Uses: 1}, "expires before"},
		{"token with a name that cannot be shown", Token{Role: User, Uses: 1, Expires: 1, Name: "\n"}, "printable"},
		{"quote policy without a date", QuotePolicy{MREnclave: [32]byte{1}}, "no date"},
		{"key version without attributes", KeyVersion{}, "spec"},
		{"key version without an origin", KeyVersion{Spec: good.Spec, Usage: good.Usage}, "origin 0"},
	} {
		sealed, err := sealAny(keys, &Header{}, row.attributes, nil)
		if err == nil || sealed != nil || !strings.Contains(err.Error(), row.cause) {
			t.Errorf("%s: got %d bytes, %v, want %q", row.name, len(sealed), err, row.cause)
		}
	}
	app, version := sample(t, "new app"), sample(t, "AES key, version 1")
	named := sample(t, "import session, opaque key pair of 600 bytes")
	session, ended := named.importSession(), named.importSession()
	ended.State = SessionUsed
	for name, f := range map[string]func() ([]byte, error){
		"app named as key": func() ([]byte, error) {
			return SealApp(keys, version.header(), app.app(), []secret.Bytes{secret.New([]byte{1})})
		},
		"key named as version": func() ([]byte, error) { return SealKey(keys, version.header(), good) },
		"session named as key": func() ([]byte, error) {
			return SealImportSession(keys, sample(t, "AES key").header(), session, secret.New([]byte{1}))
		},
		"session without key pair": func() ([]byte, error) { return SealImportSession(keys, named.header(), session, secret.Bytes{}) },
		"used session with one":    func() ([]byte, error) { return SealImportSession(keys, named.header(), ended, secret.New([]byte{1})) },
		"key version named as app": func() ([]byte, error) { return SealKeyVersion(keys, app.header(), *version.KeyVersion, secret.Bytes{}) },
	} {
		if sealed, err := f(); err == nil || sealed != nil {
			t.Errorf("%s: got %d bytes, want a refusal", name, len(sealed))
		}
	}
}

// FuzzAttributes decodes what is inside the seal. The salt is random but nothing
// looks at it.
func FuzzAttributes(f *testing.F) {
	r := rings(f)[oneVersion]
	for _, name := range ofEachType {
		s := sample(f, name)
		attributes, _, _ := open(r.Keyring, s.header(), s.Sealed)
		f.Add(byte(s.Type), attributes)
	}
	_, token := releasedToken(f)
	f.Add(byte(wire.Token), token)
	f.Fuzz(func(t *testing.T, typ byte, attributes []byte) {
		h := Header{ID: wire.RecordID{Type: wire.RecordType((typ+byte(wire.Policy)-1)%byte(wire.Policy) + 1)}}
		if len(attributes) > maxAttributes {
			return
		}
		var material []byte
		if h.ID.Type == wire.ImportSession && len(attributes) > atSession {
			material = leastMaterial(SessionState(attributes[atSession]))
		}
		if h.ID.Type == wire.Secret && len(attributes) > atSecret {
			material = leastSecret(State(attributes[atSecret]))
		}
		got, _, err := openAny(r.Keyring, h, mustSeal(t, r.Keyring, h, attributes, material))
		if err != nil {
			return
		}
		sealed, err := sealAny(r.Keyring, &h, got, nil)
		if err != nil {
			t.Fatalf("seal %+v, which was opened: %v", got, err)
		}
		if again, _ := openByLayout(t, r, sealed); !bytes.Equal(again, attributes) {
			t.Errorf("two encodings of one value: %x and %x", attributes, again)
		}
	})
}
