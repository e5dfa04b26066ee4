package primitive

import (
	"crypto/ecdsa"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
)

func TestWycheproofECDSA(t *testing.T) {
	type group struct {
		SHA       string
		PublicKey struct{ Uncompressed hexBytes }
		Tests     []struct {
			TCID     int
			Msg, Sig hexBytes
			Result   string
		}
	}
	files := []struct {
		name string
		spec Spec
		slow bool // left out under the race detector
	}{
		{"ecdsa_secp224r1_sha224_test.json", ECP224, false},
		{"ecdsa_secp224r1_sha256_test.json", ECP224, true},
		{"ecdsa_secp224r1_sha512_test.json", ECP224, true},
		{"ecdsa_secp256r1_sha256_test.json", ECP256, false},
		{"ecdsa_secp256r1_sha512_test.json", ECP256, false},
		{"ecdsa_secp256k1_sha256_test.json", ECP256K, false},
		{"ecdsa_secp256k1_sha512_test.json", ECP256K, true},
		{"ecdsa_secp384r1_sha256_test.json", ECP384, true},
		{"ecdsa_secp384r1_sha384_test.json", ECP384, false},
		{"ecdsa_secp384r1_sha512_test.json", ECP384, true},
		{"ecdsa_secp521r1_sha512_test.json", ECP521, true},
	}
	for _, f := range files {
		if raceEnabled && f.slow {
			continue
		}
		count := tally{}
		for _, g := range vectors[group](t, f.name) {
			key := verifierOf(t, f.spec, g.PublicKey.Uncompressed)
			for _, v := range g.Tests {
				count[v.Result]++
				got, err := key.verify(v.Msg, v.Sig, MessageRaw, digestOf(g.SHA), PaddingNone)
				if err != nil || got != (v.Result == "valid") {
					t.Errorf("%s, %d: got %v, %v, want %s", f.name, v.TCID, got, err, v.Result)
				}
			}
		}
		count.check(t, f.name)
	}
}

// verifierOf is a key that has a public half only.
func verifierOf(t testing.TB, spec Spec, point []byte) operations {
	t.Helper()
	if spec == ECP256K {
		pub, err := secp256k1.ParsePubKey(point)
		if err != nil {
			t.Fatal(err)
		}
		return &k256Private{pub: pub}
	}
	pub, err := ecdsa.ParseUncompressedPublicKey(curveOf(spec), point)
	if err != nil {
		t.Fatal(err)
	}
	return ecPrivate{key: &ecdsa.PrivateKey{PublicKey: *pub}}
}
