package ehsm

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/ehsm-kms/ehsm/api"
)

const (
	goldenKeyID   = "aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"
	goldenWrapped = "wrapped data key"
)

// fakeKeys is a service with one data key. It opens what it wrapped, for the
// same key and additional data only.
type fakeKeys struct {
	wrapped []byte
	aad     string // hex of what the golden files were wrapped with, "" for any
	err     error
	given   [][]byte // data keys that were handed out
}

func goldenKey() []byte {
	key := make([]byte, 32)
	for i := range key {
		key[i] = byte(i)
	}
	return key
}

func (f *fakeKeys) give() []byte {
	key := goldenKey()
	f.given = append(f.given, key)
	return key
}

func (f *fakeKeys) GenerateDataKey(_ context.Context, keyID string, n int, aad []byte) ([]byte, []byte, error) {
	if f.err != nil {
		return nil, nil, f.err
	}
	if keyID != goldenKeyID || n != 32 || len(aad) != 32 {
		return nil, nil, fmt.Errorf("GenerateDataKey: got key %s, %d bytes, %d bytes of aad", keyID, n, len(aad))
	}
	f.aad = hex.EncodeToString(aad)
	return f.give(), f.wrapped, nil
}

func (f *fakeKeys) Decrypt(_ context.Context, keyID string, ciphertext, aad []byte) ([]byte, error) {
	if f.err != nil {
		return nil, f.err
	}
	if keyID != goldenKeyID || !bytes.Equal(ciphertext, f.wrapped) || f.aad != "" && f.aad != hex.EncodeToString(aad) {
		return nil, &api.Error{Code: api.CodeInvalid, Message: api.MessageDecryptionFailed}
	}
	return f.give(), nil
}

func golden() *fakeKeys { return &fakeKeys{wrapped: []byte(goldenWrapped)} }

func pattern(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(i % 251)
	}
	return b
}

