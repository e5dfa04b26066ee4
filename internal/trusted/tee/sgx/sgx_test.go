package sgx

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

func key(b byte) []byte { return bytes.Repeat([]byte{b}, KeySize) }

// Known answers of another implementation of HKDF, in Python.
func TestSealKeyKnownAnswers(t *testing.T) {
	q := tee.KeyRequest{Policy: tee.BindSigner, SVN: 2, KeyID: [32]byte{3}, Info: []byte{1, 2}}
	for name, row := range map[string]struct {
		keys [][]byte
		want string
	}{
		"one key":  {[][]byte{key(1)}, "86b2e75cf55b46dd57507a782d73828bd48ef2383a2c7576561bc2ffae09f211"},
		"two keys": {[][]byte{key(1), key(2)}, "db96c6f1ea2de6d4b5d8c34bf2914ddc1e3654d66120559478dae04a2823316c"},
	} {
		got, err := SealKey("label\x00", q, 7, row.keys...)
		if err != nil || hex.EncodeToString(got.Expose()) != row.want {
			t.Errorf("%s: got %x, %v, want %s", name, got.Expose(), err, row.want)
		}
		for _, k := range row.keys {
			if !bytes.Equal(k, make([]byte, KeySize)) {
				t.Errorf("%s: a key of the processor is left in memory", name)
			}
		}
	}
}

func TestSealKeyIsBound(t *testing.T) {
	q := tee.KeyRequest{Policy: tee.BindSigner, SVN: 2, KeyID: [32]byte{3}, Info: []byte{1, 2}}
	derive := func(label string, q tee.KeyRequest, product uint16, keys ...[]byte) string {
		k, err := SealKey(label, q, product, keys...)
		if err != nil {
			t.Fatal(err)
		}
		return string(k.Expose())
	}
	seen := map[string]string{}
	change := func(f func(*tee.KeyRequest)) tee.KeyRequest { c := q; f(&c); return c }
	for name, k := range map[string]string{
		"first":         derive("a", q, 1, key(1)),
		"other label":   derive("b", q, 1, key(1)),
		"other product": derive("a", q, 2, key(1)),
		"other key":     derive("a", q, 1, key(2)),
		"two keys":      derive("a", q, 1, key(1), key(1)),
		"other policy":  derive("a", change(func(q *tee.KeyRequest) { q.Policy = tee.BindMeasured }), 1, key(1)),
		"other SVN":     derive("a", change(func(q *tee.KeyRequest) { q.SVN = 1 }), 1, key(1)),
		"other KeyID":   derive("a", change(func(q *tee.KeyRequest) { q.KeyID[31] = 1 }), 1, key(1)),
		"other info":    derive("a", change(func(q *tee.KeyRequest) { q.Info = []byte{1, 3} }), 1, key(1)),
		"no info":       derive("a", change(func(q *tee.KeyRequest) { q.Info = nil }), 1, key(1)),
	} {
		if other, ok := seen[k]; ok {
			t.Errorf("%s and %s have one key", name, other)
		}
		seen[k] = name
	}
}

func TestRefusedKeys(t *testing.T) {
	for name, keys := range map[string][][]byte{
		"zero":          {make([]byte, KeySize)},
		"second zero":   {key(1), make([]byte, KeySize)},
		"short":         {make([]byte, KeySize-1)},
		"long":          {append(key(1), 1)},
		"empty":         {{}},
		"second absent": {key(1), nil},
	} {
		if k, err := SealKey("a", tee.KeyRequest{}, 1, keys...); !errors.Is(err, tee.ErrKeyRequest) || k.Len() != 0 {
			t.Errorf("%s: got %v, want ErrKeyRequest", name, err)
		}
	}
}

func TestIdentity(t *testing.T) {
	r := quote.Report{
		MREnclave: [32]byte{1}, MRSigner: [32]byte{2}, ISVProdID: 3, ISVSVN: 4,
		Attributes: quote.Attributes{Flags: quote.FlagInit | quote.FlagMode64},
	}
	want := tee.Identity{Measurement: [32]byte{1}, Signer: [32]byte{2}, Product: 3, SVN: 4}
	if got := Identity(r); got != want {
		t.Errorf("Identity: got %+v, want %+v", got, want)
	}
	r.Attributes.Flags |= quote.FlagDebug
	if !Identity(r).Debug {
		t.Error("Identity: a debug enclave does not show")
	}
}
