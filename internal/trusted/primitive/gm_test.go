package primitive

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"math/big"
	"testing"

	"github.com/emmansun/gmsm/sm2"
	"github.com/emmansun/gmsm/sm4"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

// The values in this file are the examples that the standards print: GB/T 32905
// (SM3), GB/T 32907 and draft-ribose-cfrg-sm4-10 (SM4), and GM/T 0003.5-2012
// appendices A and C (SM2, which GB/T 32918.5 took over).

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestSM3Examples(t *testing.T) {
	rows := []struct{ name, message, want string }{
		{"GB/T 32905 A.1", "abc", "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"},
		{"GB/T 32905 A.2", "abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd", "debe9ff92275b8a138604889c18e5a4d6fdb70e5387e5765293dcba39c0c5732"},
	}
	for _, r := range rows {
		if got := hex.EncodeToString(SM3.Sum([]byte(r.message))); got != r.want {
			t.Errorf("%s: got %s, want %s", r.name, got, r.want)
		}
	}
}

func TestSM4Block(t *testing.T) {
	key := unhex(t, "0123456789abcdeffedcba9876543210")
	block, err := sm4.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	rounds, want := 1_000_000, "595298c7c6fd271f0402f804c33d3f66" // GB/T 32907 A.2
	if raceEnabled {
		rounds, want = 1, "681edf34d206965e86b3e94f536e4246" // GB/T 32907 A.1
	}
	for range rounds {
		block.Encrypt(key, key)
	}
	if got := hex.EncodeToString(key); got != want {
		t.Errorf("%d encryptions: got %s, want %s", rounds, got, want)
	}
}

func TestSM4Modes(t *testing.T) {
	const key1, key2 = "0123456789abcdeffedcba9876543210", "fedcba98765432100123456789abcdef"
	const short = "aaaaaaaabbbbbbbbccccccccddddddddeeeeeeeeffffffffaaaaaaaabbbbbbbb"
	const long = "aaaaaaaaaaaaaaaabbbbbbbbbbbbbbbbccccccccccccccccdddddddddddddddd" +
		"eeeeeeeeeeeeeeeeffffffffffffffffaaaaaaaaaaaaaaaabbbbbbbbbbbbbbbb"
	rows := []struct {
		name, key, plaintext, want string
		mode                       sm4Mode
	}{
		{"CBC A.2.2.1", key1, short, "78ebb11cc40b0a48312aaeb2040244cb4cb7016951909226979b0d15dc6a8f6d", sm4CBC},
		{"CBC A.2.2.2", key2, short, "0d3a6ddc2d21c698857215587b7bb59a91f2c147911a4144665e1fa1d40bae38", sm4CBC},
		{"CTR A.2.5.1", key1, long, "ac3236cb970cc20791364c395a1342d1a3cbc1878c6f30cd074cce385cdd70c7" +
			"f234bc0e24c11980fd1286310ce37b926e02fcd0faa0baf38b2933851d824514", sm4CTR},
		{"CTR A.2.5.2", key2, long, "5dcccd25b95ab07417a08512ee160e2f8f661521cbbab44cc87138445bc29e5c" +
			"0ae0297205d62704173b21239b887f6c8cb5b800917a2488284bde9e16ea2906", sm4CTR},
	}
	iv := unhex(t, "000102030405060708090a0b0c0d0e0f")
	for _, r := range rows {
		block, err := sm4.NewCipher(unhex(t, r.key))
		if err != nil {
			t.Fatal(err)
		}
		plaintext, want := unhex(t, r.plaintext), unhex(t, r.want)
		got := r.mode.encrypt(nil, block, iv, plaintext)
		// Our CBC adds a block of padding, which the examples do not have.
		if len(got) != r.mode.padded(len(plaintext)) || !bytes.Equal(got[:len(want)], want) {
			t.Errorf("%s: encrypt: got %x, want %x", r.name, got, want)
		}
		back, err := r.mode.decrypt(nil, block, iv, got)
		if err != nil || !bytes.Equal(back, plaintext) {
			t.Errorf("%s: decrypt: got %x, %v, want %x", r.name, back, err, plaintext)
		}
	}
}