func seal(t testing.TB, keys dataKeys, plain, aad []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := (&Envelope{keys, goldenKeyID, aad}).Encrypt(context.Background(), &out)
	if err != nil {
		t.Fatalf("Encrypt: %v", err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatalf("Write: %v", err)
	}
	if err := w.Close(); err != nil {
		t.Fatalf("Close: %v", err)
	}
	return out.Bytes()
}

// open returns what was released, also before an error.
func open(keys dataKeys, sealed, aad []byte) ([]byte, error) {
	r, err := (&Envelope{keys, "", aad}).Decrypt(context.Background(), bytes.NewReader(sealed))
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

// Envelopes written by released versions and by testdata/golden.py. Add rows,
// never change one: a failure here means stored data can no longer be opened.
func TestGoldenEnvelopes(t *testing.T) {
	tests := []struct {
		file string
		size int
		aad  string
		wrap string
	}{
		{"empty.env", 0, "", wrapEmpty},
		{"small.env", 5, "aad", wrapAAD3},
		{"full-chunk.env", chunkSize, "", wrapEmpty},
		{"two-chunks.env", chunkSize + 1, "aad", wrapAAD3},
	}
	for _, tt := range tests {
		t.Run(tt.file, func(t *testing.T) {
			sealed, err := os.ReadFile("testdata/" + tt.file)
			if err != nil {
				t.Fatal(err)
			}
			keys := golden()
			keys.aad = tt.wrap
			got, err := open(keys, sealed, []byte(tt.aad))
			if err != nil || !bytes.Equal(got, pattern(tt.size)) {
				t.Fatalf("open: got %d bytes, %v, want %d", len(got), err, tt.size)
			}
			if again := reseal(t, sealed, got, []byte(tt.aad)); !bytes.Equal(again, sealed) {
				t.Error("sealing again under the same salt gives other bytes")
			}
		})
	}
}

// SHA-256("ehsm-envelope/v1 wrap\0" | aad), by golden.py.
const (
	wrapEmpty = "cf47f7a425c3f3f97045a123c15f9cb289736d929ed5c417fca797159234efea"
	wrapAAD3  = "77f253399c268774d0b43fa90d4b7d9ff82fa19f9cfcf8ee889c72b72d9887d7"
)

// reseal encrypts under the header of an envelope that exists.
func reseal(t *testing.T, sealed, plain, aad []byte) []byte {
	h, _, err := readHeader(bytes.NewReader(sealed))
	if err != nil {
		t.Fatal(err)
	}
	mac, aead, err := h.derive(goldenKey(), aad)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.Write(append(h.append(nil), mac[:]...))
	w := newChunkWriter(&out, aead, mac)
	w.Write(plain)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestEnvelopeSizes(t *testing.T) {
	for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 3*chunkSize + 7} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			plain := pattern(n)
			sealed := seal(t, golden(), plain, nil)
			head := fixedSize + len(goldenWrapped) + 32
			if want := head + n + tagSize*max(1, (n+chunkSize-1)/chunkSize); len(sealed) != want {
				t.Errorf("Encrypt: got %d bytes, want %d", len(sealed), want)
			}
			got, err := open(golden(), sealed, nil)
			if err != nil || !bytes.Equal(got, plain) {
				t.Errorf("Decrypt: got %d bytes, %v, want %d", len(got), err, n)
			}
			// One byte at a time, on both sides.
			r, err := (&Envelope{keys: golden()}).Decrypt(t.Context(), iotest.OneByteReader(bytes.NewReader(sealed)))
			if err != nil {
				t.Fatal(err)
			}
			if err := iotest.TestReader(r, plain); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestEnvelopeKeyID(t *testing.T) {
	sealed := seal(t, golden(), nil, nil)
	if id, ok := EnvelopeKeyID(sealed[:77]); !ok || id != goldenKeyID {
		t.Errorf("EnvelopeKeyID: got %s, %v, want %s", id, ok, goldenKeyID)
	}
	for name, bad := range map[string][]byte{"empty": nil, "short": sealed[:76], "other version": patched(sealed, 0, 1), "upper case": patched(sealed, 41, 'A')} {
		if id, ok := EnvelopeKeyID(bad); ok || id != "" {
			t.Errorf("%s: got %s, %v", name, id, ok)
		}
	}
}

func TestEnvelopesDiffer(t *testing.T) {
	a, b := seal(t, golden(), []byte("same"), nil), seal(t, golden(), []byte("same"), nil)
	if bytes.Equal(a[len(a)-20:], b[len(b)-20:]) {
		t.Error("two envelopes of one content under one data key have the same chunks")
	}
}

// Every bit of a small envelope, and every length of it, must be refused.
func TestEnvelopeDamage(t *testing.T) {
	sealed := seal(t, golden(), []byte("hello"), []byte("aad"))
	refused := 0
	for i := range len(sealed) * 8 {
		bad := bytes.Clone(sealed)
		bad[i/8] ^= 1 << (i % 8)
		if got, err := open(golden(), bad, []byte("aad")); err == nil || len(got) > 0 {
			t.Errorf("bit %d flipped: got %q, %v", i, got, err)
		} else {
			refused++
		}
	}
	for n := range sealed {
		if got, err := open(golden(), sealed[:n], []byte("aad")); err == nil || len(got) > 0 {
			t.Errorf("cut to %d bytes: got %q, %v", n, got, err)
		} else {
			refused++
		}
	}
	if want := 9 * len(sealed); refused != want {
		t.Errorf("refused %d changes, want %d", refused, want)
	}
}

// Changes that keep whole chunks. Want is how many bytes are released before the
// refusal: all of them genuine, at their place.
func TestEnvelopeRearranged(t *testing.T) {
	plain := pattern(3*chunkSize + 100)
	sealed := seal(t, golden(), plain, nil)
	other := seal(t, golden(), plain, nil)
	head := fixedSize + len(goldenWrapped) + 32
	parts := func(b []byte) [][]byte {
		c := b[head:]
		return [][]byte{b[:head], c[:sealedSize], c[sealedSize : 2*sealedSize], c[2*sealedSize : 3*sealedSize], c[3*sealedSize:]}
	}
	p, q := parts(sealed), parts(other)
	shorter := seal(t, golden(), plain[:chunkSize], nil)
	tests := []struct {
		name   string
		sealed [][]byte
		want   int
	}{
		{"header only", [][]byte{p[0]}, 0},
		{"last chunk dropped", p[:4], 2 * chunkSize},
		{"last chunk dropped, then cut", [][]byte{p[0], p[1], p[2][:100]}, chunkSize},
		{"first chunk dropped", [][]byte{p[0], p[2], p[3], p[4]}, 0},
		{"middle chunk dropped", [][]byte{p[0], p[1], p[3], p[4]}, chunkSize},
		{"chunks swapped", [][]byte{p[0], p[2], p[1], p[3], p[4]}, 0},
		{"chunk repeated", [][]byte{p[0], p[1], p[1], p[2], p[3], p[4]}, chunkSize},
		{"last chunk first", [][]byte{p[0], p[4]}, 0},
		{"last chunk repeated", [][]byte{p[0], p[1], p[2], p[3], p[4], p[4]}, 3 * chunkSize},
		{"byte appended", [][]byte{p[0], p[1], p[2], p[3], p[4], {0}}, 3 * chunkSize},
		{"byte appended to a full last chunk", [][]byte{shorter, {0}}, 0},
		{"empty last chunk appended to a full one", [][]byte{shorter, make([]byte, tagSize)}, 0},
		{"other header", [][]byte{q[0], p[1], p[2], p[3], p[4]}, 0},
		{"chunk of another envelope", [][]byte{p[0], p[1], q[2], p[3], p[4]}, chunkSize},
		{"tail of another envelope", [][]byte{p[0], p[1], p[2], p[3], q[4]}, 3 * chunkSize},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := open(golden(), bytes.Join(tt.sealed, nil), nil)
			if !errors.Is(err, ErrEnvelope) {
				t.Errorf("Decrypt: got %v, want ErrEnvelope", err)
			}
			if len(got) != tt.want || !bytes.Equal(got, plain[:len(got)]) {
				t.Errorf("Decrypt: released %d bytes, want the first %d", len(got), tt.want)
			}
		})
	}
}

// An empty last chunk after a full one would be a second encoding of the same
// content; even sealed with the right key it is refused.
func TestEnvelopeEmptyLastChunk(t *testing.T) {
	h := header{keyID: goldenKeyID, wrapped: []byte(goldenWrapped)}
	mac, aead, err := h.derive(goldenKey(), nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	out.Write(append(h.append(nil), mac[:]...))
	w := newChunkWriter(&out, aead, mac)
	w.Write(pattern(chunkSize))
	if err := errors.Join(w.flush(false), w.flush(true)); err != nil {
		t.Fatal(err)
	}
	if _, err := open(golden(), out.Bytes(), nil); !errors.Is(err, ErrEnvelope) {
		t.Errorf("Decrypt: got %v, want ErrEnvelope", err)
	}
}

func TestEnvelopeRefusals(t *testing.T) {
	disabled := &api.Error{Code: api.CodeInvalid, Message: api.MessageKeyDisabled}
	sealed := seal(t, golden(), []byte("hello"), []byte("aad"))
	ignoring := golden() // as the SM4 specs do with additional data
	shortKey := &fixedKey{make([]byte, 16)}
	otherKey := &fixedKey{bytes.Repeat([]byte{7}, 32)}
	tests := []struct {
		name string
		e    Envelope
		in   []byte
		want error
	}{
		{"other aad, where the wrapping ignores it", Envelope{ignoring, "", []byte("aae")}, sealed, ErrEnvelope},
		{"no aad", Envelope{ignoring, "", nil}, sealed, ErrEnvelope},
		{"another key asked for", Envelope{golden(), strings.Replace(goldenKeyID, "a", "b", 1), []byte("aad")}, sealed, ErrEnvelopeKey},
		{"another data key", Envelope{otherKey, "", []byte("aad")}, sealed, ErrEnvelope},
		{"short data key", Envelope{shortKey, "", []byte("aad")}, sealed, ErrEnvelope},
		{"key disabled", Envelope{&fakeKeys{err: disabled}, "", []byte("aad")}, sealed, disabled},
		{"empty", Envelope{golden(), "", nil}, nil, ErrEnvelopeFormat},
		{"text", Envelope{golden(), "", nil}, bytes.Repeat([]byte("text "), 100), ErrEnvelopeFormat},
		{"other version", Envelope{golden(), "", []byte("aad")}, patched(sealed, 0, 0xE2), ErrEnvelopeFormat},
		{"other chunk size", Envelope{golden(), "", []byte("aad")}, patched(sealed, 8, 15), ErrEnvelopeFormat},
		{"upper-case key id", Envelope{golden(), "", []byte("aad")}, patched(sealed, 41, 'A'), ErrEnvelopeFormat},
		{"no wrapped key", Envelope{golden(), "", []byte("aad")}, patched(sealed, 78, 0), ErrEnvelopeFormat},
		{"too long wrapped key", Envelope{golden(), "", []byte("aad")}, patched(sealed, 77, 0xff), ErrEnvelopeFormat},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r, err := tt.e.Decrypt(t.Context(), bytes.NewReader(tt.in))
			if !errors.Is(err, tt.want) || r != nil {
				t.Errorf("Decrypt: got %v, want %v", err, tt.want)
			}
		})
	}
}

