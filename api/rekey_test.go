package api

import (
	"bytes"
	"encoding/hex"
	"testing"
)

// TestRekeyStatement is written by hand from docs/enrollment.md.
func TestRekeyStatement(t *testing.T) {
	r := Rekey{
		Domain: [32]byte(bytes.Repeat([]byte{0xd0}, 32)), AppID: [16]byte(bytes.Repeat([]byte{0xa0}, 16)), Revision: 0x0102030405060708,
		Expires: 1795547044326, DomainKey: 3, Kind: "ed25519", PublicKey: []byte{0xee, 0xef},
	}
	const want = "6568736d2f72656b65792f763100" + // "ehsm/rekey/v1\0"
		"d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0d0" + "a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0a0" +
		"0102030405060708" + "000001a20ef199e6" + "00000003" + "0765643235353139" + "eeef"
	if got := hex.EncodeToString(r.Statement()); got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}
