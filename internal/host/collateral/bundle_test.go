package collateral_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

const label = "ehsm/collateral-bundle/v1\n"

// seal appends the hash that ends a bundle.
func seal(b []byte) []byte {
	sum := sha256.Sum256(b)
	return append(slices.Clip(b), sum[:]...)
}

func encoded(r recording) []byte { return r.collateral.Append(nil) }

// TestBundleLayout builds a bundle from docs/formats.md.
func TestBundleLayout(t *testing.T) {
	a, p := automata(t).collateral, phala(t).collateral
	want := binary.BigEndian.AppendUint32([]byte(label), 2)
	want = pack.AppendBytes(want, a.Append(nil)) // 00606a000000-platform comes first
	want = seal(pack.AppendBytes(want, p.Append(nil)))
	got, err := collateral.EncodeBundle([]verify.Collateral{p, a})
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("EncodeBundle: got %d bytes, %v, want %d", len(got), err, len(want))
	}
	all, err := collateral.DecodeBundle(got)
	if err != nil || len(all) != 2 || !bytes.Equal(all[0].Append(nil), a.Append(nil)) || !bytes.Equal(all[1].Append(nil), p.Append(nil)) {
		t.Errorf("DecodeBundle: got %d, %v", len(all), err)
	}
	empty, err := collateral.EncodeBundle(nil)
	if err != nil || !bytes.Equal(empty, seal([]byte(label+"\x00\x00\x00\x00"))) {
		t.Errorf("empty: got %x, %v", empty, err)
	}
}

func TestBundleRefuses(t *testing.T) {
	a, p := encoded(automata(t)), encoded(phala(t))
	list := func(n uint32, all ...[]byte) []byte {
		b := binary.BigEndian.AppendUint32([]byte(label), n)
		for _, one := range all {
			b = pack.AppendBytes(b, one)
		}
		return seal(b)
	}
	good := list(2, a, p)
	flipped := bytes.Clone(good)
	flipped[len(flipped)/2] ^= 1
	broken := bytes.Replace(p, []byte("tcbLevels"), []byte("tcbLevelz"), 1)
	for name, b := range map[string][]byte{
		"empty":                   nil,
		"label alone":             []byte(label),
		"another label":           seal(append([]byte("ehsm/collateral-bundle/v2\n"), 0, 0, 0, 0)),
		"cut":                     good[:len(good)-1],
		"cut to a hash":           good[:len(label)+sha256.Size],
		"more":                    append(bytes.Clone(good), 0),
		"a bit flipped":           flipped,
		"no count":                seal([]byte(label)),
		"too few":                 list(3, a, p),
		"too many":                list(1, a, p),
		"count that cannot be":    seal(append([]byte(label), 0xff, 0xff, 0xff, 0xff)),
		"wrong order":             list(2, p, a),
		"twice":                   list(2, a, a),
		"collateral that is none": list(1, []byte("x")),
		"collateral cut short":    list(1, p[:len(p)-1]),
		"document that is none":   list(1, broken),
		"JSON":                    []byte("{}"),
	} {
		if all, err := collateral.DecodeBundle(b); !errors.Is(err, collateral.ErrBundle) {
			t.Errorf("%s: got %d, %v", name, len(all), err)
		}
	}
	c := phala(t).collateral
	none := c
	none.PCKCRL = nil
	for name, all := range map[string][]verify.Collateral{
		"twice":         {c, c},
		"without a CRL": {none},
		"too many":      make([]verify.Collateral, collateral.MaxPlatforms+1),
	} {
		if b, err := collateral.EncodeBundle(all); !errors.Is(err, collateral.ErrBundle) {
			t.Errorf("encode %s: got %d bytes, %v", name, len(b), err)
		}
	}
}

func TestDecodeForms(t *testing.T) {
	c := phala(t).collateral
	asJSON, err := c.EncodeJSON()
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := collateral.EncodeBundle([]verify.Collateral{c})
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{
		"bundle": bundle, "binary": c.Append(nil), "JSON": asJSON, "JSON after a blank line": append([]byte("\r\n\t "), asJSON...),
		"as published": read(t, "phala/sgx_quote_collateral.json"),
	} {
		if all, err := collateral.Decode(b); err != nil || len(all) != 1 || !bytes.Equal(all[0].Append(nil), c.Append(nil)) {
			t.Errorf("%s: got %d, %v", name, len(all), err)
		}
	}
	for name, b := range map[string][]byte{
		"empty": nil, "page": []byte(page), "a quote": phala(t).quote,
		"JSON of something else": []byte("{}"), "damaged bundle": append(bundle, 0), "cut binary": encoded(phala(t))[:5000],
	} {
		if all, err := collateral.Decode(b); !errors.Is(err, collateral.ErrBundle) {
			t.Errorf("%s: got %d, %v", name, len(all), err)
		}
	}
}

