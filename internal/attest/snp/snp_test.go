package snp

import (
	"bytes"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

func read(t testing.TB, name string) []byte {
	t.Helper()
	b, err := os.ReadFile("testdata/" + name)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// A scene is a published report with its certificates, before it is spoiled.
type scene struct {
	raw []byte
	c   Collateral
	o   Options
}

func newScene(t testing.TB) *scene {
	t.Helper()
	ask, rest := pem.Decode(read(t, "milan.testcer"))
	ark, _ := pem.Decode(rest)
	return &scene{
		raw: read(t, "attestation.bin"),
		c:   Collateral{VCEK: read(t, "vcek.testcer"), ASK: ask.Bytes, ARK: ark.Bytes},
		o:   Options{Roots: Roots(), Now: time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)},
	}
}

func (s *scene) verify() (*Result, error) { return Verify(s.raw, s.c, s.o) }

func TestPublishedReport(t *testing.T) {
	r, err := newScene(t).verify()
	if err != nil {
		t.Fatal(err)
	}
	if got := hex.EncodeToString(r.Report.Measurement[:8]); got != "b07af9620f3b839b" {
		t.Errorf("measurement starts with %s", got)
	}
	if r.Product != "Milan-B0" || r.Revocation || r.Report.VMPL != 0 || r.Report.Version != 2 {
		t.Errorf("got product %s, revocation %t, VMPL %d, version %d", r.Product, r.Revocation, r.Report.VMPL, r.Report.Version)
	}
	if want := (TCB{Bootloader: 2, SNP: 5, Microcode: 0x44}); r.Report.ReportedTCB != want {
		t.Errorf("reported TCB: %v, want %v", r.Report.ReportedTCB, want)
	}
	if !r.CertsExpire.After(r.CertsExpire.AddDate(0, 0, -1)) || r.CertsExpire.Year() < 2027 {
		t.Errorf("certificates expire %v", r.CertsExpire)
	}
}

func TestRefusals(t *testing.T) {
	for _, row := range []struct {
		name  string
		spoil func(*scene)
		step  Step
		want  error
	}{
		{"empty", func(s *scene) { s.raw = nil }, StepParse, ErrLength},
		{"cut", func(s *scene) { s.raw = s.raw[:len(s.raw)-1] }, StepParse, ErrLength},
		{"trailing byte", func(s *scene) { s.raw = append(s.raw, 0) }, StepParse, ErrLength},
		{"version 1", func(s *scene) { s.raw[0] = 1 }, StepParse, ErrMalformed},
		{"version 99", func(s *scene) { s.raw[0] = 99 }, StepParse, ErrMalformed},
		{"other algorithm", func(s *scene) { s.raw[0x34] = 2 }, StepParse, ErrAlgorithm},
		{"reserved byte", func(s *scene) { s.raw[0x4c] = 1 }, StepParse, ErrMalformed},
		{"signed by a VLEK", func(s *scene) { s.raw[0x48] |= 1 << 2 }, StepParse, ErrSigner},
		{"no VCEK", func(s *scene) { s.c.VCEK = nil }, StepParse, ErrCertificate},
		{"no ASK", func(s *scene) { s.c.ASK = nil }, StepParse, ErrCertificate},
		{"ARK is rubbish", func(s *scene) { s.c.ARK = []byte("ARK") }, StepParse, ErrCertificate},
		{"no root", func(s *scene) { s.o.Roots = nil }, StepRoot, ErrNoRoot},
		{"root of another product", func(s *scene) { s.o.Roots = Roots()[1:] }, StepRoot, ErrUnknownRoot},
		{"ASK as ARK", func(s *scene) { s.c.ARK = s.c.ASK }, StepRoot, ErrUnknownRoot},
		{"CRL is rubbish", func(s *scene) { s.c.CRL = []byte("CRL") }, StepCRL, ErrCRL},
		{"other chip", func(s *scene) { s.raw[0x1a0] ^= 1 }, StepChip, ErrChipID},
		{"higher TCB", func(s *scene) { s.raw[0x180]++ }, StepChip, ErrTCB},
		{"ASK as VCEK", func(s *scene) { s.c.VCEK = s.c.ASK }, StepChip, ErrCertificate},
		{"ARK as ASK", func(s *scene) { s.c.ASK = s.c.ARK }, StepSignature, ErrSignature},
		{"ASK for VLEKs", func(s *scene) { s.c.ASK = askVLEK(t) }, StepSignature, ErrSignature},
		{"before the VCEK", func(s *scene) { s.o.Now = time.Date(2019, 1, 1, 0, 0, 0, 0, time.UTC) }, StepRoot, ErrCertDates},
		{"after the VCEK", func(s *scene) { s.o.Now = s.o.Now.AddDate(10, 0, 0) }, StepRoot, ErrCertDates},
		{"other measurement", func(s *scene) { s.raw[0x90] ^= 1 }, StepSignature, ErrSignature},
		{"other report data", func(s *scene) { s.raw[0x50] ^= 1 }, StepSignature, ErrSignature},
		{"debug set", func(s *scene) { s.raw[0x08+2] ^= 1 << 3 }, StepSignature, ErrSignature},
		{"signature", func(s *scene) { s.raw[0x2a0] ^= 1 }, StepSignature, ErrSignature},
	} {
		s := newScene(t)
		row.spoil(s)
		_, err := s.verify()
		var e *Error
		if !errors.As(err, &e) || e.Step != row.step || !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v in step %v", row.name, err, row.want, row.step)
		} else if strings.Contains(err.Error(), "%!") {
			t.Errorf("%s: %v", row.name, err)
		}
	}
}

