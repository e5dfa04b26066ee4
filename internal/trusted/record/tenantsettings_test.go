package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/jwt"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// settingsByLayout is written by hand from docs/formats.md: a rule for tokens and one
// for quotes.
const settingsByLayout = "01" + "0000000000000005" + "00000002" + // modified, rules
	"0a000000000000000000000000000000" + "0003" + "776562" + // id, web
	"0b000000000000000000000000000000" + "0000003c" + "0000000000000006" + // policy, 60 s, created
	"0c000000000000000000000000000000" + "01" + // by, issuer
	"0001" + "69" + "0001" + "61" + "0002" + "732a" + // i, a, s*
	"00000001" + "0002" + "2f6e" + "0001" + "76" + // /n is v
	"00000001" + "0002" + "6b31" + "05" + "00000020" + // k1, EdDSA
	"d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a" +
	"0d000000000000000000000000000000" + "0001" + "70" + // id, p
	"00000000000000000000000000000000" + "0000a8c0" + "0000000000000007" + // no policy, 12 h, created
	"0c000000000000000000000000000000" + "02" + // by, program
	"0000000000000000000000000000000000000000000000000000000000000000" + // no MRENCLAVE
	"0e00000000000000000000000000000000000000000000000000000000000000" + "0003" + "0104" // MRSIGNER, 3, 260

func releasedSettings(t testing.TB) (TenantSettings, []byte) {
	t.Helper()
	b, err := hex.DecodeString(settingsByLayout)
	if err != nil {
		t.Fatal(err)
	}
	key, err := hex.DecodeString("d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a")
	if err != nil {
		t.Fatal(err)
	}
	return TenantSettings{Modified: 5, Rules: []LoginRule{
		{ID: wire.UUID{10}, Name: "web", Policy: wire.UUID{11}, Lifetime: 60, Created: 6, By: wire.UUID{12}, Issuer: &jwt.Expected{
			Issuer: "i", Audience: "a", Subject: "s*", Claims: []jwt.Claim{{Name: "/n", Value: "v"}},
			Keys: []jwt.Key{{ID: "k1", Algorithm: jwt.EdDSA, Public: key}},
		}},
		{ID: wire.UUID{13}, Name: "p", Lifetime: 43200, Created: 7, By: wire.UUID{12}, Code: &ClientCode{MRSigner: [32]byte{14}, Product: 3, MinSVN: 260}},
	}}, b
}

func settingsHeader() Header {
	return Header{ID: wire.RecordID{Type: wire.TenantSettings, Tenant: wire.UUID{1}, ID: wire.UUID{1}}, Revision: 5}
}

func TestTenantSettingsByLayout(t *testing.T) {
	r, h := rings(t)[oneVersion], settingsHeader()
	want, attributes := releasedSettings(t)
	got, err := OpenTenantSettings(r.Keyring, h, mustSeal(t, r.Keyring, h, attributes, nil))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("open: got %+v, %v, want %+v", got, err, want)
	}
	sealed, err := SealTenantSettings(r.Keyring, h, want)
	if err != nil {
		t.Fatal(err)
	}
	if again, material := openByLayout(t, r, sealed); !bytes.Equal(again, attributes) || len(material) != 0 {
		t.Errorf("seal: got %x and %d bytes of material, want %x", again, len(material), attributes)
	}
	empty := TenantSettings{Modified: 9}
	sealed, err = SealTenantSettings(r.Keyring, h, empty)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := OpenTenantSettings(r.Keyring, h, sealed); err != nil || !reflect.DeepEqual(got, empty) {
		t.Errorf("no rules: got %+v, %v", got, err)
	}
}

