package relay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// sourceFunc is a source of collateral made of its one method.
type sourceFunc func(ctx context.Context, fmspc [6]byte, ca string) ([]byte, error)

func (f sourceFunc) Encoded(ctx context.Context, fmspc [6]byte, ca string) ([]byte, error) {
	return f(ctx, fmspc, ca)
}

var (
	policyRecord = wire.RecordID{Type: wire.QuotePolicy, Tenant: tenant, ID: keyID}
	fmspc        = [6]byte{1, 2, 3}
)

func verifies() Request {
	return Request{ID: "r", Action: "VerifyQuote", Body: fmt.Appendf(nil, `{"appid":"%s","payload":{"policyId":"%s"}}`, tenant, keyID)}
}

// TestPeekPolicy has requests that name a quote policy.
func TestPeekPolicy(t *testing.T) {
	for name, row := range map[string]struct {
		payload string
		want    wire.UUID
	}{
		"policy":       {fmt.Sprintf(`{"policyId":"%s"}`, keyID), keyID},
		"last counts":  {fmt.Sprintf(`{"policyId":"x","policyId":"%s"}`, keyID), keyID},
		"no id":        {`{"policyId":"x"}`, wire.UUID{}},
		"no text":      {`{"policyId":1}`, wire.UUID{}},
		"other letter": {fmt.Sprintf(`{"policyID":"%s"}`, keyID), wire.UUID{}},
		"nothing":      {`null`, wire.UUID{}},
	} {
		n, ok := peek("GetQuotePolicy", fmt.Appendf(nil, `{"appid":"%s","payload":%s}`, tenant, row.payload))
		if !ok || n.policy != row.want {
			t.Errorf("%s: got %v, %v, want %v", name, n.policy, ok, row.want)
		}
	}
}

// TestCollateralIsAskedForOnce has the policy in the first call and the collateral
// in the second, with nothing read from the store in between.
func TestCollateralIsAskedForOnce(t *testing.T) {
	asked := 0
	g := newRig(t, Options{Collateral: sourceFunc(func(_ context.Context, f [6]byte, ca string) ([]byte, error) {
		asked++
		if f != fmspc || ca != wire.PlatformCA {
			t.Errorf("asked for FMSPC %x of the %s CA", f, ca)
		}
		return []byte("collateral"), nil
	})})
	g.store.put(policyRecord, 5, 0)
	g.core.calls = nil
	reads := g.store.reads
	r, err := g.Do(context.Background(), verifies())
	if err != nil || r.Code != 200 || string(r.Body) != "collateral" {
		t.Fatalf("got %d %q, %v", r.Code, r.Body, err)
	}
	if asked != 1 || len(g.core.calls) != 2 {
		t.Errorf("the source was asked %d times, the core %d times", asked, len(g.core.calls))
	}
	if g.core.calls[0].Collated || !g.core.calls[1].Collated {
		t.Error("the collateral is not in the second call alone")
	}
	if n := g.store.reads - reads; n > 1 {
		t.Errorf("the store was read %d times", n)
	}
	last := g.core.calls[1].Records
	if len(last) != 2 || last[1].ID != policyRecord {
		t.Errorf("the calls name %v", last)
	}
	if len(g.Relay.collaterals) != 0 {
		t.Error("the request keeps its place")
	}
}

// TestNoCollateral has the core hear that there is none, and the log why.
func TestNoCollateral(t *testing.T) {
	fails := errors.New("no route to host")
	for name, row := range map[string]struct {
		source Collateral
		want   string
	}{
		"no source":      {nil, "no source"},
		"source fails":   {sourceFunc(func(context.Context, [6]byte, string) ([]byte, error) { return []byte("page"), fails }), "010203000000, platform CA: no route"},
		"over the limit": {sourceFunc(func(context.Context, [6]byte, string) ([]byte, error) { return make([]byte, wire.MaxCollateral+1), nil }), "limit"},
	} {
		g := newRig(t, Options{Collateral: row.source})
		r, err := g.Do(context.Background(), verifies())
		if r.Code != 500 || string(r.Body) != "no collateral" {
			t.Errorf("%s: got %d %q", name, r.Code, r.Body)
		}
		if err == nil || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %v for the log, want %q", name, err, row.want)
		}
	}
}

// TestCollateralTakesItsTime has a source that never answers, and more requests
// than may be at it.
func TestCollateralTakesItsTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var inside, most atomic.Int64
		g := newRig(t, Options{Collateral: sourceFunc(func(ctx context.Context, _ [6]byte, _ string) ([]byte, error) {
			if n := inside.Add(1); n > most.Load() {
				most.Store(n)
			}
			<-ctx.Done()
			inside.Add(-1)
			return nil, ctx.Err()
		})})
		const n = 3 * maxCollaterals
		done := make(chan Reply, n)
		for range n {
			go func() {
				r, _ := g.Do(context.Background(), verifies())
				done <- r
			}()
		}
		synctest.Wait()
		if n := inside.Load(); n != maxCollaterals {
			t.Errorf("%d requests are at the source, want %d", n, maxCollaterals)
		}
		if r, err := g.Do(context.Background(), Request{ID: "r", Action: "Refuse", Body: body(1)}); err != nil || r.Code != 400 {
			t.Errorf("another request meanwhile: got %d, %v", r.Code, err)
		}
		for range n {
			if r := <-done; r.Code != 500 || !bytes.Equal(r.Body, []byte("no collateral")) {
				t.Errorf("got %d %q", r.Code, r.Body)
			}
		}
		if n := most.Load(); n > maxCollaterals {
			t.Errorf("%d requests were at the source at once, want at most %d", n, maxCollaterals)
		}
	})
}
