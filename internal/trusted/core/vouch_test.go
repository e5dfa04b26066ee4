package core

import (
	"encoding/binary"
	"errors"
	"testing"

	"github.com/ehsm-kms/ehsm/api/ratls"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// outside is a platform that encloses one program, as an SGX machine does.
type outside struct{ tee.Platform }

// TestVouch has evidence bind a TLS key where the core was told that its manager is in
// the TEE, and nowhere else.
func TestVouch(t *testing.T) {
	h, d := newHost(t)
	key := wire.TLSKey{1, 2, 3}
	if s, err := h.cores[0].Vouch(t.Context(), key); !errors.Is(err, ErrNotWholeNode) || s != nil {
		t.Errorf("core that was told nothing: got %x, %v", s, err)
	}
	cfg := Config{Platform: d.platform, Keys: d.keys, Settings: d.settings, Date: h.now, WholeNode: true}
	c, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	said, err := c.Vouch(t.Context(), key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ratls.Decode(said)
	if err != nil {
		t.Fatal(err)
	}
	e, err := attest.DecodeEvidence(s.Evidence)
	if err != nil {
		t.Fatal(err)
	}
	q, err := quote.Parse(e.Quote)
	if err != nil {
		t.Fatal(err)
	}
	want := attest.ReportData("ehsm/reportdata-ratls/v1\x00", d.keys.Domain(), []byte("core"), c.info.Instance[:], key[:],
		binary.BigEndian.AppendUint64(nil, uint64(s.Date)))
	if q.Report.ReportData != want || s.Domain != d.keys.Domain() || s.Instance != c.info.Instance {
		t.Errorf("got %+v", s)
	}
	cfg.Platform = outside{d.platform}
	if _, err := New(cfg); !errors.Is(err, ErrNotWholeNode) {
		t.Errorf("platform without room for a manager: got %v, want %v", err, ErrNotWholeNode)
	}
}
