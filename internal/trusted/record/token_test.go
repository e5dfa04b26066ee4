package record

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// tokenByLayout is written from docs/formats.md by hand.
const tokenByLayout = "01" + // layout
	"60f2a7df953ace2a1e2e660f9c9ae503ea09ca3aa17757b88cf7bf463f3c288c" + // hash
	"000473686f70" + // name
	"02" + // role: user
	"00002710" + "00000003" + // uses, used
	"01" + // revoked
	"000000009a7ec800" + "000000009a7ec801" + // created, expires
	"8111bbe1f71f8c2889d78df1de14b674" // by

func releasedToken(t testing.TB) (Token, []byte) {
	t.Helper()
	b, err := hex.DecodeString(tokenByLayout)
	if err != nil {
		t.Fatal(err)
	}
	return Token{
		Hash: [32]byte(b[1:]), Name: "shop", Role: User, Uses: 10000, Used: 3, Revoked: true,
		Created: 0x9a7ec800, Expires: 0x9a7ec801, By: wire.UUID(b[len(b)-16:]),
	}, b
}

func TestTokenByLayout(t *testing.T) {
	r := rings(t)[oneVersion]
	h := Header{ID: wire.RecordID{Type: wire.Token, ID: wire.UUID{1}}, Revision: 5}
	want, attributes := releasedToken(t)
	got, err := OpenToken(r.Keyring, h, mustSeal(t, r.Keyring, h, attributes, nil))
	if err != nil || got != want {
		t.Errorf("open: got %+v, %v, want %+v", got, err, want)
	}
	sealed, err := SealToken(r.Keyring, h, want)
	if err != nil {
		t.Fatal(err)
	}
	if again, material := openByLayout(t, r, sealed); !bytes.Equal(again, attributes) || len(material) != 0 {
		t.Errorf("seal: got %x and %d bytes of material, want %x", again, len(material), attributes)
	}
}

func TestTokenRefusals(t *testing.T) {
	r := rings(t)[oneVersion]
	h := Header{ID: wire.RecordID{Type: wire.Token, ID: wire.UUID{1}}, Revision: 5}
	_, attributes := releasedToken(t)
	changed := func(at int, to byte) []byte {
		b := bytes.Clone(attributes)
		b[at] = to
		return b
	}
	for name, row := range map[string]struct{ attributes, material []byte }{
		"nothing":        {nil, nil},
		"layout":         {changed(0, 2), nil},
		"cut":            {attributes[:len(attributes)-1], nil},
		"longer":         {append(bytes.Clone(attributes), 0), nil},
		"name with line": {changed(36, '\n'), nil},
		"role":           {changed(39, 3), nil},
		"uses":           {changed(40, 1), nil},
		"used too often": {changed(44, 1), nil},
		"revoked":        {changed(48, 2), nil},
		"expires first":  {changed(64, 0), nil},
		"material":       {attributes, []byte{1}},
	} {
		if got, err := OpenToken(r.Keyring, h, mustSeal(t, r.Keyring, h, row.attributes, row.material)); !errors.Is(err, ErrOpen) || got != (Token{}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
	sealed := mustSeal(t, r.Keyring, h, attributes, nil)
	for name, other := range map[string]Header{
		"another revision": {ID: h.ID, Revision: 4}, "another id": {ID: wire.RecordID{Type: wire.Token, ID: wire.UUID{2}}, Revision: 5},
		"a tenant's": {ID: wire.RecordID{Type: wire.Token, Tenant: wire.UUID{1}, ID: wire.UUID{1}}, Revision: 5},
	} {
		if _, err := OpenToken(r.Keyring, other, sealed); !errors.Is(err, ErrOpen) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

func TestTokenOpen(t *testing.T) {
	for name, row := range map[string]struct {
		token Token
		now   int64
		want  bool
	}{
		"fresh":                {Token{Uses: 2, Expires: 10}, 0, true},
		"used once":            {Token{Uses: 2, Used: 1, Expires: 10}, 9, true},
		"used up":              {Token{Uses: 2, Used: 2, Expires: 10}, 0, false},
		"at its end":           {Token{Uses: 2, Expires: 10}, 10, false},
		"revoked":              {Token{Uses: 2, Expires: 10, Revoked: true}, 0, false},
		"a record that is not": {Token{}, 0, false},
	} {
		if got := row.token.Open(row.now); got != row.want {
			t.Errorf("%s: got %v", name, got)
		}
	}
}
