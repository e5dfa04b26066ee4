package primitive

import (
	"encoding/hex"
	"errors"
	"testing"
)

// The bits are in sealed records. Add lines, never change one.
func TestPaddingSetBits(t *testing.T) {
	rows := []struct {
		set  PaddingSet
		bits uint8
	}{
		{AllowPKCS1, 1}, {AllowPSS, 2}, {AllowOAEP, 4}, {EncryptionPaddings, 5}, {SignaturePaddings, 3},
	}
	for _, r := range rows {
		if uint8(r.set) != r.bits || !r.set.Valid() {
			t.Errorf("got bits %#b, valid %v, want %#b", r.set, r.set.Valid(), r.bits)
		}
	}
}

func TestPaddingSetHas(t *testing.T) {
	for set := range PaddingSet(16) {
		want := map[Padding]bool{PaddingPKCS1: set&1 != 0, PaddingPSS: set&2 != 0, PaddingOAEP: set&4 != 0}
		for p := range endPadding + 1 {
			if got := set.Has(p); got != want[p] {
				t.Errorf("PaddingSet(%#b).Has(%s): got %v, want %v", set, p, got, want[p])
			}
		}
		if got := set.Valid(); got != (set < 8) {
			t.Errorf("PaddingSet(%#b).Valid: got %v", set, got)
		}
	}
}

func TestParseNames(t *testing.T) {
	for name, want := range map[string]Padding{
		"EH_PAD_NONE": PaddingNone, "EH_RSA_PKCS1": PaddingPKCS1, "EH_RSA_PKCS1_PSS": PaddingPSS, "EH_RSA_PKCS1_OAEP": PaddingOAEP,
		"EH_PAD_RSA_PKCS1": PaddingPKCS1, "EH_PAD_RSA_PKCS1_PSS": PaddingPSS, "EH_PAD_RSA_PKCS1_OAEP": PaddingOAEP,
	} {
		if got, ok := ParsePadding(name); !ok || got != want {
			t.Errorf("ParsePadding(%q): got %s, %v, want %s", name, got, ok, want)
		}
	}
	for name, want := range map[string]Digest{
		"EH_SHA_224": SHA224, "EH_SHA_256": SHA256, "EH_SHA_384": SHA384, "EH_SHA_512": SHA512, "EH_SM3": SM3,
	} {
		if got, ok := ParseDigest(name); !ok || got != want || got.String() != name {
			t.Errorf("ParseDigest(%q): got %s, %v, want %s", name, got, ok, want)
		}
	}
	for name, want := range map[string]MessageType{"EH_RAW": MessageRaw, "EH_DIGEST": MessageDigest} {
		if got, ok := ParseMessageType(name); !ok || got != want || got.String() != name {
			t.Errorf("ParseMessageType(%q): got %s, %v, want %s", name, got, ok, want)
		}
	}
}

func TestParseNamesRefuses(t *testing.T) {
	for _, name := range []string{"", " ", "EH_raw", "EH_RAW ", "EH_SHA_1", "EH_PAD_", "EH_PAD_RSA", "SHA256", "Padding(1)", "EH_PAD_EH_RSA_PKCS1"} {
		if got, ok := ParsePadding(name); ok || got != 0 {
			t.Errorf("ParsePadding(%q): got %s", name, got)
		}
		if got, ok := ParseDigest(name); ok || got != 0 {
			t.Errorf("ParseDigest(%q): got %s", name, got)
		}
		if got, ok := ParseMessageType(name); ok || got != 0 {
			t.Errorf("ParseMessageType(%q): got %s", name, got)
		}
	}
	for got, want := range map[string]string{
		Padding(0).String(): "Padding(0)", endPadding.String(): "Padding(5)", Digest(0).String(): "Digest(0)",
		Digest(255).String(): "Digest(255)", MessageType(0).String(): "MessageType(0)", endMessageType.String(): "MessageType(3)",
	} {
		if got != want {
			t.Errorf("String: got %s, want %s", got, want)
		}
	}
}

// "abc" is the first example of FIPS 180-4 for every SHA-2 function.
func TestDigestSum(t *testing.T) {
	rows := []struct {
		digest Digest
		size   int
		want   string
	}{
		{SHA224, 28, "23097d223405d8228642a477bda255b32aadbce4bda0b3f7e36c9da7"},
		{SHA256, 32, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
		{SHA384, 48, "cb00753f45a35e8bb5a03d699ac65007272c32ab0eded1631a8b605a43ff5bed8086072ba1e7cc2358baeca134c825a7"},
		{SHA512, 64, "ddaf35a193617abacc417349ae20413112e6fa4e89a97ea20a9eeee64b55d39a2192992a274fc1a836ba3c23a3feebbd454d4423643ce80e2a9ac94fa54ca49f"},
		{SM3, 32, "66c7f0f462eeedd9d1f2d46bdc10e4e24167c4875cf2f7a2297da02b8f4ba8e0"},
		{0, 0, ""}, {endDigest, 0, ""},
	}
	for _, r := range rows {
		if got := hex.EncodeToString(r.digest.Sum([]byte("abc"))); got != r.want || r.digest.Size() != r.size {
			t.Errorf("%s: got %s of %d bytes, want %s of %d", r.digest, got, r.digest.Size(), r.want, r.size)
		}
	}
}

func TestDefaultDigest(t *testing.T) {
	for s := range Spec(len(specs)) {
		want := SHA256
		if s == SM2 {
			want = SM3
		}
		if got := s.DefaultDigest(); got != want {
			t.Errorf("DefaultDigest of %s: got %s, want %s", s, got, want)
		}
	}
}

func TestErrorsArePrintable(t *testing.T) {
	key := testPrivate(t, HMAC)
	_, err := key.Sign(nil, 0, 0, 0)
	if want := "HMAC with MessageType(0) and Digest(0): parameter not allowed"; !errors.Is(err, ErrParameter) || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}