func TestBundleSource(t *testing.T) {
	path := filepath.Join(t.TempDir(), "bundle")
	if _, err := collateral.OpenBundle(path); !errors.Is(err, collateral.ErrSettings) || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: got %v", err)
	}
	write := func(b []byte) {
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write([]byte(page))
	if _, err := collateral.OpenBundle(path); !errors.Is(err, collateral.ErrSettings) || !errors.Is(err, collateral.ErrBundle) {
		t.Errorf("page: got %v", err)
	}
	p, a := phala(t), automata(t)
	write(p.collateral.Append(nil))
	b, err := collateral.OpenBundle(path)
	if err != nil {
		t.Fatal(err)
	}
	if c, err := b.Fetch(t.Context(), p.query); err != nil || !bytes.Equal(c.Append(nil), p.collateral.Append(nil)) {
		t.Errorf("got other collateral, %v", err)
	}
	for name, q := range map[string]collateral.Query{"another platform": a.query, "another CA": {FMSPC: p.query.FMSPC, CA: verify.CAPlatform}} {
		if _, err := b.Fetch(t.Context(), q); !errors.Is(err, collateral.ErrUnknownPlatform) {
			t.Errorf("%s: got %v", name, err)
		}
	}
	both, err := collateral.EncodeBundle([]verify.Collateral{p.collateral, a.collateral})
	if err != nil {
		t.Fatal(err)
	}
	write(both) // a newer file is noticed
	if _, err := b.Fetch(t.Context(), a.query); err != nil {
		t.Errorf("after the file was replaced: %v", err)
	}
	write([]byte(page))
	if _, err := b.Fetch(t.Context(), a.query); !errors.Is(err, collateral.ErrBundle) {
		t.Errorf("after the file was damaged: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	c := phala(f).collateral
	bundle, err := collateral.EncodeBundle([]verify.Collateral{c, automata(f).collateral})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(bundle)
	f.Add(c.Append(nil))
	f.Add(seal([]byte(label + "\x00\x00\x00\x00")))
	f.Fuzz(func(t *testing.T, b []byte) {
		all, err := collateral.Decode(b)
		if err != nil {
			if !errors.Is(err, collateral.ErrBundle) {
				t.Errorf("got %v", err)
			}
			return
		}
		again, err := collateral.EncodeBundle(all)
		if err != nil {
			t.Fatalf("what was decoded does not encode: %v", err)
		}
		if bytes.HasPrefix(b, []byte(label)) && !bytes.Equal(again, b) {
			t.Error("bundle does not re-encode to the bytes it came from")
		}
	})
}

func FuzzDecodeChainHeader(f *testing.F) {
	f.Add("-----BEGIN%20CERTIFICATE-----%0AMIIB%0A-----END%20CERTIFICATE-----%0A-----BEGIN%20CERTIFICATE-----%0AMA%3D%3D%0A-----END%20CERTIFICATE-----%0A")
	f.Add("%")
	f.Add("")
	f.Fuzz(func(t *testing.T, value string) {
		chain, err := collateral.DecodeChainHeader([]string{value})
		if err != nil {
			if !errors.Is(err, collateral.ErrAnswer) {
				t.Errorf("got %v", err)
			}
			return
		}
		again, err := collateral.DecodeChainHeader([]string{string(chain)})
		if err != nil || !bytes.Equal(again, chain) {
			t.Errorf("%q decodes to %q, %v", chain, again, err)
		}
	})
}

func FuzzDecodeCRL(f *testing.F) {
	f.Add([]byte("0\x03\x02\x01\x20"))
	f.Add([]byte(" 3003020120\n"))
	f.Add([]byte("-----BEGIN X509 CRL-----\nMAMCASA=\n-----END X509 CRL-----\n"))
	f.Fuzz(func(t *testing.T, body []byte) {
		der, err := collateral.DecodeCRL(body)
		if err != nil && !errors.Is(err, collateral.ErrAnswer) {
			t.Errorf("got %v", err)
		}
		if err == nil && len(der) > len(body) {
			t.Errorf("%d bytes have become %d", len(body), len(der))
		}
	})
}
