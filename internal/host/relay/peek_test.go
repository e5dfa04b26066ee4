package relay

import (
	"encoding/base64"
	"fmt"
	"reflect"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// head is the start of a ciphertext as the core makes it.
func head(format byte, id wire.UUID, version byte) string {
	b := append([]byte{format}, id[:]...)
	b = append(b, 0, 0, 0, version, 0xaa, 0xbb, 0xcc)
	return base64.StdEncoding.EncodeToString(b)
}

func TestPeek(t *testing.T) {
	other := tenant
	other[0]++
	one := func(v uint32) []key { return []key{{keyID, v}} }
	for name, row := range map[string]struct {
		action, payload string
		want            []key
	}{
		"no payload":           {"ListKey", `null`, nil},
		"payload is text":      {"Encrypt", `"x"`, nil},
		"keyid":                {"Encrypt", fmt.Sprintf(`{"keyid":"%s"}`, keyID), one(0)},
		"keyid in upper case":  {"Encrypt", `{"keyid":"AAC3E45A-D3DC-4791-89B6-4ADA0E38E6EF"}`, nil},
		"keyid is a number":    {"Encrypt", `{"keyid":5}`, nil},
		"keyid no hex":         {"Encrypt", `{"keyid":"zac3e45a-d3dc-4791-89b6-4ada0e38e6ef"}`, nil},
		"two keys":             {"ExportDataKey", fmt.Sprintf(`{"keyid":"%s","ukeyid":"%s"}`, keyID, other), []key{{keyID, 0}, {other, 0}}},
		"the same key twice":   {"ExportDataKey", fmt.Sprintf(`{"keyid":"%s","ukeyid":"%s"}`, keyID, keyID), one(0)},
		"only the second":      {"ExportDataKey", fmt.Sprintf(`{"ukeyid":"%s"}`, keyID), one(0)},
		"Decrypt":              {"Decrypt", fmt.Sprintf(`{"keyid":"%s","ciphertext":"%s"}`, keyID, head(1, keyID, 3)), one(3)},
		"Encrypt has no say":   {"Encrypt", fmt.Sprintf(`{"keyid":"%s","ciphertext":"%s"}`, keyID, head(1, keyID, 3)), one(0)},
		"ReEncrypt":            {"ReEncrypt", fmt.Sprintf(`{"keyid":"%s","ciphertext":"%s"}`, keyID, head(1, keyID, 3)), one(3)},
		"BatchDecrypt":         {"BatchDecrypt", fmt.Sprintf(`{"keyid":"%s","ciphertexts":[ "%s" , "AAAA"]}`, keyID, head(1, keyID, 3)), one(3)},
		"BatchReEncrypt":       {"BatchReEncrypt", fmt.Sprintf(`{"keyid":"%s","ciphertexts":["%s"]}`, keyID, head(1, keyID, 3)), one(3)},
		"batch of no texts":    {"BatchDecrypt", fmt.Sprintf(`{"keyid":"%s","ciphertexts":[[["%s"]]]}`, keyID, head(1, keyID, 3)), one(0)},
		"batch without a text": {"BatchDecrypt", fmt.Sprintf(`{"keyid":"%s","ciphertexts":[                                  ]}`, keyID), one(0)},
		"batch of one text":    {"BatchDecrypt", fmt.Sprintf(`{"keyid":"%s","ciphertexts":"%s"}`, keyID, head(1, keyID, 3)), one(3)},
		"one of a batch":       {"Decrypt", fmt.Sprintf(`{"keyid":"%s","ciphertext":["%s"]}`, keyID, head(1, keyID, 3)), one(3)},
		"format unknown":       {"Decrypt", fmt.Sprintf(`{"keyid":"%s","ciphertext":"%s"}`, keyID, head(2, keyID, 3)), one(0)},
		"of another key":       {"Decrypt", fmt.Sprintf(`{"keyid":"%s","ciphertext":"%s"}`, keyID, head(1, other, 3)), one(0)},
		"too short":            {"Decrypt", fmt.Sprintf(`{"keyid":"%s","ciphertext":"%s"}`, keyID, head(1, keyID, 3)[:27]), one(0)},
		"key of a secret":      {"CreateSecret", fmt.Sprintf(`{"secretName":"n","encryptionKeyId":"%s"}`, keyID), one(0)},
		"three times the same": {"X", fmt.Sprintf(`{"keyid":"%[1]s","ukeyid":"%[1]s","encryptionKeyId":"%[1]s"}`, keyID), one(0)},
		"three keys": {"X", fmt.Sprintf(`{"keyid":"%s","ukeyid":"%s","encryptionKeyId":"%s"}`, keyID, other, tenant),
			[]key{{keyID, 0}, {other, 0}, {tenant, 0}}},
		"no base64":            {"Decrypt", fmt.Sprintf(`{"keyid":"%s","ciphertext":"*%s"}`, keyID, head(1, keyID, 3)), one(0)},
		"ciphertext no text":   {"Decrypt", fmt.Sprintf(`{"keyid":"%s","ciphertext":[1]}`, keyID), one(0)},
		"export, Go's name":    {"ExportDataKey", fmt.Sprintf(`{"keyid":"%s","olddatakey_base":"%s"}`, keyID, head(1, keyID, 4)), one(4)},
		"export, documented":   {"ExportDataKey", fmt.Sprintf(`{"keyid":"%s","olddatakey":"%s"}`, keyID, head(1, keyID, 5)), one(5)},
		"export, Python's":     {"ExportDataKey", fmt.Sprintf(`{"keyid":"%s","old_data_key":"%s"}`, keyID, head(1, keyID, 6)), one(6)},
		"version is not ukeys": {"ExportDataKey", fmt.Sprintf(`{"ukeyid":"%s","old_data_key":"%s"}`, keyID, head(1, keyID, 6)), one(0)},
	} {
		n, ok := peek(row.action, fmt.Appendf(nil, `{"appid":"%s","payload":%s}`, tenant, row.payload))
		if got := n.keys[:n.n]; !ok || n.tenant != tenant || len(got) != len(row.want) || len(got) > 0 && !reflect.DeepEqual(got, row.want) {
			t.Errorf("%s: got %v, %v, want %v", name, got, ok, row.want)
		}
	}
	for name, body := range map[string]string{
		"empty": ``, "no JSON": `{`, "no object": `[1]`, "no appid": `{}`, "appid null": `{"appid":null}`,
		"appid no id": `{"appid":"constructor"}`, "appid number": `{"appid":1}`,
	} {
		if n, ok := peek("Encrypt", []byte(body)); ok {
			t.Errorf("%s: got %v", name, n)
		}
	}
}

func TestPeekLogin(t *testing.T) {
	for credential, want := range map[string]bool{
		`"ehsm-login-v1.AQ"`: true, `"ehsm-login-v2.AQ"`: false, `"00000000-0000-0000-0000-000000000000"`: false, `7`: false, `null`: false,
	} {
		n, ok := peek("ListKey", fmt.Appendf(nil, `{"appid":"%s","credential":%s}`, tenant, credential))
		settings := wire.RecordID{Type: wire.TenantSettings, Tenant: tenant, ID: tenant}
		if got := slices.Contains(n.records(nil), settings); !ok || got != want {
			t.Errorf("%s: got %v, %v, want %v", credential, got, ok, want)
		}
	}
}

func FuzzPeek(f *testing.F) {
	f.Add("Decrypt", fmt.Appendf(nil, `{"appid":"%s","payload":{"keyid":"%s","ciphertext":"%s"}}`, tenant, keyID, head(1, keyID, 3)))
	f.Add("ExportDataKey", body(1))
	f.Add("ImportKeyMaterial", body(1))
	f.Fuzz(func(t *testing.T, action string, body []byte) {
		n, ok := peek(action, body)
		want := 1 + n.n
		if n.hasSecret() {
			want++
		}
		if n.session != (wire.UUID{}) {
			want++
		}
		if n.login {
			want++
		}
		if ok && len(n.records(nil)) != want {
			t.Errorf("got %d records, want %d", len(n.records(nil)), want)
		}
	})
}
