package ego

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/teetest"
)

// openFake opens f on a machine with good randomness, whatever this one has.
func openFake(f *runtimeFake, svn uint16) (*Enclave, error) {
	return open(f, tee.ProductCore, svn, func() error { return nil })
}

func start(t testing.TB, f *runtimeFake) *Enclave {
	t.Helper()
	e, err := openFake(f, 3)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func TestSuite(t *testing.T) {
	f := newFake()
	teetest.Run(t, func() (tee.Platform, error) { return openFake(f, 3) })
}

func TestEvidence(t *testing.T) {
	e, err := start(t, newFake()).Evidence(t.Context(), [64]byte{1, 2})
	if err != nil || e.Kind != attest.SGXQuote3 {
		t.Fatalf("Evidence: got %v, %v", e.Kind, err)
	}
	if q, err := quote.Parse(e.Quote); err != nil || q.Report.ReportData != [64]byte{1, 2} {
		t.Errorf("Evidence: Open Enclave's header is not cut off: %v", err)
	}
}

// TestOutside has a program that runs outside an enclave, or in EGo's simulation:
// keys are zeros there and no error.
func TestOutside(t *testing.T) {
	f := newFake()
	f.outside = true
	if k, err := f.key(keyRequest{}.encode()); err != nil || !bytes.Equal(k, make([]byte, 16)) {
		t.Fatal("the fake does not do what EGo does")
	}
	e, err := openFake(f, 3)
	if e != nil || !errors.Is(err, tee.ErrNoPlatform) || !strings.Contains(err.Error(), "ego run") {
		t.Errorf("got %v, want ErrNoPlatform with what to do", err)
	}
	// A program that was in an enclave and is not any more cannot be, but must
	// not get zeros either.
	inside := start(t, newFake())
	inside.calls = f
	if _, _, err := inside.NewSealKey(tee.BindSigner); !errors.Is(err, tee.ErrKeyRequest) {
		t.Errorf("NewSealKey: got %v, want ErrKeyRequest", err)
	}
	q := tee.KeyRequest{Policy: tee.BindSigner, SVN: 3, Info: append([]byte{infoV1}, make([]byte, 48)...)}
	if k, err := inside.SealKey(q); !errors.Is(err, tee.ErrKeyRequest) || k.Len() != 0 {
		t.Errorf("SealKey: got %v, want ErrKeyRequest", err)
	}
}

func TestRefusedRuntimes(t *testing.T) {
	mangle := func(what string, f func([]byte) []byte) func(*runtimeFake) {
		return func(r *runtimeFake) {
			r.mangle = func(w string, b []byte) []byte {
				if w == what {
					return f(bytes.Clone(b))
				}
				return b
			}
		}
	}
	flip := func(i int) func([]byte) []byte { return func(b []byte) []byte { b[i] ^= 1; return b } }
	cut := func(n int) func([]byte) []byte { return func(b []byte) []byte { return b[:n] } }
	var first []byte
	for _, row := range []struct {
		name   string
		change func(*runtimeFake)
		want   error
	}{
		{"no target", func(r *runtimeFake) { r.fail = "target" }, tee.ErrNoPlatform},
		{"no report", func(r *runtimeFake) { r.fail = "local" }, tee.ErrNoPlatform},
		{"report not verified", func(r *runtimeFake) { r.fail = "verify" }, tee.ErrNoPlatform},
		{"report of another processor", func(r *runtimeFake) {
			r.mangle = func(w string, b []byte) []byte {
				if w == "local" {
					r.fuse++
				}
				return b
			}
		}, tee.ErrNoPlatform},
		{"empty report", mangle("local", cut(0)), tee.ErrNoPlatform},
		{"header only", mangle("local", cut(16)), tee.ErrNoPlatform},
		{"report cut", mangle("local", cut(16+431)), tee.ErrNoPlatform},
		{"header version", mangle("local", flip(0)), tee.ErrNoPlatform},
		{"remote type", mangle("local", func(b []byte) []byte { b[4] = 2; return b }), tee.ErrNoPlatform},
		{"header size", mangle("local", flip(8)), tee.ErrNoPlatform},
		{"MAC", mangle("local", flip(16+431)), tee.ErrNoPlatform},
		{"recorded report", mangle("local", func(b []byte) []byte {
			if first == nil {
				first = start(t, newFake()).mustReport(t)
			}
			return first
		}), tee.ErrNoPlatform},
		{"other product", func(r *runtimeFake) { r.report.ISVProdID = 2 }, tee.ErrIdentity},
		{"other version", func(r *runtimeFake) { r.report.ISVSVN = 4 }, tee.ErrIdentity},
		{"no key", func(r *runtimeFake) { r.fail = "key" }, tee.ErrKeyRequest},
		{"no new key", func(r *runtimeFake) { r.fail = "new key" }, tee.ErrKeyRequest},
		{"zero key", mangle("key", func([]byte) []byte { return make([]byte, 16) }), tee.ErrKeyRequest},
		{"short key", mangle("key", cut(15)), tee.ErrKeyRequest},
		{"long key", mangle("key", func(b []byte) []byte { return append(b, 1) }), tee.ErrKeyRequest},
		{"key request cut", mangle("new key", cut(511)), tee.ErrKeyRequest},
		{"key request empty", mangle("new key", cut(0)), tee.ErrKeyRequest},
		{"other key name", mangle("new key", flip(0)), tee.ErrKeyRequest},
		{"other policy", mangle("new key", func(b []byte) []byte { b[2] = 1; return b }), tee.ErrKeyRequest},
		{"no policy", mangle("new key", func(b []byte) []byte { b[2] = 0; return b }), tee.ErrKeyRequest},
		{"other version", mangle("new key", flip(4)), tee.ErrKeyRequest},
		{"mask without DEBUG", mangle("new key", func(b []byte) []byte { b[24] &^= 2; return b }), tee.ErrKeyRequest},
		{"other XFRM mask", mangle("new key", flip(32)), tee.ErrKeyRequest},
		{"other MISC mask", mangle("new key", flip(75)), tee.ErrKeyRequest},
		{"bytes behind the request", mangle("new key", flip(511)), tee.ErrKeyRequest},
		{"one KeyID twice", mangle("new key", func(b []byte) []byte { clear(b[40:72]); return b }), tee.ErrKeyRequest},
	} {
		f := newFake()
		row.change(f)
		if e, err := openFake(f, 3); e != nil || !errors.Is(err, row.want) {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
	if e, err := open(newFake(), 1, 3, func() error { return tee.ErrEntropy }); e != nil || !errors.Is(err, tee.ErrEntropy) {
		t.Errorf("bad randomness: got %v, want ErrEntropy", err)
	}
}

// mustReport returns a report of e for itself.
func (e *Enclave) mustReport(t *testing.T) []byte {
	target, err := e.Target()
	if err != nil {
		t.Fatal(err)
	}
	b, err := e.Report(target, [64]byte{8})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestRefusedQuotes(t *testing.T) {
	raw := func(f func([]byte) []byte) func(*runtimeFake) {
		return func(r *runtimeFake) { r.mangle = func(_ string, b []byte) []byte { return f(b) } }
	}
	for name, change := range map[string]func(*runtimeFake){
		"other REPORTDATA":   func(r *runtimeFake) { r.mangleQuote = func(q *quote.Quote) { q.Report.ReportData[63] ^= 1 } },
		"of another enclave": func(r *runtimeFake) { r.mangleQuote = func(q *quote.Quote) { q.Report.MREnclave[0]++ } },
		"of a debug enclave": func(r *runtimeFake) {
			r.mangleQuote = func(q *quote.Quote) { q.Report.Attributes.Flags |= quote.FlagDebug }
		},
		"empty":               raw(func([]byte) []byte { return nil }),
		"header only":         raw(func(b []byte) []byte { return b[:16] }),
		"without the header":  raw(func(b []byte) []byte { return b[16:] }),
		"of type local":       raw(func(b []byte) []byte { b[4] = 1; return b }),
		"cut":                 raw(func(b []byte) []byte { return b[:len(b)-1] }),
		"header of more":      raw(func(b []byte) []byte { return append(b, 0) }),
		"zeros in the header": raw(func(b []byte) []byte { return withHeader(2, make([]byte, 4000)) }),
	} {
		f := newFake()
		e := start(t, f)
		change(f)
		if got, err := e.Evidence(t.Context(), [64]byte{1}); !errors.Is(err, tee.ErrEvidence) || got.Quote != nil {
			t.Errorf("%s: got %v, want ErrEvidence", name, err)
		}
	}
	f := newFake()
	e := start(t, f)
	f.fail = "remote"
	if _, err := e.Evidence(t.Context(), [64]byte{}); !errors.Is(err, errRuntime) {
		t.Errorf("no quoting enclave: got %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := e.Evidence(ctx, [64]byte{}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: got %v, want Canceled", err)
	}
}

func TestLocalReports(t *testing.T) {
	f := newFake()
	e := start(t, f)
	other := newFake()
	other.report.MREnclave[0]++
	peer := start(t, other)
	target, err := peer.Target()
	if err != nil {
		t.Fatal(err)
	}
	report, err := e.Report(target, [64]byte{7})
	if err != nil {
		t.Fatal(err)
	}
	if id, data, err := peer.VerifyReport(report); err != nil || id != e.Identity() || data != [64]byte{7} {
		t.Errorf("VerifyReport: got %+v, %v", id, err)
	}
	if _, _, err := e.VerifyReport(report); !errors.Is(err, tee.ErrEvidence) {
		t.Errorf("a report for another program: got %v, want ErrEvidence", err)
	}
	elsewhere := newFake()
	elsewhere.report.MREnclave[0]++
	elsewhere.fuse++
	if _, _, err := start(t, elsewhere).VerifyReport(report); !errors.Is(err, tee.ErrEvidence) {
		t.Errorf("a report of another machine: got %v, want ErrEvidence", err)
	}
	for name, bad := range map[string][]byte{"nothing": nil, "a quote": withHeader(2, make([]byte, 432)), "noise": {1, 2, 3}} {
		if _, err := e.Report(bad, [64]byte{}); !errors.Is(err, tee.ErrEvidence) {
			t.Errorf("target is %s: got %v, want ErrEvidence", name, err)
		}
	}
}

// TestUpdates says what an update does to what was sealed before.
func TestUpdates(t *testing.T) {
	for _, row := range []struct {
		name   string
		change func(*runtimeFake)
		svn    uint16
		opens  bool
	}{
		{"rebuilt", func(f *runtimeFake) { f.report.MREnclave[0]++ }, 3, true},
		{"newer microcode", func(f *runtimeFake) { f.report.CPUSVN[0]++ }, 3, true},
		{"newer version", func(f *runtimeFake) { f.report.ISVSVN++ }, 4, true},
		{"older microcode", func(f *runtimeFake) { f.report.CPUSVN[0]-- }, 3, false},
		{"older version", func(f *runtimeFake) { f.report.ISVSVN-- }, 2, false},
		{"other machine", func(f *runtimeFake) { f.fuse++ }, 3, false},
		{"other signer", func(f *runtimeFake) { f.report.MRSigner[0]++ }, 3, false},
		{"debug", func(f *runtimeFake) { f.report.Attributes.Flags |= quote.FlagDebug }, 3, false},
	} {
		q, key, err := start(t, newFake()).NewSealKey(tee.BindSigner)
		if err != nil {
			t.Fatal(err)
		}
		f := newFake()
		row.change(f)
		after, err := openFake(f, row.svn)
		if err != nil {
			t.Fatalf("%s: %v", row.name, err)
		}
		got, err := after.SealKey(q)
		if same := err == nil && got.Equal(key); same != row.opens {
			t.Errorf("%s: opens %t, want %t (%v)", row.name, same, row.opens, err)
		}
	}
}

// TestKnownKeyRequest keeps what EGETKEY is asked: another request loses every
// sealed DomainKey. Written by hand from the layout.
func TestKnownKeyRequest(t *testing.T) {
	r := keyRequest{policy: policySigner, isvSVN: 0x0102, cpuSVN: [16]byte{3, 15: 4}, keyID: [32]byte{5, 31: 6}}
	const want = "0400" + "0200" + "0201" + "0000" + "03000000000000000000000000000004" +
		"0b000000000000ff" + "0000000000000000" + "05000000000000000000000000000000" + "00000000000000000000000000000006" + "000000f0"
	b := r.encode()
	if got := hex.EncodeToString(b[:76]); got != want || len(b) != 512 || !bytes.Equal(b[76:], make([]byte, 436)) {
		t.Errorf("encode: got %s, want %s", got, want)
	}
	if got, err := decodeKeyRequest(b); err != nil || got != r {
		t.Errorf("decodeKeyRequest: got %+v, %v", got, err)
	}
}

// TestKnownSealKey keeps the derivation. The answer is of another implementation
// of HKDF, in Python.
func TestKnownSealKey(t *testing.T) {
	f := newFake()
	f.mangle = func(what string, b []byte) []byte {
		if what == "key" {
			return []byte("0123456789abcdef")
		}
		return b
	}
	q := tee.KeyRequest{Policy: tee.BindSigner, SVN: 3, KeyID: [32]byte{9}, Info: append([]byte{1, 2, 2}, make([]byte, 46)...)}
	const want = "76d2ad24346a393d15f20e40a864de021198dd41fdd21aad5ad1d4ce707c39e8"
	k, err := start(t, f).SealKey(q)
	if got := hex.EncodeToString(k.Expose()); err != nil || got != want {
		t.Errorf("SealKey: got %s, %v, want %s", got, err, want)
	}
}

func FuzzDecodeKeyRequest(f *testing.F) {
	f.Add(keyRequest{policy: policySigner, isvSVN: 1}.encode())
	f.Add(make([]byte, keyRequestSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeKeyRequest(b)
		if err == nil && !bytes.Equal(r.encode(), b) {
			t.Error("two encodings of one request")
		}
		if err != nil && !errors.Is(err, tee.ErrKeyRequest) {
			t.Errorf("got %v, want ErrKeyRequest", err)
		}
	})
}
