package domainkey

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/genesis"
)

func TestReleasedBundlesOpen(t *testing.T) {
	for _, b := range releasedBundles(t) {
		k, g, err := Open(b.write(t), b.platform(), secret.NewHeap())
		if err != nil {
			t.Errorf("%s: %v", b.Name, err)
			continue
		}
		if domain := k.Domain(); !bytes.Equal(domain[:], b.Domain) {
			t.Errorf("%s: domain is %s, want %x", b.Name, domain, b.Domain)
		}
		if !bytes.Equal(g.DomainKey, b.PublicKey) || !ed25519.Verify(ed25519.PublicKey(b.PublicKey), []byte("message"), k.Sign([]byte("message"))) {
			t.Errorf("%s: does not sign with the key that the genesis names", b.Name)
		}
		if int(k.Current()) != len(b.DomainKeys) {
			t.Errorf("%s: current version is %d, want %d", b.Name, k.Current(), len(b.DomainKeys))
		}
		for i, want := range b.RecordWrapping {
			got, err := k.Key(RecordWrapping, uint32(i+1))
			if err != nil || !bytes.Equal(got.Expose(), want) {
				t.Errorf("%s: record wrapping key of version %d: got %x, %v, want %x", b.Name, i+1, got.Expose(), err, want)
			}
		}
	}
}

// TestRecordWrappingByHand is HKDF-Expand of RFC 5869 with one block, written out.
func TestRecordWrappingByHand(t *testing.T) {
	k, domain := secret.New(bytes.Repeat([]byte{7}, KeySize)), genesis.ID(bytes.Repeat([]byte{9}, 32))
	ring, err := newKeyring(secret.NewHeap(), domain, []secret.Bytes{k}, secret.New(make([]byte, ed25519.SeedSize)))
	if err != nil {
		t.Fatal(err)
	}
	m := hmac.New(sha256.New, k.Expose())
	m.Write([]byte("ehsm/record-wrapping/v1\x00"))
	m.Write(domain[:])
	m.Write([]byte{1})
	got, err := ring.Key(RecordWrapping, 1)
	if err != nil || !bytes.Equal(got.Expose(), m.Sum(nil)) {
		t.Errorf("RecordWrapping: got %x, %v, want %x", got.Expose(), err, m.Sum(nil))
	}
	const known = "62bf11b8f7c6f938beba2720cfcca54c183282d8fcd0de71c9f0f9c2fcd5d5ba"
	if hex.EncodeToString(got.Expose()) != known {
		t.Errorf("RecordWrapping: got %x, want %s", got.Expose(), known)
	}
}

func TestVersionsNotHeld(t *testing.T) {
	b := releasedBundles(t)[1]
	k := open(t, b.write(t), b.platform())
	for _, version := range []uint32{0, k.Current() + 1, math.MaxInt32, math.MaxUint32} {
		if got, err := k.Key(RecordWrapping, version); !errors.Is(err, ErrNoVersion) || got.Len() != 0 {
			t.Errorf("version %d: got %d bytes, %v, want ErrNoVersion", version, got.Len(), err)
		}
	}
}

func TestKeyringsDoNotPrint(t *testing.T) {
	b := releasedBundles(t)[0]
	k := open(t, b.write(t), b.platform())
	for _, verb := range []string{"%v", "%+v", "%#v", "%x"} {
		out := fmt.Sprintf(verb, k)
		for _, hidden := range [][]byte{b.DomainKeys[0], b.SigningSeed, b.RecordWrapping[0]} {
			if strings.Contains(out, hex.EncodeToString(hidden)) || strings.Contains(out, fmt.Sprint(hidden)) {
				t.Errorf("%s prints key material: %s", verb, out)
			}
		}
	}
}

// TestSealByLayout opens what seal writes with nothing but AES-GCM and the
// layout of docs/formats.md#domainkey-bundle-v1.
func TestSealByLayout(t *testing.T) {
	p, domain := node(), genesis.ID{1, 2, 3}
	dks := []secret.Bytes{secret.New(bytes.Repeat([]byte{1}, 32)), secret.New(bytes.Repeat([]byte{2}, 32))}
	bundle, err := seal(p, domain, dks, secret.New(bytes.Repeat([]byte{3}, 32)))
	if err != nil {
		t.Fatal(err)
	}
	const headLen = 1 + 1 + 2 + 32 + 4 + 32
	head, box := bundle[:headLen], bundle[headLen:]
	if head[0] != 1 || head[1] != byte(tee.BindSigner) || binary.BigEndian.Uint16(head[2:]) != p.id.SVN || !bytes.Equal(head[36:40], make([]byte, 4)) || !bytes.Equal(head[40:], domain[:]) {
		t.Errorf("seal: head is %x", head)
	}
	key, err := p.SealKey(tee.KeyRequest{Policy: tee.BindSigner, SVN: p.id.SVN, KeyID: [32]byte(head[4:36])})
	if err != nil {
		t.Fatal(err)
	}
	block, err := aes.NewCipher(key.Expose())
	if err != nil {
		t.Fatal(err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := aead.Open(nil, make([]byte, 12), box, append([]byte("ehsm/domainkey-bundle/v1\x00"), head...))
	if err != nil {
		t.Fatal(err)
	}
	want := bytes.Join([][]byte{bytes.Repeat([]byte{3}, 32), {0, 0, 0, 2}, bytes.Repeat([]byte{1}, 32), bytes.Repeat([]byte{2}, 32)}, nil)
	if !bytes.Equal(plain, want) {
		t.Errorf("seal: plaintext is %x, want %x", plain, want)
	}
}

// TestSealKeysAreFresh guards the constant nonce.
func TestSealKeysAreFresh(t *testing.T) {
	seen := map[string]bool{}
	for range 64 {
		bundle, err := seal(node(), genesis.ID{}, []secret.Bytes{secret.New(make([]byte, KeySize))}, secret.New(make([]byte, ed25519.SeedSize)))
		if err != nil {
			t.Fatal(err)
		}
		if id := string(bundle[4:36]); seen[id] {
			t.Fatal("two bundles have one key id")
		} else {
			seen[id] = true
		}
	}
}
