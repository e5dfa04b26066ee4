package primitive

import (
	"encoding/asn1"
	"encoding/pem"
	"testing"
)

func marshalASN1(t testing.TB, v any) []byte {
	t.Helper()
	der, err := asn1.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// offCurve changes the last byte of a public key's point.
func offCurve(t testing.TB, text string) string {
	t.Helper()
	block, _ := pem.Decode([]byte(text))
	block.Bytes[len(block.Bytes)-1] ^= 1
	return string(pem.EncodeToMemory(block))
}