func patched(b []byte, i int, to byte) []byte {
	b = bytes.Clone(b)
	b[i] = to
	return b
}

// fixedKey opens everything to one data key.
type fixedKey struct{ key []byte }

func (f *fixedKey) GenerateDataKey(context.Context, string, int, []byte) ([]byte, []byte, error) {
	return bytes.Clone(f.key), make([]byte, maxWrapped+1), nil
}

func (f *fixedKey) Decrypt(context.Context, string, []byte, []byte) ([]byte, error) {
	return bytes.Clone(f.key), nil
}

func TestEnvelopeEncryptRefusals(t *testing.T) {
	failed := errors.New("disk full")
	tests := []struct {
		name string
		e    Envelope
		dst  io.Writer
	}{
		{"no key id", Envelope{golden(), "", nil}, io.Discard},
		{"bad key id", Envelope{golden(), strings.ToUpper(goldenKeyID), nil}, io.Discard},
		{"short key id", Envelope{golden(), goldenKeyID[:35], nil}, io.Discard},
		{"service refuses", Envelope{&fakeKeys{err: failed}, goldenKeyID, nil}, io.Discard},
		{"too long wrapped key", Envelope{&fixedKey{goldenKey()}, goldenKeyID, nil}, io.Discard},
		{"no wrapped key", Envelope{&fakeKeys{}, goldenKeyID, nil}, io.Discard},
		{"header cannot be written", Envelope{golden(), goldenKeyID, nil}, failAfter{failed, new(int)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if w, err := tt.e.Encrypt(t.Context(), tt.dst); err == nil || w != nil {
				t.Errorf("Encrypt: got %v, want an error", err)
			}
		})
	}
}

