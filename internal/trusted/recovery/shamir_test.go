package recovery

import (
	"bytes"
	"encoding/hex"
	"errors"
	"math/big"
	"slices"
	"testing"

	"github.com/cloudflare/circl/group"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// order is that of ristretto255: 2^252 + 27742317777372353535851937790883648493.
var order, _ = new(big.Int).SetString("7237005577332262213973186563042994240857116359379907606001950938285454250989", 10)

// generator is the encoding of the generator of ristretto255, RFC 9496 section A.1,
// and double of two times it.
const (
	generator = "e2f2ae0a6abc4e71a884a961c500515f58e30b6aa582dd8db6a65945e08d2d76"
	double    = "6a493210f7499cd17fecb510ae0cea23a110e8d5b901f8acadd3095c73a3b919"
)

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func scalar(n uint64) group.Scalar { return group.Ristretto255.NewScalar().SetUint64(n) }

// number reads a scalar as RFC 9496 writes it: little endian.
func number(b secret.Bytes) *big.Int {
	be := slices.Clone(b.Expose())
	slices.Reverse(be)
	return new(big.Int).SetBytes(be)
}

func bytesOf(t testing.TB, n *big.Int) secret.Bytes {
	t.Helper()
	b := n.FillBytes(make([]byte, 32))
	slices.Reverse(b)
	return secret.New(b)
}

// TestDerive compares the recovery key of a scalar with what HKDF of another
// implementation gives for it.
func TestDerive(t *testing.T) {
	for _, row := range []struct {
		scalar uint64
		want   string // python: hmac(hmac(32 zeros, scalar), "ehsm/recovery-key/v1\0" 01)
	}{
		{1, "361ac9797a6bf37b682a26e915625a1ebeaa0e7c6324f437f9d12a41ef26d535"},
		{0x123456789abcdef, "36d57dc312db2b9521feec6e92aaa8aa3559c385e7dd3f5ae96c7dbec121e675"},
	} {
		key, err := derive(scalar(row.scalar))
		if err != nil {
			t.Fatal(err)
		}
		if b, err := key.Bytes(); err != nil || hex.EncodeToString(b) != row.want {
			t.Errorf("scalar %d: got %x, %v, want %s", row.scalar, b, err, row.want)
		}
	}
}

// TestCommitment has polynomials whose commitments are in RFC 9496.
func TestCommitment(t *testing.T) {
	one, line := unhex(t, generator), unhex(t, generator+generator) // 1, and 1 + x
	for _, row := range []struct {
		name       string
		index      uint8
		share      int64
		commitment []byte
		want       error
	}{
		{"constant", 1, 1, one, nil},
		{"constant elsewhere", 64, 1, one, nil},
		{"another constant", 1, 2, one, ErrShare},
		{"line at 1", 1, 2, line, nil},
		{"line at 2", 2, 3, line, nil},
		{"line at 64", 64, 65, line, nil},
		{"share of another place", 1, 3, line, ErrShare},
		{"the scalar itself", 0, 1, line, ErrShare},
		{"zero", 1, 0, line, ErrShare},
		{"slope 2", 1, 3, unhex(t, generator+double), nil},
		{"no commitment", 1, 1, nil, ErrShare},
		{"no element", 1, 1, bytes.Repeat([]byte{255}, 32), errCommitment},
	} {
		if err := fits(row.index, bytesOf(t, big.NewInt(row.share)), row.commitment); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
	above := new(big.Int).Add(order, big.NewInt(1)) // the same number, in another encoding
	if err := fits(1, bytesOf(t, above), one); !errors.Is(err, ErrShare) {
		t.Errorf("scalar that is not reduced: got %v, want ErrShare", err)
	}
	if err := fits(1, secret.New([]byte{1}), one); !errors.Is(err, ErrShare) {
		t.Errorf("short scalar: got %v, want ErrShare", err)
	}
}

// TestSplit computes by hand what shares must give.
func TestSplit(t *testing.T) {
	secretNumber := uint64(1234567890)
	shares, commitment, err := split(scalar(secretNumber), 2, 3)
	if err != nil || len(shares) != 3 || len(commitment) != 64 {
		t.Fatalf("got %d shares, %d bytes, %v", len(shares), len(commitment), err)
	}
	// f(0) = 2 f(1) - f(2), and so on along the line.
	for i, weights := range [][3]int64{{2, -1, 0}, {0, 3, -2}} {
		sum := new(big.Int)
		for j, w := range weights {
			sum.Add(sum, new(big.Int).Mul(big.NewInt(w), number(shares[j])))
		}
		if sum.Mod(sum, order).Uint64() != secretNumber {
			t.Errorf("line %d: got %v", i, sum)
		}
	}
	for i, s := range shares {
		if err := fits(uint8(i+1), s, commitment); err != nil {
			t.Errorf("share %d: %v", i+1, err)
		}
	}
	want, err := derive(scalar(secretNumber))
	if err != nil {
		t.Fatal(err)
	}
	for _, some := range [][]uint8{{1, 2}, {2, 3}, {1, 3}, {1, 2, 3}} {
		m := map[uint8]secret.Bytes{}
		for _, i := range some {
			m[i] = shares[i-1]
		}
		if key, err := combine(2, m); err != nil || !bytes.Equal(key.PublicKey().Bytes(), want.PublicKey().Bytes()) {
			t.Errorf("shares %v: other key, %v", some, err)
		}
	}
	for _, few := range []map[uint8]secret.Bytes{nil, {1: shares[0]}} {
		if _, err := combine(2, few); !errors.Is(err, ErrTooFew) {
			t.Errorf("%d shares: got %v, want ErrTooFew", len(few), err)
		}
	}
}

// TestOneOfOne has a single custodian, whose share is the scalar.
func TestOneOfOne(t *testing.T) {
	shares, commitment, err := split(scalar(77), 1, 1)
	if err != nil || number(shares[0]).Int64() != 77 || len(commitment) != 32 {
		t.Errorf("got %d bytes, %v", len(commitment), err)
	}
}

// TestFewerThanKFitEverySecret shows that a share of two says nothing: for every
// secret there is one other share with which it gives that secret.
func TestFewerThanKFitEverySecret(t *testing.T) {
	shares, _, err := split(scalar(5), 2, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []uint64{5, 6, 1 << 40} {
		// f(2) = 2 f(1) - f(0)
		second := new(big.Int).Lsh(number(shares[0]), 1)
		second.Sub(second, new(big.Int).SetUint64(n)).Mod(second, order)
		key, err := combine(2, map[uint8]secret.Bytes{1: shares[0], 2: bytesOf(t, second)})
		if err != nil {
			t.Fatal(err)
		}
		if want, err := derive(scalar(n)); err != nil || !bytes.Equal(key.PublicKey().Bytes(), want.PublicKey().Bytes()) {
			t.Errorf("the share excludes the secret %d", n)
		}
	}
}
