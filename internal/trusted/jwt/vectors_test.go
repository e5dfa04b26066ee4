package jwt

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"io/fs"
	"strings"
	"testing"

	"github.com/c2sp/wycheproof"
)

// The examples of RFC 7515, appendix A.2 and A.3, and of RFC 8037, appendix A.4. Their
// headers have no key id, so that the parts are verified as they stand.
func TestRFCExamples(t *testing.T) {
	const claims = "eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ"
	for _, row := range []struct{ name, jwk, signed, signature string }{
		{"RFC 7515 A.2", `{"kid":"a","kty":"RSA","n":"ofgWCuLjybRlzo0tZWJjNiuSfb4p4fAkd_wWJcyQoTbji9k0l8W26mPddxHmfHQp-Vaw-4qPCJrcS2mJPMEzP1Pt0Bm4d4QlL-yRT-SFd2lZS-pCgNMsD1W_YpRPEwOWvG6b32690r2jZ47soMZo9wGzjb_7OMg0LOL-bSf63kpaSHSXndS5z5rexMdbBYUsLA9e-KXBdQOS-UTo7WTBEMa2R2CapHg665xsmtdVMTBQY4uDZlxvb3qCo5ZwKh9kG4LT6_I5IhlJH7aGhyxXFvUK-DWNmoudF8NAco9_h9iaGNj8q2ethFkMLs91kzk2PAcDTW9gb54h4FRWyuXpoQ","e":"AQAB"}`,
			"eyJhbGciOiJSUzI1NiJ9." + claims,
			"cC4hiUPoj9Eetdgtv3hF80EGrhuB__dzERat0XF9g2VtQgr9PJbu3XOiZj5RZmh7AAuHIm4Bh-0Qc_lF5YKt_O8W2Fp5jujGbds9uJdbF9CUAr7t1dnZcAcQjbKBYNX4BAynRFdiuB--f_nZLgrnbyTyWzO75vRK5h6xBArLIARNPvkSjtQBMHlb1L07Qe7K0GarZRmB_eSN9383LcOLn6_dO--xi12jzDwusC-eOkHWEsqtFZESc6BfI7noOPqvhJ1phCnvWh6IeYI2w9QOYEUipUTI8np6LbgGY9Fs98rqVt5AXLIhWkWywlVmtVrBp0igcN_IoypGlUPQGe77Rw"},
		{"RFC 7515 A.3", `{"kid":"a","kty":"EC","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}`,
			"eyJhbGciOiJFUzI1NiJ9." + claims,
			"DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3-Kg6NU1Q"},
		{"RFC 8037 A.4", `{"kid":"a","kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`,
			"eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc",
			"hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIbQR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg"},
	} {
		keys, err := ParseKeys([]byte(`{"keys":[` + row.jwk + `]}`))
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		value, err := base64.RawURLEncoding.DecodeString(row.signature)
		if err != nil {
			t.Fatal(err)
		}
		if !keys[0].verify([]byte(row.signed), value) {
			t.Errorf("%s: it does not verify", row.name)
		}
		if keys[0].verify([]byte(row.signed+"A"), value) {
			t.Errorf("%s: another text verifies", row.name)
		}
		value[3] ^= 1
		if keys[0].verify([]byte(row.signed), value) {
			t.Errorf("%s: another signature verifies", row.name)
		}
	}
}

// TestWycheproof runs json_web_signature_test.json of github.com/c2sp/wycheproof
// (Apache License 2.0), pinned in go.mod. What is valid there and refused here is of an
// algorithm that is not accepted, has no key id, or a key of the wrong name.
func TestWycheproof(t *testing.T) {
	raw, err := fs.ReadFile(wycheproof.TestVectors, "json_web_signature_test.json")
	if err != nil {
		t.Fatal(err)
	}
	var file struct {
		TestGroups []struct {
			Comment string
			Public  json.RawMessage
			Tests   []struct {
				TcID    int
				Comment string
				JWS     string
				Result  string
			}
		}
	}
	if err := json.Unmarshal(raw, &file); err != nil {
		t.Fatal(err)
	}
	valid, invalid, notOurs := 0, 0, 0
	for _, g := range file.TestGroups {
		keys, keyErr := ParseKeys([]byte(`{"keys":[` + string(g.Public) + `]}`))
		for _, v := range g.Tests {
			s, err := parseSignature(v.JWS)
			if err == nil {
				err = s.verify(keys)
			}
			switch {
			case err == nil && v.Result == "valid":
				valid++
			case err == nil:
				t.Errorf("%d %s, %s: it is accepted", v.TcID, g.Comment, v.Comment)
			case v.Result != "valid":
				invalid++
			case keyErr != nil || errors.Is(err, ErrAlgorithm) || errors.Is(err, ErrKeyID):
				notOurs++
			default:
				t.Errorf("%d %s, %s: %v", v.TcID, g.Comment, v.Comment, err)
			}
		}
	}
	t.Logf("%d valid, %d invalid, %d of what is not accepted here", valid, invalid, notOurs)
	if valid < 16 || invalid < 300 {
		t.Errorf("got %d valid and %d invalid ones", valid, invalid)
	}
}