// Only a holder of the key can make these, so they test decryptCBC alone.
func TestSM4CBCPadding(t *testing.T) {
	block, err := sm4.NewCipher(make([]byte, 16))
	if err != nil {
		t.Fatal(err)
	}
	iv := make([]byte, 16)
	raw := func(last ...byte) []byte {
		padded := encryptCBC(nil, block, iv, append(make([]byte, 16-len(last)), last...))
		return padded[:16] // without the block that encryptCBC added
	}
	rows := []struct {
		name       string
		ciphertext []byte
	}{
		{"empty", nil},
		{"half a block", make([]byte, 8)},
		{"padding 0", raw(0)},
		{"padding 17", raw(17)},
		{"padding 255", raw(255)},
		{"padding 2, one wrong", raw(1, 2)},
		{"padding 16, first wrong", raw(append([]byte{15}, bytes.Repeat([]byte{16}, 15)...)...)},
	}
	for _, r := range rows {
		if got, err := decryptCBC(nil, block, iv, r.ciphertext); err == nil {
			t.Errorf("%s: got %x, want an error", r.name, got)
		}
	}
	if got, err := decryptCBC(nil, block, iv, raw(7, 1)); err != nil || len(got) != 15 {
		t.Errorf("padding 1: got %x, %v, want 15 bytes", got, err)
	}
}

// sm2Example is the key pair of GM/T 0003.5.
func sm2Example(t testing.TB) *Private {
	t.Helper()
	key, err := OpenPrivate(SM2, secret.New(unhex(t, "3945208f7b2144b13f36e38ac6d39f95889393692860b51a42fb81ef4df7c5b8"+
		"0409f9df311e5421a150dd7d161e4bc5c672179fad1833fc076bb08ff356f35020"+
		"ccea490ce26775a52dc6ea718cc1aa600aed05fbf35e084a6632f6072da9ad13")))
	if err != nil {
		t.Fatal(err)
	}
	return key
}

type rs struct{ R, S *big.Int }

func derSignature(t testing.TB, r, s []byte) []byte {
	t.Helper()
	der, err := asn1.Marshal(rs{new(big.Int).SetBytes(r), new(big.Int).SetBytes(s)})
	if err != nil {
		t.Fatal(err)
	}
	return der
}

func TestSM2SignatureExample(t *testing.T) {
	key := sm2Example(t)
	signature := derSignature(t,
		unhex(t, "f5a03b0648d2c4630eeac513e1bb81a15944da3827d5b74143ac7eaceee720b3"),
		unhex(t, "b1b6aa29df212fd8763182bc0d421ca1bb9038fd1f7f42d4840b69c485bbc1aa"))
	for _, mt := range []MessageType{MessageRaw, MessageDigest} {
		ok, err := key.Verify([]byte("message digest"), signature, mt, SM3, PaddingNone)
		if err != nil || !ok {
			t.Errorf("Verify as %s: got %v, %v, want true", mt, ok, err)
		}
	}
	signature[len(signature)-1] ^= 1
	if ok, err := key.Verify([]byte("message digest"), signature, MessageRaw, SM3, PaddingNone); ok || err != nil {
		t.Errorf("Verify, last bit flipped: got %v, %v, want false", ok, err)
	}
}

// The hash before signing, Z included, as printed in GM/T 0003.5 appendix A.
func TestSM2DigestExample(t *testing.T) {
	key := sm2Example(t).ops().(sm2Private)
	got, err := key.digest([]byte("message digest"))
	if want := "f0b43e94ba45accaace692ed534382eb17e6ab5a19ce7b31f4486fdfc0d28640"; err != nil || hex.EncodeToString(got) != want {
		t.Errorf("digest: got %x, %v, want %s", got, err, want)
	}
}

// sm2ExampleCiphertext is the encryption of "encryption standard" with the
// scalar k of appendix C.
func sm2ExampleCiphertext(t testing.TB) (k, ciphertext []byte) {
	t.Helper()
	ciphertext, err := asn1.Marshal(sm2Ciphertext{
		X:          new(big.Int).SetBytes(unhex(t, "04ebfc718e8d1798620432268e77feb6415e2ede0e073c0f4f640ecd2e149a73")),
		Y:          new(big.Int).SetBytes(unhex(t, "e858f9d81e5430a57b36daab8f950a3c64e6ee6a63094d99283aff767e124df0")),
		Hash:       unhex(t, "59983c18f809e262923c53aec295d30383b54e39d609d160afcb1908d0bd8766"),
		Ciphertext: unhex(t, "21886ca989ca9c7d58087307ca93092d651efa"),
	})
	if err != nil {
		t.Fatal(err)
	}
	return unhex(t, "59276e27d506861a16680f3ad9c02dccef3cc1fa3cdbe4ce6d54b80deac1bc21"), ciphertext
}

func TestSM2EncryptionExample(t *testing.T) {
	key, plaintext := sm2Example(t), []byte("encryption standard")
	k, ciphertext := sm2ExampleCiphertext(t)
	if got, err := key.Decrypt(ciphertext, PaddingNone); err != nil || !bytes.Equal(got, plaintext) {
		t.Errorf("Decrypt: got %q, %v, want %q", got, err, plaintext)
	}
	if got, err := key.ops().(sm2Private).encryptFrom(bytes.NewReader(k), plaintext); err != nil || !bytes.Equal(got, ciphertext) {
		t.Errorf("Encrypt: got %x, %v, want %x", got, err, ciphertext)
	}
}

