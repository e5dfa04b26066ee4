package relay

import (
	"fmt"
	"testing"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/api/sealed"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// TestPeekSealed has the outer part of a sealed request name the records that the
// request inside names.
func TestPeekSealed(t *testing.T) {
	other := tenant
	other[0]++
	for name, payload := range map[string]string{
		"nothing":         `{}`,
		"a key":           fmt.Sprintf(`{"keyid":"%s","plaintext":"AAAA"}`, keyID),
		"two keys":        fmt.Sprintf(`{"keyid":"%s","ukeyid":"%s"}`, keyID, other),
		"a secret":        fmt.Sprintf(`{"secretName":"na\u00efve","encryptionKeyId":"%s"}`, keyID),
		"a policy":        fmt.Sprintf(`{"policyId":"%s"}`, other),
		"an import":       fmt.Sprintf(`{"keyid":"%s"}`, keyID),
		"ids that are no": `{"keyid":"x","policyId":7,"secretName":""}`,
	} {
		action := "Encrypt"
		if name == "an import" {
			action = "ImportKeyMaterial"
		}
		body := fmt.Appendf(nil, `{"appid":"%s","payload":%s}`, tenant, payload)
		v, err := canon.Parse(body)
		if err != nil {
			t.Fatal(err)
		}
		o, err := sealed.NewOuter(action, "00112233445566778899aabbccddeeff", v)
		if err != nil {
			t.Fatal(err)
		}
		want, _ := peek(action, body)
		got, ok := peek(action, o.AppendBody(nil, []byte("message")))
		if !ok || got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
		if name == "a secret" && got.secret != wire.SecretID(tenant, "na\u00efve") {
			t.Errorf("%s: got %s", name, got.secret)
		}
	}
}
