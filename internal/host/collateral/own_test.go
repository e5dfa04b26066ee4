package collateral_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
)

// quoteOf signs a quote on a machine of the fleet.
func (f *fleet) quoteOf() []byte {
	f.t.Helper()
	m, err := f.NewMachine(f.platform, time.Now())
	if err != nil {
		f.t.Fatal(err)
	}
	q, err := m.Quote(quote.Report{})
	if err != nil {
		f.t.Fatal(err)
	}
	return q
}

// background runs o until the end of the test's bubble.
func background(t *testing.T, o *collateral.Own) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); o.Run(ctx) }()
	synctest.Wait()
	return func() { cancel(); <-done }
}

func TestOwnCollateral(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		s := &source{}
		c := fl.issue(20, time.Now(), 30*day)
		s.serve(c)
		f := newFetcher(t, s, collateral.Options{})
		q := fl.quoteOf()
		o := collateral.NewOwn(f, func(context.Context) ([]byte, error) { return q, nil }, slog.New(slog.DiscardHandler))
		if _, _, err := o.JSON(t.Context()); !errors.Is(err, collateral.ErrNotYet) {
			t.Errorf("before Run: got %v", err)
		}
		defer background(t, o)()
		body, expires, err := o.JSON(t.Context())
		if err != nil || !expires.Equal(time.Now().Add(30*day).UTC()) {
			t.Fatalf("got %v, %v", expires, err)
		}
		got, err := verify.DecodeCollateralJSON(body)
		if err != nil || !bytes.Equal(got.Append(nil), c.Append(nil)) {
			t.Errorf("JSON has other collateral, %v", err)
		}
		again, _, err := o.JSON(t.Context())
		if err != nil || &again[0] != &body[0] {
			t.Errorf("JSON is encoded for each request, %v", err)
		}
		s.serve(fl.issue(21, time.Now().Add(time.Hour), 30*day))
		run(t, f, 25*time.Hour)
		if body, _, err := o.JSON(t.Context()); err != nil || !bytes.Contains(body, []byte(`tcbEvaluationDataNumber\":21`)) {
			t.Errorf("after the refresh: %v", err)
		}
	})
}

// TestOwnWaitsForTheCore: a core that is not up, or gives rubbish, is asked again.
func TestOwnWaitsForTheCore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		s := &source{}
		s.fail(errDown)
		q := fl.quoteOf()
		var asked atomic.Int64
		var log bytes.Buffer
		o := collateral.NewOwn(newFetcher(t, s, collateral.Options{}), func(ctx context.Context) ([]byte, error) {
			switch n := asked.Add(1); {
			case n == 1:
				<-ctx.Done() // it hangs
				return nil, ctx.Err()
			case n < 4:
				return []byte("rubbish"), nil
			}
			return q, nil
		}, slog.New(slog.NewTextHandler(&log, nil)))
		defer background(t, o)()
		time.Sleep(time.Minute)
		if _, _, err := o.JSON(t.Context()); !errors.Is(err, collateral.ErrNotYet) || strings.Contains(err.Error(), "refused") {
			t.Errorf("the source is down: got %v", err)
		}
		s.serve(fl.issue(20, time.Now(), 30*day))
		time.Sleep(10 * time.Minute)
		if _, _, err := o.JSON(t.Context()); err != nil {
			t.Errorf("all is up: got %v", err)
		}
		if n := asked.Load(); n > 12 {
			t.Errorf("the core was asked %d times in 11 minutes", n)
		}
		time.Sleep(48 * time.Hour)
		if n := asked.Load(); n < 6 || n > 16 {
			t.Errorf("the core was asked %d times in two days", n)
		}
		if !strings.Contains(log.String(), "could not be read") || !strings.Contains(log.String(), "could not be fetched") {
			t.Errorf("log: %s", log.String())
		}
	})
}

func TestOwnWithoutEvidenceOrSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		logger := slog.New(slog.NewTextHandler(&log, nil))
		none := func(context.Context) ([]byte, error) { return nil, collateral.ErrNoEvidence }
		o := collateral.NewOwn(newFetcher(t, &source{}, collateral.Options{}), none, logger)
		defer background(t, o)()
		time.Sleep(72 * time.Hour)
		if _, _, err := o.JSON(t.Context()); !errors.Is(err, collateral.ErrNoEvidence) {
			t.Errorf("no evidence: got %v", err)
		}
		if n := strings.Count(log.String(), "no SGX quotes"); n != 1 {
			t.Errorf("said %d times", n)
		}
		o = collateral.NewOwn(nil, none, logger)
		background(t, o)()
		if _, _, err := o.JSON(t.Context()); !errors.Is(err, collateral.ErrNoSource) {
			t.Errorf("no source: got %v", err)
		}
	})
}

func TestQuoteIn(t *testing.T) {
	answer := func(kind attest.Kind, quote []byte) string {
		b, err := json.Marshal(api.GetEvidenceResult{Evidence: attest.Evidence{Kind: kind, Quote: quote}.Append(nil)})
		if err != nil {
			t.Fatal(err)
		}
		return `{"code":200,"message":"success!","result":` + string(b) + `}`
	}
	if q, err := collateral.QuoteIn([]byte(answer(attest.SGXQuote3, []byte("quote")))); err != nil || string(q) != "quote" {
		t.Errorf("got %q, %v", q, err)
	}
	for name, row := range map[string]struct {
		body string
		want error
	}{
		"TDX":               {answer(attest.TDXQuote4, []byte("quote")), collateral.ErrNoEvidence},
		"SEV-SNP":           {answer(attest.SNPReport, []byte("report")), collateral.ErrNoEvidence},
		"unknown kind":      {answer(99, []byte("quote")), collateral.ErrEvidence},
		"error of the core": {`{"code":500,"message":"Server exception.","result":{}}`, collateral.ErrEvidence},
		"no evidence":       {`{"code":200,"message":"success!","result":{}}`, collateral.ErrEvidence},
		"not JSON":          {page, collateral.ErrEvidence},
		"empty":             {"", collateral.ErrEvidence},
	} {
		if q, err := collateral.QuoteIn([]byte(row.body)); !errors.Is(err, row.want) {
			t.Errorf("%s: got %q, %v, want %v", name, q, err, row.want)
		}
	}
}