// One scalar in 256 gives a zero key stream for one byte. The next one must then
// be used, with the public key that the caller meant.
func TestSM2EncryptRetries(t *testing.T) {
	key := sm2Example(t)
	retried := 0
	for i := range 1024 {
		scalars := make([]byte, 4*sm2ScalarLen)
		for j := range 4 {
			binary.BigEndian.PutUint32(scalars[(j+1)*sm2ScalarLen-4:], uint32(i+j+1))
		}
		random := bytes.NewReader(scalars)
		c, err := key.ops().(sm2Private).encryptFrom(random, []byte{0x5a})
		if err != nil {
			t.Fatal(err)
		}
		if random.Len() < 3*sm2ScalarLen {
			retried++
		}
		if got, err := key.Decrypt(c, PaddingNone); err != nil || !bytes.Equal(got, []byte{0x5a}) {
			t.Errorf("scalar %d: got %x, %v", i+1, got, err)
		}
	}
	if retried == 0 {
		t.Error("no scalar of 1024 gave a zero key stream")
	}
}

func TestSM2EncryptWithoutRandomness(t *testing.T) {
	k := sm2Example(t).ops().(sm2Private)
	for name, random := range map[string][]byte{"none": nil, "half a scalar": make([]byte, 16), "zeros only": make([]byte, sm2Retries*sm2ScalarLen)} {
		if c, err := k.encryptFrom(bytes.NewReader(random), []byte("p")); err == nil || c != nil {
			t.Errorf("%s: got %x, want an error", name, c)
		}
	}
}

func TestSM2DecryptRefuses(t *testing.T) {
	key := sm2Example(t)
	good, err := key.Encrypt([]byte("some plaintext of a few dozen bytes"), PaddingNone)
	if err != nil {
		t.Fatal(err)
	}
	var c sm2Ciphertext
	if _, err := asn1.Unmarshal(good, &c); err != nil {
		t.Fatal(err)
	}
	plain, err := sm2.ASN1Ciphertext2Plain(good, nil)
	if err != nil {
		t.Fatal(err)
	}
	n := sm2.P256().Params().P
	one := big.NewInt(1)
	rows := []struct {
		name       string
		ciphertext any
	}{
		{"older encoding without DER", plain},
		{"nothing", []byte{}},
		{"a byte more", append(bytes.Clone(good), 0)},
		{"other point", sm2Ciphertext{sm2.P256().Params().Gx, sm2.P256().Params().Gy, c.Hash, c.Ciphertext}},
		{"point off the curve", sm2Ciphertext{new(big.Int).Add(c.X, one), c.Y, c.Hash, c.Ciphertext}},
		{"point at infinity", sm2Ciphertext{new(big.Int), new(big.Int), c.Hash, c.Ciphertext}},
		{"x not reduced", sm2Ciphertext{new(big.Int).Add(c.X, n), c.Y, c.Hash, c.Ciphertext}},
		{"x negative", sm2Ciphertext{new(big.Int).Neg(c.X), c.Y, c.Hash, c.Ciphertext}},
		{"y negated", sm2Ciphertext{c.X, new(big.Int).Sub(n, c.Y), c.Hash, c.Ciphertext}},
		{"short hash", sm2Ciphertext{c.X, c.Y, c.Hash[:31], c.Ciphertext}},
		{"long hash", sm2Ciphertext{c.X, c.Y, append(bytes.Clone(c.Hash), 0), c.Ciphertext}},
		{"empty ciphertext", sm2Ciphertext{c.X, c.Y, c.Hash, nil}},
		{"ciphertext cut", sm2Ciphertext{c.X, c.Y, c.Hash, c.Ciphertext[1:]}},
	}
	for _, r := range rows {
		raw, ok := r.ciphertext.([]byte)
		if !ok {
			if raw, err = asn1.Marshal(r.ciphertext); err != nil {
				t.Fatal(err)
			}
		}
		if got, err := key.Decrypt(raw, PaddingNone); err != ErrDecrypt || got != nil {
			t.Errorf("%s: got %x, %v, want ErrDecrypt itself", r.name, got, err)
		}
	}
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 1
		if got, err := key.Decrypt(bad, PaddingNone); err != ErrDecrypt || got != nil {
			t.Errorf("byte %d flipped: got %x, %v, want ErrDecrypt itself", i, got, err)
		}
		if got, err := key.Decrypt(good[:i], PaddingNone); err != ErrDecrypt || got != nil {
			t.Errorf("cut to %d: got %x, %v, want ErrDecrypt itself", i, got, err)
		}
	}
}
