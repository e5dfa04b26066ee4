package provision

import (
	"bytes"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

func TestGraceIsTold(t *testing.T) {
	until := start.Add(36 * time.Hour)
	for name, row := range map[string]struct {
		decision validate.Decision
		want     []string
	}{
		"none":       {validate.Decision{Platform: "one"}, nil},
		"TCB":        {validate.Decision{Platform: "one", TCBGraceUntil: until}, []string{"platform is out of date", "until=2026-11-02T12:00:00Z", "seconds=129600", "platform=one", "role=dkeycache"}},
		"collateral": {validate.Decision{CollateralGraceUntil: until}, []string{"collateral has expired", "until=2026-11-02T12:00:00Z", "platform=0900"}},
	} {
		var b bytes.Buffer
		p := channel.Peer{Role: channel.DKeyCache, Kind: attest.SGXQuote3, Machine: attest.Machine{PPID: [16]byte{9}, Serial: "0a"}, Decision: row.decision}
		warnOfGrace(slog.New(slog.NewTextHandler(&b, nil)), p, start)
		for _, text := range row.want {
			if !strings.Contains(b.String(), text) {
				t.Errorf("%s: %q is not in %q", name, text, b.String())
			}
		}
		if row.want == nil && b.Len() > 0 {
			t.Errorf("%s: told is %q", name, b.String())
		}
	}
}
