package primitive

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// The numbers are in sealed records. Add lines, never change one.
func TestSpecNumbers(t *testing.T) {
	rows := []struct {
		spec      Spec
		number    uint8
		name      string
		material  int
		symmetric bool
		public    bool
	}{
		{AESGCM128, 1, "EH_AES_GCM_128", 16, true, false},
		{AESGCM192, 2, "EH_AES_GCM_192", 24, true, false},
		{AESGCM256, 3, "EH_AES_GCM_256", 32, true, false},
		{RSA2048, 4, "EH_RSA_2048", 0, false, true},
		{RSA3072, 5, "EH_RSA_3072", 0, false, true},
		{RSA4096, 6, "EH_RSA_4096", 0, false, true},
		{ECP224, 7, "EH_EC_P224", 0, false, true},
		{ECP256, 8, "EH_EC_P256", 0, false, true},
		{ECP256K, 9, "EH_EC_P256K", 0, false, true},
		{ECP384, 10, "EH_EC_P384", 0, false, true},
		{ECP521, 11, "EH_EC_P521", 0, false, true},
		{SM2, 12, "EH_SM2", 0, false, true},
		{SM4CTR, 13, "EH_SM4_CTR", 16, true, false},
		{SM4CBC, 14, "EH_SM4_CBC", 16, true, false},
		{HMAC, 15, "EH_HMAC", 32, false, false},
	}
	if len(rows) != len(specs)-1 {
		t.Errorf("got %d specs, want %d", len(specs)-1, len(rows))
	}
	for _, r := range rows {
		if uint8(r.spec) != r.number || r.spec.String() != r.name {
			t.Errorf("%s: got number %d and name %s, want %d", r.name, r.spec, r.spec, r.number)
		}
		if got, ok := ParseSpec(r.name); !ok || got != r.spec {
			t.Errorf("ParseSpec(%q): got %v, %v", r.name, got, ok)
		}
		if r.spec.MaterialLen() != r.material || r.spec.Symmetric() != r.symmetric || r.spec.Asymmetric() != r.public {
			t.Errorf("%s: got material %d, symmetric %v, asymmetric %v", r.name, r.spec.MaterialLen(), r.spec.Symmetric(), r.spec.Asymmetric())
		}
		if r.spec.RSA() != strings.HasPrefix(r.name, "EH_RSA") || !r.spec.Valid() {
			t.Errorf("%s: got RSA %v, valid %v", r.name, r.spec.RSA(), r.spec.Valid())
		}
	}
}

func TestParseSpecRefuses(t *testing.T) {
	for _, name := range []string{"", " ", "EH_RSA_3071", "eh_sm2", "EH_SM2 ", "EH_AES_GCM", "Spec(0)", "EH_SM9"} {
		if s, ok := ParseSpec(name); ok || s != 0 {
			t.Errorf("ParseSpec(%q): got %v, %v, want none", name, s, ok)
		}
	}
}

func TestInvalidSpec(t *testing.T) {
	for _, s := range []Spec{0, 16, 255} {
		if s.Valid() || s.Symmetric() || s.Asymmetric() || s.RSA() || s.MaterialLen() != 0 {
			t.Errorf("%s: an invalid spec has properties", s)
		}
		if got, want := s.String(), fmt.Sprintf("Spec(%d)", uint8(s)); got != want {
			t.Errorf("String: got %s, want %s", got, want)
		}
		if m, err := NewMaterial(s); !errors.Is(err, ErrUsage) || m.Len() != 0 {
			t.Errorf("NewMaterial(%s): got %d bytes, %v, want ErrUsage", s, m.Len(), err)
		}
	}
}

func TestNewMaterialRaw(t *testing.T) {
	for s := range Spec(len(specs)) {
		if s.MaterialLen() == 0 {
			continue
		}
		a, err := NewMaterial(s)
		if err != nil || a.Len() != s.MaterialLen() {
			t.Fatalf("NewMaterial(%s): got %d bytes, %v, want %d", s, a.Len(), err, s.MaterialLen())
		}
		if b, _ := NewMaterial(s); a.Equal(b) || a.Equal(secret.New(make([]byte, a.Len()))) {
			t.Errorf("NewMaterial(%s) is not random", s)
		}
	}
}

// TestKeysNeverPrint looks for the material in every rendering of an opened key.
func TestKeysNeverPrint(t *testing.T) {
	m := releasedMessages(t)[0]
	s := m.open(t)
	s.put(s.derivers.Get().(*deriver)) // a filled pool
	type holder struct {
		hidden *Symmetric
		inner  struct{ s any }
	}
	h := holder{hidden: s}
	h.inner.s = s
	for _, v := range []any{s, h, &h, []any{h}} {
		for _, verb := range []string{"%v", "%+v", "%#v", "%x", "%s"} {
			out := fmt.Sprintf(verb, v)
			if strings.Contains(out, fmt.Sprintf("%x", []byte(m.Material[:4]))) || strings.Contains(out, strings.Trim(fmt.Sprint([]byte(m.Material[:4])), "[]")) {
				t.Errorf("%s of %T prints key material", verb, v)
			}
		}
	}
}
