//go:build pkcs11

package hsm

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"encoding/hex"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/miekg/pkcs11"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/host/hsm/hsmtest"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
)

// A bench is a SoftHSM with a token, ehsm, that has the keys k and w, for GCM and
// for wrapping.
type bench struct {
	*hsmtest.SoftHSM
	settings config.HSM
	token    string // its directory
}

func newBench(t *testing.T) *bench {
	t.Helper()
	b := &bench{SoftHSM: hsmtest.New(t, t.TempDir())}
	t.Setenv("SOFTHSM2_CONF", b.Config)
	b.settings = config.HSM{Module: b.Library, Token: "ehsm", Keys: []string{"k", "w", "other"}, PINFile: b.PINFile, Mechanism: config.MechanismGCM}
	b.token = b.InitToken(t, "ehsm")
	b.initKeys(t)
	return b
}

func (b *bench) initKeys(t *testing.T) {
	t.Helper()
	k := b.open(t)
	if err := k.InitKey("k"); err != nil {
		t.Fatal(err)
	}
	k.settings.Mechanism = config.MechanismKeyWrapPad
	if err := k.InitKey("w"); err != nil {
		t.Fatal(err)
	}
	k.Close() // as long as it is open, no other one of this process can be
}

func (b *bench) open(t *testing.T) *Token {
	t.Helper()
	k := NewToken(b.settings)
	t.Cleanup(k.Close)
	return k
}