// failAfter is a writer that fails after some writes.
type failAfter struct {
	err  error
	left *int
}

func (f failAfter) Write(p []byte) (int, error) {
	if *f.left--; *f.left < 0 {
		return 0, f.err
	}
	return len(p), nil
}

func TestEnvelopeWriteFails(t *testing.T) {
	failed, left := errors.New("disk full"), 2
	w, err := (&Envelope{golden(), goldenKeyID, nil}).Encrypt(t.Context(), failAfter{failed, &left})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(pattern(3 * chunkSize)); !errors.Is(err, failed) {
		t.Errorf("Write: got %v, want %v", err, failed)
	}
	if _, err := w.Write([]byte("x")); !errors.Is(err, failed) {
		t.Errorf("second Write: got %v, want %v", err, failed)
	}
	if err := w.Close(); !errors.Is(err, failed) {
		t.Errorf("Close: got %v, want %v", err, failed)
	}
}

func TestEnvelopeClosed(t *testing.T) {
	w, err := (&Envelope{golden(), goldenKeyID, nil}).Encrypt(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("x")); err == nil {
		t.Error("Write after Close: got no error")
	}
	if err := w.Close(); err == nil {
		t.Error("second Close: got no error")
	}
}

func TestEnvelopeSourceFails(t *testing.T) {
	failed := errors.New("connection lost")
	sealed := seal(t, golden(), pattern(2*chunkSize), nil)
	for name, n := range map[string]int{"in the header": 20, "in a chunk": 1000, "between chunks": len(sealed) - sealedSize} {
		src := io.MultiReader(bytes.NewReader(sealed[:n]), iotest.ErrReader(failed))
		r, err := (&Envelope{keys: golden()}).Decrypt(t.Context(), src)
		if err == nil {
			_, err = io.ReadAll(r)
		}
		if !errors.Is(err, failed) || errors.Is(err, ErrEnvelope) {
			t.Errorf("%s: got %v, want %v", name, err, failed)
		}
	}
}

