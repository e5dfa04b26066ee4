package tee

import (
	"errors"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
)

type plain struct{ asked []KeyRequest }

func (*plain) Name() string       { return "plain" }
func (*plain) Simulated() bool    { return true }
func (*plain) Identity() Identity { return Identity{SVN: 3} }
func (p *plain) SealKey(q KeyRequest) (secret.Bytes, error) {
	p.asked = append(p.asked, q)
	return secret.New(make([]byte, 32)), nil
}

type maker struct{ plain }

func (*maker) NewSealKey(p Policy) (KeyRequest, secret.Bytes, error) {
	return KeyRequest{Policy: p, Info: []byte("own")}, secret.New(nil), nil
}

func TestNewSealKey(t *testing.T) {
	p := new(plain)
	first, _, err := NewSealKey(p, BindSigner)
	if err != nil || first.Policy != BindSigner || first.SVN != 3 || len(first.Info) != 0 {
		t.Errorf("NewSealKey: got %+v, %v", first, err)
	}
	second, _, _ := NewSealKey(p, BindSigner)
	if first.KeyID == second.KeyID || first.KeyID == [32]byte{} {
		t.Error("NewSealKey: two keys have one KeyID")
	}
	if len(p.asked) != 2 || p.asked[0].KeyID != first.KeyID {
		t.Error("NewSealKey: the key is not that of the request")
	}
	if q, _, err := NewSealKey(new(maker), BindMeasured); err != nil || string(q.Info) != "own" || q.Policy != BindMeasured {
		t.Errorf("NewSealKey of a KeyMaker: got %+v, %v", q, err)
	}
}

func TestIdentityCheck(t *testing.T) {
	id := Identity{Product: 1, SVN: 2}
	if err := id.Check(1, 2); err != nil {
		t.Error(err)
	}
	for _, other := range [][2]uint16{{2, 2}, {1, 1}, {1, 3}, {0, 0}} {
		if err := id.Check(other[0], other[1]); !errors.Is(err, ErrIdentity) {
			t.Errorf("Check(%v): got %v, want ErrIdentity", other, err)
		}
	}
}

func TestCheckEntropy(t *testing.T) {
	counter := byte(0)
	counting := func(b []byte) { counter++; b[0] = counter }
	if err := checkEntropy(true, true, counting); err != nil {
		t.Errorf("different blocks: %v", err)
	}
	for _, row := range []struct {
		name           string
		rdrand, rdseed bool
		read           func([]byte)
		text           string
	}{
		{"no RDRAND", false, true, counting, "RDRAND false"},
		{"no RDSEED", true, false, counting, "RDSEED false"},
		{"zeros", true, true, func([]byte) {}, "equal bytes"},
		{"ones", true, true, func(b []byte) {
			for i := range b {
				b[i] = 0xff
			}
		}, "equal bytes"},
		{"a constant", true, true, func(b []byte) { copy(b, "constant") }, "came twice"},
		{"a cycle of four", true, true, func(b []byte) { counter++; copy(b, []byte{1, counter % 4}) }, "came twice"},
	} {
		err := checkEntropy(row.rdrand, row.rdseed, row.read)
		if !errors.Is(err, ErrEntropy) || !strings.Contains(err.Error(), row.text) {
			t.Errorf("%s: got %v, want ErrEntropy with %q", row.name, err, row.text)
		}
	}
}