func askVLEK(t *testing.T) []byte {
	block, _ := pem.Decode(read(t, "milanvlek.testcer"))
	return block.Bytes
}

// TestFlips changes each byte of the report once, and each seventh byte of the
// certificates; with the race detector fewer.
func TestFlips(t *testing.T) {
	stride := 1
	if raceEnabled {
		stride = 13
	}
	for i := 0; i < len(newScene(t).raw); i += stride {
		s := newScene(t)
		s.raw[i] ^= 1 << (i % 8)
		if _, err := s.verify(); err == nil {
			t.Errorf("report with byte %d changed is genuine", i)
		}
	}
	for name, part := range map[string]func(*scene) []byte{
		"VCEK": func(s *scene) []byte { return s.c.VCEK },
		"ASK":  func(s *scene) []byte { return s.c.ASK },
		"ARK":  func(s *scene) []byte { return s.c.ARK },
	} {
		for i := 0; i < len(part(newScene(t))); i += 7 * stride {
			s := newScene(t)
			part(s)[i] ^= 1 << (i % 8)
			if _, err := s.verify(); err == nil {
				t.Errorf("%s with byte %d changed is accepted", name, i)
			}
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(read(f, "attestation.bin"))
	f.Add([]byte{2})
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := Parse(b); err == nil && (r.parsed == nil || len(b) != ReportSize) {
			t.Errorf("got %v", r)
		}
	})
}

func FuzzDecodeCollateral(f *testing.F) {
	f.Add(bundle(f))
	f.Add([]byte("-----BEGIN CERTIFICATE-----"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := DecodeCollateral(b); err == nil && len(c.ARK) == 0 && !bytes.Contains(b, []byte("CERTIFICATE")) {
			t.Error("collateral without certificates")
		}
	})
}

// bundle is the collateral as a file.
func bundle(t testing.TB) []byte {
	vcek := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: read(t, "vcek.testcer")})
	return append(vcek, read(t, "milan.testcer")...)
}

func TestDecodeCollateral(t *testing.T) {
	good, want := bundle(t), newScene(t).c
	c, err := DecodeCollateral(good)
	if err != nil || !bytes.Equal(c.VCEK, want.VCEK) || !bytes.Equal(c.ASK, want.ASK) || !bytes.Equal(c.ARK, want.ARK) || len(c.CRL) > 0 {
		t.Fatalf("got %v", err)
	}
	crl := pem.EncodeToMemory(&pem.Block{Type: "X509 CRL", Bytes: []byte("crl")})
	if c, err := DecodeCollateral(append(bytes.Clone(good), crl...)); err != nil || string(c.CRL) != "crl" {
		t.Errorf("with a CRL: got %q, %v", c.CRL, err)
	}
	for name, bad := range map[string][]byte{
		"empty":         nil,
		"two only":      read(t, "milan.testcer"),
		"four":          append(bytes.Clone(good), read(t, "milan.testcer")...),
		"two CRLs":      append(append(bytes.Clone(good), crl...), crl...),
		"CRL first":     append(bytes.Clone(crl), good...),
		"text before":   append([]byte("x"), good...),
		"text after":    append(bytes.Clone(good), 'x'),
		"cut":           good[:len(good)-40],
		"over the size": append(bytes.Clone(good), bytes.Repeat([]byte{'\n'}, MaxCollateral)...),
	} {
		if _, err := DecodeCollateral(bad); !errors.Is(err, ErrCollateral) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}
