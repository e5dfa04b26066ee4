package rest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
	"github.com/ehsm-kms/ehsm/internal/host/relay"
)

// ownFunc is a Collateral made of its one method.
type ownFunc func(context.Context) ([]byte, time.Time, error)

func (f ownFunc) JSON(ctx context.Context) ([]byte, time.Time, error) { return f(ctx) }

func own(body string, expires time.Time, err error) Collateral {
	return ownFunc(func(context.Context) ([]byte, time.Time, error) { return []byte(body), expires, err })
}

func TestCollateral(t *testing.T) {
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	for name, row := range map[string]struct {
		method     string
		collateral Collateral
		status     int
		cache      string
		body       string
	}{
		"in force for long":  {"GET", own(`{"a":1}`, now.Add(20*24*time.Hour), nil), 200, "public, max-age=3600", `{"a":1}`},
		"in force for short": {"GET", own(`{"a":1}`, now.Add(90*time.Second), nil), 200, "public, max-age=90", `{"a":1}`},
		"expired":            {"GET", own(`{"a":1}`, now.Add(-time.Second), nil), 200, "public, max-age=0", `{"a":1}`},
		"HEAD":               {"HEAD", own(`{"a":1}`, now.Add(time.Hour), nil), 200, "public, max-age=3600", ""},
		"POST":               {"POST", own(`{"a":1}`, now.Add(time.Hour), nil), 405, "no-store", textNotFound},
		"not yet":            {"GET", own("", time.Time{}, collateral.ErrNotYet), 503, "no-store", `{"code":503,"message":"the collateral of this service has not been fetched yet","result":{}}`},
		"another error":      {"GET", own("", time.Time{}, errors.New("/etc/secret: no such file")), 503, "no-store", `{"code":503,"message":"the collateral of this service has not been fetched yet","result":{}}`},
		"no source":          {"GET", own("", time.Time{}, collateral.ErrNoSource), 404, "no-store", `{"code":404,"message":"no source of collateral is configured for this service","result":{}}`},
		"no evidence":        {"GET", own("", time.Time{}, collateral.ErrNoEvidence), 404, "no-store", `{"code":404,"message":"the platform of this service makes no SGX quotes","result":{}}`},
		"nothing configured": {"GET", nil, 404, "no-store", `{"code":404,"message":"no source of collateral is configured for this service","result":{}}`},
	} {
		h := New(relayFunc(echo), nil, Options{Now: func() time.Time { return now }, Collateral: row.collateral})
		w := send(h, row.method, "/attestation/collateral", nil)
		if w.Code != row.status || w.Body.String() != row.body || w.Header().Get("Cache-Control") != row.cache {
			t.Errorf("%s: got %d %q %v", name, w.Code, w.Body, w.Header())
		}
		if got := w.Header().Get("Content-Type"); got != "application/json; charset=utf-8" {
			t.Errorf("%s: type %q", name, got)
		}
		if retry := w.Header().Get("Retry-After"); (retry != "") != (row.status == 503) {
			t.Errorf("%s: Retry-After %q", name, retry)
		}
	}
}

func TestCollateralIsNotSentTwice(t *testing.T) {
	h := New(relayFunc(echo), nil, Options{Collateral: own(`{"a":1}`, time.Now().Add(time.Hour), nil)})
	tag := send(h, "GET", collateralPath, nil).Header().Get("ETag")
	for name, row := range map[string]struct {
		tag    string
		status int
	}{"the same": {tag, 304}, "another": {`"x"`, 200}} {
		r := httptest.NewRequest(http.MethodGet, collateralPath, nil)
		r.Header.Set("If-None-Match", row.tag)
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, r); w.Code != row.status {
			t.Errorf("%s: got %d", name, w.Code)
		}
	}
}

func TestCollateralPathIsExact(t *testing.T) {
	h := New(relayFunc(echo), nil, Options{Collateral: own(`{"a":1}`, time.Now(), nil)})
	for _, path := range []string{"/attestation", "/attestation/collateral/", "/Attestation/collateral", "/attestation/collateral2"} {
		if w := send(h, "GET", path, nil); w.Code != 404 || w.Body.String() != textNotFound {
			t.Errorf("%s: got %d %s", path, w.Code, w.Body)
		}
	}
}

func TestQuoteFrom(t *testing.T) {
	// Format 1, kind 1, length 3: docs/formats.md#evidence-v1.
	answer, err := json.Marshal(api.GetEvidenceResult{Evidence: []byte("\x01\x01\x00\x00\x00\x03QQQ")})
	if err != nil {
		t.Fatal(err)
	}
	challenges := map[string]bool{}
	ask := QuoteFrom(relayFunc(func(_ context.Context, req relay.Request) (relay.Reply, error) {
		if req.Action != "GetEvidence" || !req.Get || len(req.Body) != 43 || req.ID == "" {
			t.Errorf("asked %+v", req)
		}
		challenges[string(req.Body)] = true
		return relay.Reply{Code: 200, Body: fmt.Appendf(nil, `{"code":200,"message":"success!","result":%s}`, answer)}, nil
	}))
	for range 3 {
		if q, err := ask(t.Context()); err != nil || string(q) != "QQQ" {
			t.Errorf("got %q, %v", q, err)
		}
	}
	if len(challenges) != 3 {
		t.Errorf("%d challenges for 3 questions", len(challenges))
	}
	down := errors.New("core is down")
	ask = QuoteFrom(relayFunc(func(context.Context, relay.Request) (relay.Reply, error) { return relay.Internal(), down }))
	if q, err := ask(t.Context()); !errors.Is(err, down) || !strings.Contains(err.Error(), "evidence") {
		t.Errorf("got %q, %v", q, err)
	}
}
