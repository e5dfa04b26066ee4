package canon

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strings"
	"testing"
)

const (
	vectorHead = `{"appid":"86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c","timestamp":"1700000000000"`
	vectorKey  = "D3nK2Vq90QrFkHGRZ3dBAyFEfPTtLfQy"
)

// The vectors of the native API. Never change one: a failure here means that
// existing clients can no longer talk to the server.
var vectors = []struct{ name, body, want, sign string }{
	{
		"V1 create key",
		vectorHead + `,"payload":{"keyusage":"EH_KEYUSAGE_ENCRYPT_DECRYPT","keyspec":"EH_AES_GCM_256","origin":"EH_INTERNAL_KEY"}}`,
		"appid=86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c&payload=keyspec=EH_AES_GCM_256&keyusage=EH_KEYUSAGE_ENCRYPT_DECRYPT&origin=EH_INTERNAL_KEY&timestamp=1700000000000",
		"GKaU25v+F7f+JzCW4GATwOMZByGceoEJc4iK0ct0Acs=",
	},
	{
		"V2 nonce and number",
		vectorHead + `,"nonce":"12345678901234567890","payload":{"keyid":"aac3e45a-d3dc-4791-89b6-4ada0e38e6ef","keylen":48,"aad":"YWFk+/8="}}`,
		"appid=86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c&nonce=12345678901234567890&payload=aad=YWFk+/8=&keyid=aac3e45a-d3dc-4791-89b6-4ada0e38e6ef&keylen=48&timestamp=1700000000000",
		"NUMQ7Q5tNQXBQYaC0TOp9uLH5+x0J2rjyJx3rAATHc4=",
	},
	{
		"V3 no payload",
		vectorHead + `}`,
		"appid=86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c&timestamp=1700000000000",
		"0QnfZb4jZLoCooe3W7nLRGGxLZXG2TO6uGtQslk9fBA=",
	},
	{
		"V4 empty payload",
		vectorHead + `,"payload":{}}`,
		"appid=86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c&payload=&timestamp=1700000000000",
		"8jEWnmr55ORqc1NvoWR2S61cZjIjtBrp7LkQgIKXdNI=",
	},
	{
		"V5 raw text",
		vectorHead + `,"payload":{"secretName":"a b&c=d","secretData":"x\ny+%41\"\\\u00e9"}}`,
		"appid=86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c&payload=secretData=x\ny+%41\"\\é&secretName=a b&c=d&timestamp=1700000000000",
		"pkDjM3dlROsKTcGG2jtkhpMaIsWTu76aJWkxoauG/NA=",
	},
}

func TestVectors(t *testing.T) {
	for _, tt := range vectors {
		t.Run(tt.name, func(t *testing.T) {
			v := mustParse(t, tt.body)
			got := v.AppendCanonical(nil, Skipping)
			if string(got) != tt.want {
				t.Errorf("AppendCanonical: got %q, want %q", got, tt.want)
			}
			mac := hmac.New(sha256.New, []byte(vectorKey))
			mac.Write(got)
			sign := base64.StdEncoding.EncodeToString(mac.Sum(nil))
			if sign != tt.sign {
				t.Errorf("signature: got %s, want %s", sign, tt.sign)
			}
			if sign == strings.ToUpper(tt.sign) {
				t.Error("the signature survives a change to upper case")
			}
			// The signature itself and unknown members are not covered.
			signed := mustParse(t, strings.TrimSuffix(tt.body, "}")+`,"sign":"`+tt.sign+`","Appid":"x","zz":[1]}`)
			if got := signed.AppendCanonical(nil, Skipping); string(got) != tt.want {
				t.Errorf("AppendCanonical with sign: got %q, want %q", got, tt.want)
			}
		})
	}
}

func mustParse(t testing.TB, body string) Value {
	t.Helper()
	v, err := Parse([]byte(body))
	if err != nil {
		t.Fatalf("Parse(%q): %v", body, err)
	}
	return v
}
