package main

import (
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
	"github.com/ehsm-kms/ehsm/internal/host/collateral/collateraltest"
)

// phalaCollateral reads published collateral.
func phalaCollateral(t *testing.T) verify.Collateral {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(dcapData, "phala/sgx_quote_collateral.json"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := verify.DecodeCollateralJSON(b)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// services starts a PCCS that has phala's collateral, and a portal that answers
// everything with a page.
func services(t *testing.T) (pccs, portal *collateraltest.Server) {
	pccs, portal = collateraltest.NewServer(t, collateraltest.PCCS), collateraltest.NewServer(t, collateraltest.PCCS)
	pccs.Offer(t, phalaCollateral(t))
	portal.Meddle(collateraltest.TCBInfo, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("TCB-Info-Issuer-Chain", collateraltest.EscapeChain(phalaCollateral(t).TCBInfoIssuerChain))
		w.Write([]byte("<html>please log in</html>"))
	})
	return pccs, portal
}

func TestDaysLeft(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		left time.Duration
		want int
		text string
	}{
		"now":                {0, 0, "0 days left"},
		"an hour":            {time.Hour, 0, "0 days left"},
		"a day":              {24 * time.Hour, 1, "1 day left"},
		"a second less":      {24*time.Hour - time.Second, 0, "0 days left"},
		"a month":            {30*24*time.Hour + time.Hour, 30, "30 days left"},
		"a second ago":       {-time.Second, -1, "over"},
		"a day ago":          {-24 * time.Hour, -2, "over"},
		"no date, the first": {-time.Duration(1 << 62), -53376, "over"},
	} {
		got := daysLeft(now.Add(row.left), now)
		if got != row.want || left(got) != row.text {
			t.Errorf("%s: got %d, %q, want %d, %q", name, got, left(got), row.want, row.text)
		}
	}
}

// Every way in which collateral cannot be had tells a person what to do.
func TestFetchHints(t *testing.T) {
	for name, err := range map[string]error{
		"unknown":      collateral.ErrUnknownPlatform,
		"no key":       &collateral.StatusError{Code: 401},
		"too often":    &collateral.StatusError{Code: 429},
		"broken":       &collateral.StatusError{Code: 503},
		"a page":       collateral.ErrAnswer,
		"of the net":   os.ErrDeadlineExceeded,
		"other status": &collateral.StatusError{Code: 302},
	} {
		if fetchHint(err, true) == "" || fetchHint(err, false) == "" {
			t.Errorf("%s: no hint", name)
		}
	}
}