func TestParseKeysRefuses(t *testing.T) {
	const x, y = `"x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU"`, `"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"`
	const ec = `"kid":"a","kty":"EC","crv":"P-256",` + x + "," + y
	if _, err := ParseKeys([]byte(`{"keys":[{` + ec + `,"use":"sig","alg":"ES256","key_ops":["verify"],"x5c":["unknown"]}]}`)); err != nil {
		t.Fatal(err)
	}
	short := base64.RawURLEncoding.EncodeToString(append([]byte{0xff}, make([]byte, 126)...)) + "8"
	for name, set := range map[string]string{
		"no set":                `[]`,
		"no keys":               `{}`,
		"none":                  `{"keys":[]}`,
		"nine":                  `{"keys":[` + strings.Repeat(`{},`, 8) + `{}]}`,
		"member twice":          `{"keys":[{` + ec + `,"kty":"EC"}]}`,
		"no id":                 `{"keys":[{"kty":"EC","crv":"P-256",` + x + `,` + y + `}]}`,
		"empty id":              `{"keys":[{"kid":"","kty":"EC","crv":"P-256",` + x + `,` + y + `}]}`,
		"long id":               `{"keys":[{"kid":"` + strings.Repeat("k", 129) + `","kty":"EC","crv":"P-256",` + x + `,` + y + `}]}`,
		"id twice":              `{"keys":[{` + ec + `},{` + ec + `}]}`,
		"symmetric":             `{"keys":[{"kid":"a","kty":"oct","k":"AAAA"}]}`,
		"private":               `{"keys":[{` + ec + `,"d":"AAAA"}]}`,
		"for encryption":        `{"keys":[{` + ec + `,"use":"enc"}]}`,
		"for other operations":  `{"keys":[{` + ec + `,"key_ops":["deriveKey"]}]}`,
		"other algorithm":       `{"keys":[{` + ec + `,"alg":"RS256"}]}`,
		"HS256":                 `{"keys":[{` + ec + `,"alg":"HS256"}]}`,
		"none as algorithm":     `{"keys":[{` + ec + `,"alg":"none"}]}`,
		"other curve":           `{"keys":[{"kid":"a","kty":"EC","crv":"P-521",` + x + `,` + y + `}]}`,
		"not on the curve":      `{"keys":[{"kid":"a","kty":"EC","crv":"P-256",` + x + `,"y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a1"}]}`,
		"short coordinate":      `{"keys":[{"kid":"a","kty":"EC","crv":"P-256","x":"f83O",` + y + `}]}`,
		"Ed448":                 `{"keys":[{"kid":"a","kty":"OKP","crv":"Ed448","x":"AAAA"}]}`,
		"short Ed25519":         `{"keys":[{"kid":"a","kty":"OKP","crv":"Ed25519","x":"AAAA"}]}`,
		"RSA of 1016 bits":      `{"keys":[{"kid":"a","kty":"RSA","e":"AQAB","n":"` + short + `"}]}`,
		"RSA without exponent":  `{"keys":[{"kid":"a","kty":"RSA","n":"` + short + `"}]}`,
		"RSA with a long one":   `{"keys":[{"kid":"a","kty":"RSA","e":"AQAB","n":"` + strings.Repeat("_", 700) + `"}]}`,
		"padding":               `{"keys":[{"kid":"a","kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo="}]}`,
		"too long":              `{"keys":[{` + ec + `}]}` + strings.Repeat(" ", MaxKeySet),
		"trailing bytes":        `{"keys":[{` + ec + `}]}x`,
		"key that is no object": `{"keys":[7]}`,
	} {
		if keys, err := ParseKeys([]byte(set)); !errors.Is(err, ErrKeys) {
			t.Errorf("%s: got %v, %v, want ErrKeys", name, keys, err)
		}
	}
}

func FuzzParseKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kid":"a","kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := ParseKeys(b)
		if err != nil {
			return
		}
		for i := range keys {
			if err := keys[i].Check(); err != nil || len(keys[i].Public) > MaxPublic {
				t.Errorf("key %d of %d bytes: %v", i, len(keys[i].Public), err)
			}
		}
	})
}