// wrapped has a key wrapped with a key of the token.
func wrapped(t *testing.T, k *Token, label string) hsm.Wrapped {
	t.Helper()
	k.settings.Mechanism = config.MechanismGCM
	if label == "w" {
		k.settings.Mechanism = config.MechanismKeyWrapPad
	}
	w, err := k.Wrap(label, purpose, secretKey)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

var (
	purpose   = [32]byte{7}
	secretKey = []byte("the half of the HSM, 32 bytes...")
)

func TestTokenWraps(t *testing.T) {
	b := newBench(t)
	k := b.open(t)
	byGCM, byWrap := wrapped(t, k, "k"), wrapped(t, k, "w")
	if byGCM.Mechanism != hsm.GCM || len(byGCM.Blob) != 60 || byWrap.Mechanism != hsm.KeyWrapPad || len(byWrap.Blob) != 40 {
		t.Errorf("wrapped as %+v and %+v", byGCM, byWrap)
	}
	if again := wrapped(t, k, "k"); bytes.Equal(again.Blob[:nonceSize], byGCM.Blob[:nonceSize]) {
		t.Error("the same nonce twice")
	}
	k.Close()
	for _, mechanism := range []string{config.MechanismGCM, config.MechanismKeyWrapPad} { // whichever is set
		k.settings.Mechanism = mechanism
		for _, w := range []hsm.Wrapped{byGCM, byWrap} {
			if got, err := k.Unwrap(purpose, w); err != nil || !bytes.Equal(got, secretKey) {
				t.Errorf("%s: got %x, %v", w.Mechanism, got, err)
			}
		}
	}
	k.settings.Keys = []string{"w", "k"}
	if w, err := k.Wrap("", purpose, secretKey); err != nil || w.Label != "w" {
		t.Errorf("the first key: got %+v, %v", w, err)
	}
	if err := k.Check(); err != nil {
		t.Errorf("Check: %v", err)
	}
}

// TestTokenRefusals has what must not be unwrapped.
func TestTokenRefusals(t *testing.T) {
	b := newBench(t)
	k := b.open(t)
	byGCM, byWrap := wrapped(t, k, "k"), wrapped(t, k, "w")
	edit := func(w hsm.Wrapped, f func(*hsm.Wrapped)) hsm.Wrapped {
		w.Blob = bytes.Clone(w.Blob)
		f(&w)
		return w
	}
	rows := map[string]hsm.Wrapped{
		"GCM, cut":              edit(byGCM, func(w *hsm.Wrapped) { w.Blob = w.Blob[:59] }),
		"GCM, longer":           edit(byGCM, func(w *hsm.Wrapped) { w.Blob = append(w.Blob, 0) }),
		"wrap, cut":             edit(byWrap, func(w *hsm.Wrapped) { w.Blob = w.Blob[:32] }),
		"wrap, odd":             edit(byWrap, func(w *hsm.Wrapped) { w.Blob = w.Blob[:39] }),
		"wrap, longer":          edit(byWrap, func(w *hsm.Wrapped) { w.Blob = append(w.Blob, make([]byte, 8)...) }),
		"GCM with the other":    edit(byGCM, func(w *hsm.Wrapped) { w.Label = "w" }),
		"wrap with the other":   edit(byWrap, func(w *hsm.Wrapped) { w.Label = "k" }),
		"GCM as wrap":           edit(byGCM, func(w *hsm.Wrapped) { w.Label, w.Mechanism = "w", hsm.KeyWrapPad }),
		"wrap as GCM":           edit(byWrap, func(w *hsm.Wrapped) { w.Label, w.Mechanism = "k", hsm.GCM }),
		"key that is not there": edit(byGCM, func(w *hsm.Wrapped) { w.Label = "other" }),
		"key nobody named":      edit(byGCM, func(w *hsm.Wrapped) { w.Label = "stranger" }),
	}
	for i := range byGCM.Blob {
		rows["GCM, byte changed "+hex.EncodeToString([]byte{byte(i)})] = edit(byGCM, func(w *hsm.Wrapped) { w.Blob[i] ^= 1 })
	}
	for i := range byWrap.Blob {
		rows["wrap, byte changed "+hex.EncodeToString([]byte{byte(i)})] = edit(byWrap, func(w *hsm.Wrapped) { w.Blob[i] ^= 0x80 })
	}
	for name, w := range rows {
		if got, err := k.Unwrap(purpose, w); err == nil || len(got) > 0 {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
	}
	if got, err := k.Unwrap([32]byte{8}, byGCM); err == nil {
		t.Errorf("another context: got %x", got)
	}
	if _, err := k.Wrap("stranger", purpose, secretKey); !errors.Is(err, ErrKey) {
		t.Errorf("wrap with a key nobody named: got %v", err)
	}
	for _, w := range []hsm.Wrapped{byGCM, byWrap} { // none of it has done harm
		if got, err := k.Unwrap(purpose, w); err != nil || !bytes.Equal(got, secretKey) {
			t.Errorf("%s afterwards: got %x, %v", w.Mechanism, got, err)
		}
	}
}

// TestKeysThatMustNotWrap has keys that somebody else made.
func TestKeysThatMustNotWrap(t *testing.T) {
	b := newBench(t)
	normal := map[uint]any{
		pkcs11.CKA_TOKEN: true, pkcs11.CKA_PRIVATE: true, pkcs11.CKA_SENSITIVE: true, pkcs11.CKA_EXTRACTABLE: false,
		pkcs11.CKA_ENCRYPT: true, pkcs11.CKA_DECRYPT: true, pkcs11.CKA_WRAP: true, pkcs11.CKA_UNWRAP: true, pkcs11.CKA_VALUE_LEN: 32,
	}
	for _, row := range []struct {
		name   string
		change map[uint]any
		copies int
		text   string // of the refusal; "": none
	}{
		{"one as init-key makes it", nil, 1, ""},
		{"extractable", map[uint]any{pkcs11.CKA_EXTRACTABLE: true}, 1, "it is extractable"},
		{"not sensitive", map[uint]any{pkcs11.CKA_SENSITIVE: false}, 1, "it is not sensitive"},
		{"there without a login", map[uint]any{pkcs11.CKA_PRIVATE: false}, 1, "without a login"},
		{"AES-128", map[uint]any{pkcs11.CKA_VALUE_LEN: 16}, 1, "no AES key of 32 bytes"},
		{"decrypts only", map[uint]any{pkcs11.CKA_ENCRYPT: false}, 1, "may not encrypt"},
		{"imported", map[uint]any{pkcs11.CKA_VALUE: bytes.Repeat([]byte{1}, 32)}, 1, "came from outside"},
		{"two of a label", nil, 2, "2 have the label"},
	} {
		k := b.open(t)
		k.settings.Keys = []string{row.name}
		err := k.with(func() error {
			for range row.copies {
				makeKey(t, k, row.name, normal, row.change)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = k.Wrap("", purpose, secretKey)
		if row.text == "" && err != nil || row.text != "" && (!errors.Is(err, ErrKey) || !strings.Contains(err.Error(), row.text)) {
			t.Errorf("%s: got %v, want %q", row.name, err, row.text)
		}
		if row.text != "" && k.Check() == nil {
			t.Errorf("%s: Check accepts it", row.name)
		}
		k.Close()
	}
	k := b.open(t)
	for name, label := range map[string]string{"there already": "k", "no label": "", "a label of two lines": "a\nb"} {
		if err := k.InitKey(label); !errors.Is(err, ErrKey) {
			t.Errorf("InitKey, %s: got %v, want ErrKey", name, err)
		}
	}
}

// makeKey makes or imports a key.
func makeKey(t *testing.T, k *Token, label string, normal, change map[uint]any) pkcs11.ObjectHandle {
	t.Helper()
	all := map[uint]any{pkcs11.CKA_LABEL: label}
	for _, m := range []map[uint]any{normal, change} {
		for a, v := range m {
			all[a] = v
		}
	}
	_, imported := all[pkcs11.CKA_VALUE]
	if imported {
		delete(all, pkcs11.CKA_VALUE_LEN)
		all[pkcs11.CKA_CLASS], all[pkcs11.CKA_KEY_TYPE] = pkcs11.CKO_SECRET_KEY, pkcs11.CKK_AES
	}
	var template []*pkcs11.Attribute
	for a, v := range all {
		template = append(template, pkcs11.NewAttribute(a, v))
	}
	var h pkcs11.ObjectHandle
	var err error
	if imported {
		h, err = k.library.CreateObject(k.session, template)
	} else {
		h, err = k.library.GenerateKey(k.session, []*pkcs11.Mechanism{pkcs11.NewMechanism(pkcs11.CKM_AES_KEY_GEN, nil)}, template)
	}
	if err != nil {
		t.Fatalf("%s: %v", label, err)
	}
	return h
}

// TestMechanisms compares what a token makes with AES-GCM of Go, and with RFC 5649
// written out, under a key that was put into the token.
func TestMechanisms(t *testing.T) {
	b := newBench(t)
	k := b.open(t)
	key := bytes.Repeat([]byte{0x42}, 32)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	err = k.with(func() error {
		h := makeKey(t, k, "known", map[uint]any{
			pkcs11.CKA_TOKEN: false, pkcs11.CKA_ENCRYPT: true, pkcs11.CKA_DECRYPT: true, pkcs11.CKA_WRAP: true, pkcs11.CKA_UNWRAP: true,
		}, map[uint]any{pkcs11.CKA_VALUE: key})
		blob, err := k.encrypt(h, purpose, secretKey)
		if err != nil {
			return err
		}
		got, err := aead.Open(nil, blob[:12], blob[12:], append([]byte("ehsm/hsm-wrap/v1\x00"), purpose[:]...))
		if err != nil || !bytes.Equal(got, secretKey) {
			t.Errorf("CKM_AES_GCM: got %x, %v", got, err)
		}
		if blob, err = k.wrapKey(h, secretKey); err != nil {
			return err
		}
		if got, ok := unwrapRFC5649(block, blob); !ok || !bytes.Equal(got, secretKey) {
			t.Errorf("CKM_AES_KEY_WRAP_PAD: got %x, %v", got, ok)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// unwrapRFC5649 is section 4.2 for keys that fill whole blocks of 8 bytes.
func unwrapRFC5649(block cipher.Block, blob []byte) (key []byte, ok bool) {
	n := len(blob)/8 - 1
	r := bytes.Clone(blob)
	for j := 5; j >= 0; j-- {
		for i := n; i >= 1; i-- {
			var b [16]byte
			copy(b[:8], r[:8])
			step := uint64(n*j + i)
			for x := range 8 {
				b[7-x] ^= byte(step >> (8 * x))
			}
			copy(b[8:], r[8*i:8*i+8])
			block.Decrypt(b[:], b[:])
			copy(r[:8], b[:8])
			copy(r[8*i:], b[8:])
		}
	}
	return r[8:], bytes.Equal(r[:8], []byte{0xa6, 0x59, 0x59, 0xa6, 0, 0, 0, byte(8 * n)})
}

// TestPIN has PINs that are wrong, that are put right, and that are changed.
func TestPIN(t *testing.T) {
	b := newBench(t)
	k := b.open(t)
	w := wrapped(t, k, "k")
	unwraps := func(name string, want error, text string) {
		t.Helper()
		got, err := k.Unwrap(purpose, w)
		if !errors.Is(err, want) || err != nil && !strings.Contains(err.Error(), text) || (err == nil) != bytes.Equal(got, secretKey) {
			t.Errorf("%s: got %x, %v", name, got, err)
		}
	}
	k.Close()
	b.WritePIN(t, "1111-wrong")
	unwraps("wrong", ErrPIN, "the token refuses it")
	unwraps("wrong, again", ErrPIN, "not tried again")
	b.WritePIN(t, "1")
	unwraps("too short", ErrPIN, "the token refuses it")
	b.WritePIN(t, "")
	unwraps("none", ErrPIN, "not one line")
	b.WritePIN(t, hsmtest.PIN)
	unwraps("right", nil, "")
	if err := k.library.SetPIN(k.session, hsmtest.PIN, "7777-changed"); err != nil {
		t.Fatal(err)
	}
	k.Close()
	unwraps("changed in the token", ErrPIN, "the token refuses it")
	b.WritePIN(t, "7777-changed\n")
	unwraps("changed in the file too", nil, "")
	k.Close()
	if err := os.Chmod(b.PINFile, 0o644); err != nil {
		t.Fatal(err)
	}
	unwraps("which everybody reads", ErrPIN, "chmod 600")
}

// TestPulled takes token and library away and puts others in their place.
func TestPulled(t *testing.T) {
	b := newBench(t)
	k := b.open(t)
	w := wrapped(t, k, "k")
	move := func(from, to string) {
		t.Helper()
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	unwraps := func(name string, want error) {
		t.Helper()
		if got, err := k.Unwrap(purpose, w); !errors.Is(err, want) || (err == nil) != bytes.Equal(got, secretKey) {
			t.Errorf("%s: got %x, %v, want %v", name, got, err, want)
		}
	}
	away := filepath.Join(b.Dir, "away")
	move(b.token, away)
	unwraps("pulled while it was open", ErrToken)
	unwraps("pulled", ErrToken)
	move(away, b.token)
	unwraps("put back", nil)

	k.Close()
	move(b.token, away)
	other := b.InitToken(t, "ehsm")
	unwraps("another token of the label, without the key", ErrKey)
	k.Close()
	b.initKeys(t)
	unwraps("another token of the label and with keys of the labels", ErrToken)
	k.Close()
	move(away, b.token)
	unwraps("two tokens of the label", ErrToken)
	if err := os.RemoveAll(other); err != nil {
		t.Fatal(err)
	}
	unwraps("the right one again", nil)

	k.Close()
	move(b.Library, away)
	unwraps("no library", ErrToken)
	if err := os.WriteFile(b.Library, []byte("no library"), 0o600); err != nil {
		t.Fatal(err)
	}
	unwraps("something else for the library", ErrToken)
	move(away, b.Library)
	unwraps("the library again", nil)
}
