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
	"github.com/ehsm-kms/ehsm/internal/wire/escrow"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
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

// TestDerive compares the recovery key of two scalars with what HKDF of another
// implementation gives for them.
func TestDerive(t *testing.T) {
	for _, row := range []struct {
		committed, hidden uint64
		want              string // python: hmac(hmac(32 zeros, both scalars), "ehsm/recovery-key/v1\0" 01)
	}{
		{1, 2, "f1165821a34976db86daff70e9456b9fed62dfc899e37b443d54402889d58ede"},
		{0x123456789abcdef, 1, "863876ab4b9f36018a99646b98d982cf1de522f927019d1d1822b2dd3883e025"},
	} {
		key, err := pair{scalar(row.committed), scalar(row.hidden)}.derive()
		if err != nil {
			t.Fatal(err)
		}
		if b, err := key.Bytes(); err != nil || hex.EncodeToString(b) != row.want {
			t.Errorf("scalars %d, %d: got %x, %v, want %s", row.committed, row.hidden, b, err, row.want)
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
	// f(0) = 2 f(1) - f(2) = 3 f(2) - 2 f(3)
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
}

// TestCombine has the key of two scalars back, of any two of three shares.
func TestCombine(t *testing.T) {
	p := pair{scalar(1234567890), scalar(987654321)}
	shares, _, err := p.share(2, 3)
	if err != nil {
		t.Fatal(err)
	}
	want, err := p.derive()
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

// TestCheck has shares of which one half is another.
func TestCheck(t *testing.T) {
	shares, commitment, err := pair{scalar(5), scalar(6)}.share(2, 2)
	if err != nil {
		t.Fatal(err)
	}
	r := &manifest.Recovery{Commitment: commitment}
	for i, s := range shares {
		d := escrow.Digest(uint8(i+1), s.Expose())
		r.Digests = append(r.Digests, d[:]...)
	}
	changed := func(at int) secret.Bytes {
		s := secret.Copy(shares[0].Expose())
		s.Expose()[at] ^= 1
		return s
	}
	without := &manifest.Recovery{Commitment: commitment}
	other := &manifest.Recovery{Commitment: unhex(t, generator+generator), Digests: r.Digests}
	for _, row := range []struct {
		name  string
		index uint8
		share secret.Bytes
		r     *manifest.Recovery
		want  error
	}{
		{"as made", 1, shares[0], r, nil},
		{"the other", 2, shares[1], r, nil},
		{"as the other's", 2, shares[0], r, ErrShare},
		{"of nobody", 0, shares[0], r, ErrShare},
		{"beyond", 3, shares[0], r, ErrShare},
		{"other first half", 1, changed(0), r, ErrShare},
		{"other second half", 1, changed(32), r, ErrShare},
		{"one half", 1, half(shares[0], 0), r, ErrShare},
		{"without digests", 1, shares[0], without, ErrShare},
		{"under another commitment", 1, shares[0], other, ErrShare},
	} {
		if err := check(row.index, row.share, row.r); !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
}

// TestOneOfOne has a single custodian, whose share is the scalars.
func TestOneOfOne(t *testing.T) {
	shares, commitment, err := pair{scalar(77), scalar(78)}.share(1, 1)
	if err != nil || number(half(shares[0], 0)).Int64() != 77 || number(half(shares[0], 1)).Int64() != 78 || len(commitment) != 32 {
		t.Errorf("got %d bytes, %v", len(commitment), err)
	}
}

// TestFewerThanKFitEverySecret shows that a share of two says nothing: for every
// secret there is one other share with which it gives that secret.
func TestFewerThanKFitEverySecret(t *testing.T) {
	shares, _, err := pair{scalar(5), scalar(6)}.share(2, 2)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range [][2]uint64{{5, 6}, {6, 5}, {1 << 40, 1}} {
		var second []byte
		for i := range n { // f(2) = 2 f(1) - f(0)
			v := new(big.Int).Lsh(number(half(shares[0], i)), 1)
			v.Sub(v, new(big.Int).SetUint64(n[i])).Mod(v, order)
			second = append(second, bytesOf(t, v).Expose()...)
		}
		key, err := combine(2, map[uint8]secret.Bytes{1: shares[0], 2: secret.New(second)})
		if err != nil {
			t.Fatal(err)
		}
		if want, err := (pair{scalar(n[0]), scalar(n[1])}).derive(); err != nil || !bytes.Equal(key.PublicKey().Bytes(), want.PublicKey().Bytes()) {
			t.Errorf("the share excludes the secret %v", n)
		}
	}
}
