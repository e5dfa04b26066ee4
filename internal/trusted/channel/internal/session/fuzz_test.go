package session

import (
	"bytes"
	"errors"
	"io"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/attest"
)

// again checks that a decoder takes one encoding of each value only.
func again(t *testing.T, b []byte, err error, encode func([]byte) []byte) {
	t.Helper()
	if err != nil {
		if !errors.Is(err, ErrProtocol) {
			t.Errorf("got %v, want ErrProtocol", err)
		}
		return
	}
	if got := encode(nil); !bytes.Equal(got, b) {
		t.Errorf("re-encodes to %x, came from %x", got, b)
	}
}

func FuzzDecodeOpening(f *testing.F) {
	f.Add((&openingMessage{side: Client, role: Core, target: []byte{1}}).append(nil))
	f.Add([]byte{0, 2})
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeOpening(b)
		again(t, b, err, m.append)
	})
}

func FuzzDecodeEvidence(f *testing.F) {
	f.Add((&evidenceMessage{proofMessage: proofMessage{[]byte{1}, []byte{2}}}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeEvidence(b)
		again(t, b, err, m.append)
	})
}

func FuzzDecodeProof(f *testing.F) {
	f.Add((&proofMessage{[]byte{1}, []byte{2}}).append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeProof(b)
		again(t, b, err, m.append)
	})
}

func FuzzDecodeFixed(f *testing.F) {
	f.Add(make([]byte, 32))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := decodeFixed(challenge, b)
		again(t, b, err, func([]byte) []byte { return v[:] })
	})
}

func FuzzRefusal(f *testing.F) {
	f.Add([]byte{3})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r *Refusal
		switch err := refusal(b); {
		case errors.As(err, &r):
			again(t, b, nil, func([]byte) []byte { return []byte{byte(r.Reason)} })
		case !errors.Is(err, ErrProtocol):
			t.Errorf("got %v, want ErrProtocol", err)
		}
	})
}

// FuzzReadFrame reads a stream of messages as an open channel does.
func FuzzReadFrame(f *testing.F) {
	f.Add(frame{data, 1, []byte("x")}.append(frame{goodbye, 2, nil}.append(nil)))
	f.Add([]byte{5, 0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 255})
	f.Fuzz(func(t *testing.T, b []byte) {
		r := bytes.NewReader(b)
		reserved := 0
		for {
			start := len(b) - r.Len()
			got, err := readFrame(r, func(n int) error { reserved = n; return nil }, data, challenge, proof, goodbye, refused)
			if reserved > maxProof {
				t.Fatalf("reserved %d bytes", reserved)
			}
			if err != nil {
				if !errors.Is(err, ErrProtocol) && !errors.Is(err, ErrTruncated) || errors.Is(err, io.EOF) {
					t.Errorf("got %v, want ErrProtocol or ErrTruncated", err)
				}
				return
			}
			if end := len(b) - r.Len(); !bytes.Equal(got.append(nil), b[start:end]) || len(got.payload) > got.kind.limit() {
				t.Errorf("%v of %d bytes does not re-encode", got.kind, len(got.payload))
			}
		}
	})
}

// TestLengthsComeFirst announces the longest possible message of each kind: what
// is over its limit is refused before anything is reserved for it.
func TestLengthsComeFirst(t *testing.T) {
	for k := opening; k < kindsAfter; k++ {
		for _, over := range []int{0, 1} {
			b := frame{k, 0, make([]byte, k.limit()+over)}.append(nil)
			reserved := false
			_, err := readFrame(bytes.NewReader(b), func(int) error { reserved = true; return nil }, k)
			if (err != nil) != (over == 1) || reserved != (over == 0) {
				t.Errorf("%v with %d bytes over its limit: got %v, reserved %v", k, over, err, reserved)
			}
		}
	}
	if maxEvidence < len(attest.Evidence{Kind: attest.SGXQuote3, Quote: make([]byte, attest.MaxQuote)}.Append(nil)) {
		t.Error("the longest evidence does not fit")
	}
}