func TestChunkLimit(t *testing.T) {
	c := chunkCipher{number: maxChunks - 1}
	if nonce, err := c.next(true); err != nil || hex.EncodeToString(nonce[:]) != "00000000000000ffffffff01" {
		t.Errorf("next: got %x, %v", nonce, err)
	}
	if _, err := c.next(true); err == nil {
		t.Error("next: got no error after 2^32 chunks")
	}
}

func TestDataKeyIsZeroed(t *testing.T) {
	keys := golden()
	sealed := seal(t, keys, []byte("hello"), nil)
	if _, err := open(keys, sealed, nil); err != nil {
		t.Fatal(err)
	}
	if _, err := open(keys, patched(sealed, 10, 0), nil); err == nil {
		t.Error("another salt: got no error")
	}
	if len(keys.given) != 3 {
		t.Fatalf("got %d data keys, want 3", len(keys.given))
	}
	for i, key := range keys.given {
		if !bytes.Equal(key, make([]byte, 32)) {
			t.Errorf("data key %d is not zeroed", i)
		}
	}
}

func FuzzReadHeader(f *testing.F) {
	h := header{keyID: goldenKeyID, wrapped: []byte(goldenWrapped)}
	f.Add(append(h.append(nil), make([]byte, 32)...))
	f.Add([]byte(envelopeMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		h, mac, err := readHeader(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, ErrEnvelopeFormat) {
				t.Errorf("readHeader: got %v, want ErrEnvelopeFormat", err)
			}
			return
		}
		if again := append(h.append(nil), mac[:]...); !bytes.HasPrefix(b, again) {
			t.Error("header does not re-encode to the bytes it came from")
		}
	})
}

func FuzzDecryptEnvelope(f *testing.F) {
	for _, name := range []string{"empty.env", "small.env"} {
		b, err := os.ReadFile("testdata/" + name)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		plain, err := open(golden(), b, nil)
		if err == nil && !bytes.Equal(reseal(t, b, plain, nil), b) {
			t.Error("envelope does not re-encode to the bytes it came from")
		}
	})
}

func BenchmarkEnvelope(b *testing.B) {
	plain := pattern(1 << 20)
	b.SetBytes(int64(len(plain)))
	for b.Loop() {
		w, err := (&Envelope{golden(), goldenKeyID, nil}).Encrypt(context.Background(), io.Discard)
		if err != nil {
			b.Fatal(err)
		}
		w.Write(plain)
		w.Close()
	}
}
