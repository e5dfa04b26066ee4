package hsmroot

import (
	"bytes"
	"encoding/hex"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/teetest"
	"github.com/ehsm-kms/ehsm/internal/wire/hsm"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

var _ domainkey.Rooted = (*Platform)(nil)

// fixed unwraps everything to one key.
type fixed struct{ key []byte }

func (f fixed) Wrap(label string, _ [32]byte, _ secret.Bytes) (hsm.Wrapped, error) {
	return hsm.Wrapped{Label: "ehsm", Mechanism: hsm.GCM, Blob: []byte{1, 2}}, nil
}
func (f fixed) Unwrap([32]byte, hsm.Wrapped) (secret.Bytes, error) { return secret.Copy(f.key), nil }

// TestKnownSealKey has a key that testdata/sealkey.py made from docs/formats.md. A
// failure means that stored bundles no longer open.
func TestKnownSealKey(t *testing.T) {
	q := tee.KeyRequest{Policy: tee.BindSigner, SVN: 0x0102}
	for i := range q.KeyID {
		q.KeyID[i] = byte(i)
	}
	q.Info = append([]byte{1, 0, 4}, "ehsm\x01\x00\x00\x00\x02\x01\x02"...)
	m := node()
	m.id.SVN = 0x0102
	p := New(answering{m, bytes.Repeat([]byte{0x11}, 32)}, fixed{bytes.Repeat([]byte{0x22}, 32)})
	key, err := p.SealKey(q)
	if err != nil {
		t.Fatal(err)
	}
	const want = "f73fde1c543d6b4c05f6493ec607f58eeaa3942fc22e36cd6216167140f70ddb"
	if got := hex.EncodeToString(key.Expose()); got != want {
		t.Errorf("SealKey: got %s, want %s", got, want)
	}
	if p.Root() != manifest.HSM {
		t.Errorf("Root: got %s", p.Root())
	}
}

// TestSuite has the suite of all platforms, on the simulated one with an HSM.
func TestSuite(t *testing.T) {
	dir, k := t.TempDir(), newToken(t, "ehsm")
	teetest.Run(t, func() (tee.Platform, error) {
		m, err := sim.Open(dir, tee.ProductDKeyServer, 1)
		if err != nil {
			return nil, err
		}
		return New(m, k), nil
	})
}

// TestBothHalves changes one half at a time.
func TestBothHalves(t *testing.T) {
	k := newToken(t, "ehsm")
	p := New(node(), k)
	q, key, err := p.NewSealKey(tee.BindSigner)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := p.SealKey(q); err != nil || !again.Equal(key) {
		t.Fatalf("SealKey: got another key, %v", err)
	}
	foreign := node()
	foreign.fuse++
	other := newToken(t, "ehsm") // same label, other key
	for _, row := range []struct {
		name string
		p    tee.Platform
		want error // nil: another key
	}{
		{"another machine, the same HSM", New(foreign, k), nil},
		{"the HSM alone, of a machine whose TEE gives zeros", New(answering{node(), make([]byte, 32)}, k), tee.ErrKeyRequest},
		{"the HSM alone, on a machine without seal keys", New(sealless{node()}, k), tee.ErrNoSealKey},
		{"a TEE with a short key", New(answering{node(), make([]byte, 16)}, k), tee.ErrKeyRequest},
		{"another token of the same label", New(node(), other), ErrHSM},
		{"no HSM", New(node(), newToken(t, "other")), ErrHSM},
		{"an HSM that makes up keys", New(node(), fixed{make([]byte, 32)}), nil},
		{"an HSM that answers with nothing", New(node(), fixed{nil}), ErrHSM},
		{"the TEE alone", node(), tee.ErrKeyRequest},
	} {
		switch got, err := row.p.SealKey(q); {
		case !errors.Is(err, row.want) || row.want == nil && err != nil:
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		case row.want == nil && got.Equal(key):
			t.Errorf("%s: got the key", row.name)
		case row.want != nil && got.Len() != 0:
			t.Errorf("%s: got a key with the error", row.name)
		}
	}
	if _, _, err := New(sealless{node()}, k).NewSealKey(tee.BindSigner); !errors.Is(err, tee.ErrNoSealKey) {
		t.Errorf("NewSealKey without a seal key: got %v", err)
	}
}

// TestChangedRequests has every bit of a request changed, before an HSM that
// unwraps whatever it is shown.
func TestChangedRequests(t *testing.T) {
	for _, m := range []Module{newToken(t, "ehsm"), fixed{bytes.Repeat([]byte{5}, 32)}} {
		p := New(answering{node(), bytes.Repeat([]byte{6}, 32)}, m)
		q := tee.KeyRequest{Policy: tee.BindSigner, SVN: 5}
		w, err := m.Wrap("", q.KeyID, secret.New(bytes.Repeat([]byte{5}, 32)))
		if err != nil {
			t.Fatal(err)
		}
		q.Info = appendInfo(w, nil)
		key, err := p.SealKey(q)
		if err != nil {
			t.Fatal(err)
		}
		try := func(name string, q tee.KeyRequest) {
			if got, err := p.SealKey(q); err == nil && got.Equal(key) {
				t.Errorf("%s: the same key", name)
			}
		}
		for i := range len(q.Info) * 8 {
			changed := q
			changed.Info = bytes.Clone(q.Info)
			changed.Info[i/8] ^= 1 << (i % 8)
			try("key information", changed)
		}
		for n := range q.Info {
			changed := q
			changed.Info = q.Info[:n]
			try("shorter key information", changed)
		}
		changed := q
		changed.Info = append(bytes.Clone(q.Info), 1)
		try("longer key information", changed)
		changed = q
		changed.KeyID[31] ^= 1
		try("KEYID", changed)
		changed = q
		changed.SVN--
		try("SVN", changed)
		changed = q
		changed.Policy = tee.BindMeasured
		try("policy", changed)
	}
}

// TestForeignInformation has key information that is none of an HSM, on a TEE and
// with an HSM that answer everything.
func TestForeignInformation(t *testing.T) {
	p := New(answering{node(), bytes.Repeat([]byte{6}, 32)}, fixed{bytes.Repeat([]byte{5}, 32)})
	for name, info := range map[string][]byte{
		"none, as of a bundle without an HSM": nil,
		"of another platform":                 {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17},
		"of another format":                   append([]byte{2}, appendInfo(hsm.Wrapped{Label: "k", Mechanism: hsm.GCM, Blob: []byte{1}}, nil)[1:]...),
		"without anything wrapped":            appendInfo(hsm.Wrapped{Label: "k", Mechanism: hsm.GCM}, nil),
	} {
		if key, err := p.SealKey(tee.KeyRequest{Policy: tee.BindSigner, SVN: 5, Info: info}); !errors.Is(err, tee.ErrKeyRequest) || key.Len() != 0 {
			t.Errorf("%s: got %v, want ErrKeyRequest", name, err)
		}
	}
}

// TestBadHSM has HSMs that a bundle must not be sealed under.
func TestBadHSM(t *testing.T) {
	for name, spoil := range map[string]func(*hsm.Wrapped, []byte){
		"wraps something else": func(w *hsm.Wrapped, _ []byte) {
			if w != nil {
				w.Blob[20] ^= 1
			}
		},
		"unwraps to something else": func(_ *hsm.Wrapped, key []byte) {
			if key != nil {
				key[0] ^= 1
			}
		},
		"wraps with another key than asked for": func(w *hsm.Wrapped, _ []byte) {
			if w != nil {
				w.Label = "other"
			}
		},
	} {
		k := newToken(t, "ehsm")
		k.keys["other"] = k.keys["ehsm"]
		k.spoil = spoil
		if _, key, err := New(node(), k).To("ehsm").NewSealKey(tee.BindSigner); !errors.Is(err, ErrHSM) || key.Len() != 0 {
			t.Errorf("%s: got %v, want ErrHSM", name, err)
		}
	}
}

// TestTo wraps with a key that is named.
func TestTo(t *testing.T) {
	k := newToken(t, "old", "new")
	p := New(node(), k)
	for label, to := range map[string]*Platform{"old": p, "new": p.To("new")} {
		q, _, err := to.NewSealKey(tee.BindSigner)
		if err != nil {
			t.Fatal(err)
		}
		if w, _, err := parseInfo(q.Info); err != nil || w.Label != label {
			t.Errorf("wrapped with %q, %v, want %q", w.Label, err, label)
		}
	}
	if _, _, err := p.To("none").NewSealKey(tee.BindSigner); !errors.Is(err, ErrHSM) {
		t.Errorf("a key that is not there: got %v", err)
	}
}

// FuzzInfo decodes key information, which the host can change.
func FuzzInfo(f *testing.F) {
	f.Add(appendInfo(hsm.Wrapped{Label: "ehsm", Mechanism: hsm.GCM, Blob: make([]byte, 60)}, []byte{7}))
	f.Add(appendInfo(hsm.Wrapped{Label: "k", Mechanism: hsm.KeyWrapPad, Blob: make([]byte, 40)}, nil))
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, info []byte) {
		w, inner, err := parseInfo(info)
		if err != nil {
			if !errors.Is(err, tee.ErrKeyRequest) {
				t.Errorf("got %v", err)
			}
			return
		}
		if again := appendInfo(w, inner); !bytes.Equal(again, info) {
			t.Errorf("two encodings of one information: %x and %x", again, info)
		}
	})
}
