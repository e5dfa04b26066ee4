package primitive

import (
	"bytes"
	"crypto/sha256"
	"testing"

	"github.com/decred/dcrd/dcrec/secp256k1/v4"
	"github.com/decred/dcrd/dcrec/secp256k1/v4/ecdsa"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

func k256FromScalar(t testing.TB, scalar []byte) *k256Private {
	t.Helper()
	point := secp256k1.PrivKeyFromBytes(scalar).PubKey().SerializeUncompressed()
	key, err := OpenPrivate(ECP256K, secret.New(append(bytes.Clone(scalar), point...)))
	if err != nil {
		t.Fatal(err)
	}
	return key.ops().(*k256Private)
}

// Without a hedge our signatures are those of RFC 6979, for which the values
// below are the ones that implementations of secp256k1 have long agreed on
// (they descend from CoreBitcoin's tests).
func TestK256Deterministic(t *testing.T) {
	rows := []struct{ name, key, message, r, s string }{
		{"key 1, name", "0000000000000000000000000000000000000000000000000000000000000001", "Satoshi Nakamoto",
			"934b1ea10a4b3c1757e2b0c017d0b6143ce3c9a7e6a4a49860d7a6ab210ee3d8", "2442ce9d2b916064108014783e923ec36b49743e2ffa1c4496f01a512aafd9e5"},
		{"key 1, sentence", "0000000000000000000000000000000000000000000000000000000000000001", "All those moments will be lost in time, like tears in rain. Time to die...",
			"8600dbd41e348fe5c9465ab92d23e3db8b98b873beecd930736488696438cb6b", "547fe64427496db33bf66019dacbf0039c04199abb0122918601db38a72cfc21"},
		{"key n-1", "fffffffffffffffffffffffffffffffebaaedce6af48a03bbfd25e8cd0364140", "Satoshi Nakamoto",
			"fd567d121db66e382991534ada77a6bd3106f0a1098c231e47993447cd6af2d0", "6b39cd0eb1bc8603e159ef5c20a5c8ad685a45b06ce9bebed3f153d10d93bed5"},
	}
	for _, r := range rows {
		digest := sha256.Sum256([]byte(r.message))
		got := k256FromScalar(t, unhex(t, r.key)).signDigest(digest[:], nil)
		if want := derSignature(t, unhex(t, r.r), unhex(t, r.s)); !bytes.Equal(got, want) {
			t.Errorf("%s: got %x, want %x", r.name, got, want)
		}
	}
}

// The masked arithmetic must give what the library's plain arithmetic gives.
func TestK256MasksCancel(t *testing.T) {
	for range 20 {
		d := randomScalar()
		raw := d.Bytes()
		plain := secp256k1.PrivKeyFromBytes(raw[:])
		point := baseMult(&d)
		if got := secp256k1.NewPublicKey(&point.X, &point.Y); !got.IsEqual(plain.PubKey()) {
			t.Fatalf("baseMult(%x) differs from the library", raw)
		}
		if one := inverse(&d).Mul(&d); !one.Equals(new(secp256k1.ModNScalar).SetInt(1)) {
			t.Fatalf("inverse(%x) * itself: got %v, want 1", raw, one)
		}
		digest := sha256.Sum256(raw[:])
		if got, want := k256FromScalar(t, raw[:]).signDigest(digest[:], nil), ecdsa.Sign(plain, digest[:]).Serialize(); !bytes.Equal(got, want) {
			t.Fatalf("signDigest under %x: got %x, want %x", raw, got, want)
		}
	}
}

func TestK256SignaturesAreHedged(t *testing.T) {
	key := k256FromScalar(t, unhex(t, "0000000000000000000000000000000000000000000000000000000000000001"))
	a, err := key.sign([]byte("same"), MessageRaw, SHA256, 0)
	if err != nil {
		t.Fatal(err)
	}
	if b, _ := key.sign([]byte("same"), MessageRaw, SHA256, 0); bytes.Equal(a, b) {
		t.Error("two signatures of one message are equal")
	}
}

// A signature whose s is in the upper half is as good as any; others make such.
func TestK256AcceptsHighS(t *testing.T) {
	key := k256FromScalar(t, unhex(t, "0000000000000000000000000000000000000000000000000000000000000001"))
	der, err := key.sign([]byte("m"), MessageRaw, SHA256, 0)
	if err != nil {
		t.Fatal(err)
	}
	low, err := ecdsa.ParseDERSignature(der)
	if err != nil {
		t.Fatal(err)
	}
	r, s := low.R(), low.S()
	rBytes, sBytes := r.Bytes(), s.Negate().Bytes()
	high := derSignature(t, rBytes[:], sBytes[:])
	if ok, err := key.verify([]byte("m"), high, MessageRaw, SHA256, 0); err != nil || !ok {
		t.Errorf("verify: got %v, %v, want true", ok, err)
	}
}