func TestTenantSettingsRefusals(t *testing.T) {
	r, h := rings(t)[oneVersion], settingsHeader()
	for name, change := range map[string]func(*TenantSettings){
		"no id":          func(s *TenantSettings) { s.Rules[0].ID = wire.UUID{} },
		"id twice":       func(s *TenantSettings) { s.Rules[1].ID = s.Rules[0].ID },
		"no name":        func(s *TenantSettings) { s.Rules[0].Name = "" },
		"long name":      func(s *TenantSettings) { s.Rules[0].Name = strings.Repeat("n", 65) },
		"odd name":       func(s *TenantSettings) { s.Rules[0].Name = "é" },
		"name twice":     func(s *TenantSettings) { s.Rules[1].Name = "web" },
		"short life":     func(s *TenantSettings) { s.Rules[0].Lifetime = 59 },
		"long life":      func(s *TenantSettings) { s.Rules[0].Lifetime = 43201 },
		"for nobody":     func(s *TenantSettings) { s.Rules[0].Issuer = nil },
		"for both":       func(s *TenantSettings) { s.Rules[0].Code = s.Rules[1].Code },
		"no audience":    func(s *TenantSettings) { s.Rules[0].Issuer.Audience = "" },
		"every subject":  func(s *TenantSettings) { s.Rules[0].Issuer.Subject = "*" },
		"no keys":        func(s *TenantSettings) { s.Rules[0].Issuer.Keys = nil },
		"any program":    func(s *TenantSettings) { s.Rules[1].Code.MRSigner = [32]byte{} },
		"both programs":  func(s *TenantSettings) { s.Rules[1].Code.MREnclave = [32]byte{1} },
		"version of one": func(s *TenantSettings) { s.Rules[1].Code = &ClientCode{MREnclave: [32]byte{1}, MinSVN: 1} },
		"17 programs": func(s *TenantSettings) {
			for i := range 16 {
				next := s.Rules[1]
				next.ID, next.Name = wire.UUID{100, byte(i)}, fmt.Sprint("p", i)
				s.Rules = append(s.Rules, next)
			}
		},
	} {
		s, _ := releasedSettings(t)
		change(&s)
		if sealed, err := SealTenantSettings(r.Keyring, h, s); err == nil {
			t.Errorf("%s: got %d bytes", name, len(sealed))
		}
	}
	_, good := releasedSettings(t)
	with := func(at int, v byte) []byte { b := bytes.Clone(good); b[at] = v; return b }
	for name, attributes := range map[string][]byte{
		"layout 2": with(0, 2), "33 rules": with(12, 33), "3 rules": with(12, 3), "1 rule": with(12, 1), "kind 3": with(12+1+16+2+3+16+4+8+16, 3),
		"cut": good[:len(good)-1], "longer": append(bytes.Clone(good), 0), "nothing": {},
	} {
		if s, err := OpenTenantSettings(r.Keyring, h, mustSeal(t, r.Keyring, h, attributes, nil)); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %+v, %v, want ErrOpen", name, s, err)
		}
	}
	if _, err := OpenTenantSettings(r.Keyring, h, mustSeal(t, r.Keyring, h, good, []byte{1})); !errors.Is(err, ErrOpen) {
		t.Errorf("material: got %v", err)
	}
	app := sample(t, "new app")
	if _, err := OpenTenantSettings(r.Keyring, app.header(), app.Sealed); !errors.Is(err, ErrOpen) || !strings.Contains(err.Error(), "is no tenant settings") {
		t.Errorf("app: got %v", err)
	}
}

func FuzzTenantSettings(f *testing.F) {
	r, h := rings(f)[oneVersion], settingsHeader()
	_, attributes := releasedSettings(f)
	f.Add(attributes)
	f.Fuzz(func(t *testing.T, attributes []byte) {
		if len(attributes) > maxAttributes {
			return
		}
		s, err := OpenTenantSettings(r.Keyring, h, mustSeal(t, r.Keyring, h, attributes, nil))
		if err != nil {
			return
		}
		sealed, err := SealTenantSettings(r.Keyring, h, s)
		if err != nil {
			t.Fatalf("seal %+v, which was opened: %v", s, err)
		}
		if again, _ := openByLayout(t, r, sealed); !bytes.Equal(again, attributes) {
			t.Errorf("two encodings of one value: %x and %x", attributes, again)
		}
	})
}
