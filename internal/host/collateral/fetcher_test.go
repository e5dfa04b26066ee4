package collateral_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
	"github.com/ehsm-kms/ehsm/internal/host/collateral/collateraltest"
)

const day = 24 * time.Hour

// A source answers as it is told, and counts.
type source struct {
	mu     sync.Mutex
	answer func(collateral.Query) (verify.Collateral, error)
	asked  []time.Time
}

func (s *source) Fetch(ctx context.Context, q collateral.Query) (verify.Collateral, error) {
	s.mu.Lock()
	s.asked = append(s.asked, time.Now())
	answer := s.answer
	s.mu.Unlock()
	return answer(q)
}

func (s *source) set(answer func(collateral.Query) (verify.Collateral, error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answer = answer
}

func (s *source) serve(c verify.Collateral) {
	s.set(func(collateral.Query) (verify.Collateral, error) { return c, nil })
}

func (s *source) fail(err error) {
	s.set(func(collateral.Query) (verify.Collateral, error) { return verify.Collateral{}, err })
}

// times returns when the source was asked, and forgets it.
func (s *source) times() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

func newFetcher(t *testing.T, s collateral.Source, o collateral.Options) *collateral.Fetcher {
	t.Helper()
	f, err := collateral.New(s, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

// run runs the background work for a time.
func run(t *testing.T, f *collateral.Fetcher, span time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), span)
	defer cancel()
	f.Run(ctx)
}

func get(t *testing.T, f *collateral.Fetcher, q collateral.Query) verify.Collateral {
	t.Helper()
	c, err := f.Collateral(t.Context(), q)
	if err != nil {
		t.Fatalf("Collateral: %v", err)
	}
	return c
}

var errDown = errors.New("connection refused")

func TestCollateralIsKept(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		c := fl.issue(20, time.Now(), 30*day)
		s := &source{}
		s.serve(c)
		f := newFetcher(t, s, collateral.Options{})
		if got := get(t, f, fl.query()); !bytes.Equal(got.Append(nil), c.Append(nil)) {
			t.Error("Collateral: got something else")
		}
		b, err := f.Encoded(t.Context(), fl.platform.FMSPC, verify.CAPlatform)
		if err != nil || !bytes.Equal(b, c.Append(nil)) {
			t.Errorf("Encoded: got %d bytes, %v", len(b), err)
		}
		if n := len(s.times()); n != 1 {
			t.Errorf("the source was asked %d times", n)
		}
		if _, err := f.Encoded(t.Context(), fl.platform.FMSPC, "root"); !errors.Is(err, collateral.ErrQuery) {
			t.Errorf("unknown CA: got %v", err)
		}
	})
}

func TestOneFetchForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		c := fl.issue(20, time.Now(), 30*day)
		s := &source{}
		release := make(chan struct{})
		s.set(func(collateral.Query) (verify.Collateral, error) { <-release; return c, nil })
		f := newFetcher(t, s, collateral.Options{})
		impatient, cancel := context.WithCancel(t.Context())
		gone := make(chan error, 1)
		go func() { _, err := f.Collateral(impatient, fl.query()); gone <- err }()
		synctest.Wait()
		var wg sync.WaitGroup
		for range 50 {
			wg.Go(func() {
				if _, err := f.Collateral(t.Context(), fl.query()); err != nil {
					t.Error(err)
				}
			})
		}
		cancel() // whoever came first may leave
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("impatient: got %v", err)
		}
		close(release)
		wg.Wait()
		if n := len(s.times()); n != 1 {
			t.Errorf("the source was asked %d times", n)
		}
	})
}

func TestRefresh(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		s := &source{}
		s.set(func(collateral.Query) (verify.Collateral, error) { return fl.issue(20, time.Now(), 30*day), nil })
		f := newFetcher(t, s, collateral.Options{})
		get(t, f, fl.query())
		start := s.times()[0]
		s.serve(fl.issue(21, time.Now(), 30*day))
		run(t, f, 20*time.Hour)
		if got := s.times(); len(got) > 0 || evaluation(t, get(t, f, fl.query())) != 20 {
			t.Errorf("refreshed after %v", got[0].Sub(start))
		}
		run(t, f, 5*time.Hour)
		got := s.times()
		if len(got) != 1 || got[0].Sub(start) < 21*time.Hour || got[0].Sub(start) > 24*time.Hour {
			t.Fatalf("refreshed at %v, after the start at %v", got, start)
		}
		if n := evaluation(t, get(t, f, fl.query())); n != 21 || len(s.times()) > 0 {
			t.Errorf("evaluation number %d after the refresh", n)
		}
	})
}

// TestFailingSource: what is held goes on being served, the source is asked less
// and less often, the log says until when all is well, and it ends when the
// source is back.
func TestFailingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		s := &source{}
		s.serve(fl.issue(20, time.Now(), 30*day))
		var log bytes.Buffer
		f := newFetcher(t, s, collateral.Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
		f.Pin(fl.query())
		get(t, f, fl.query())
		s.times()
		s.fail(errDown)
		run(t, f, 25*time.Hour)
		if got := s.times(); len(got) < 4 || len(got) > 14 {
			t.Errorf("asked %d times in the first hours", len(got))
		}
		expires := time.Now().Add(30*day - 25*time.Hour).UTC().Format("2006-01-02")
		if text := log.String(); !strings.Contains(text, "level=WARN") || !strings.Contains(text, `lasts until"=`+expires) || strings.Contains(text, "ERROR") {
			t.Errorf("log does not say until when it lasts (%s):\n%s", expires, text)
		}
		run(t, f, 30*day)
		if got := s.times(); len(got) < 600 || len(got) > 900 {
			t.Errorf("asked %d times in 30 days, want about one each hour", len(got))
		}
		if !strings.Contains(log.String(), "level=ERROR msg=\"collateral has expired") {
			t.Error("nothing is said of the end")
		}
		if n := evaluation(t, get(t, f, fl.query())); n != 20 {
			t.Errorf("evaluation number %d", n)
		}
		s.serve(fl.issue(21, time.Now(), 30*day))
		run(t, f, 2*time.Hour)
		if n := evaluation(t, get(t, f, fl.query())); n != 21 {
			t.Errorf("evaluation number %d after the source is back", n)
		}
	})
}

// TestExpiredIsFetchedWhenAsked: without Run, too, nobody gets what has expired
// while the source has newer.
func TestExpiredIsFetchedWhenAsked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		s := &source{}
		s.serve(fl.issue(20, time.Now(), day))
		f := newFetcher(t, s, collateral.Options{})
		get(t, f, fl.query())
		time.Sleep(day)
		s.serve(fl.issue(21, time.Now(), day))
		if n := evaluation(t, get(t, f, fl.query())); n != 21 {
			t.Errorf("evaluation number %d", n)
		}
		time.Sleep(day)
		s.times()
		for range 20 { // it has expired, and the source has nothing newer
			if n := evaluation(t, get(t, f, fl.query())); n != 21 {
				t.Errorf("evaluation number %d", n)
			}
		}
		if n := len(s.times()); n != 1 {
			t.Errorf("the source was asked %d times", n)
		}
	})
}

// TestOlderIsNotTaken: each part goes forward only, as long as it is in force.
func TestOlderIsNotTaken(t *testing.T) {
	for name, row := range map[string]struct {
		evaluation uint32
		issued     time.Duration // after what is held
		taken      bool
	}{
		"newer":                        {20, time.Hour, true},
		"higher number, issued before": {21, -time.Hour, true},
		"lower number":                 {19, time.Hour, false},
		"issued before":                {20, -time.Hour, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				fl := newFleet(t, time.Now())
				s := &source{}
				s.serve(fl.issue(20, time.Now(), 3*day))
				served := fl.issue(row.evaluation, time.Now().Add(row.issued), 30*day)
				f := newFetcher(t, s, collateral.Options{Refresh: time.Hour})
				f.Pin(fl.query()) // or it is forgotten before it expires
				get(t, f, fl.query())
				s.serve(served)
				run(t, f, 2*time.Hour)
				got := get(t, f, fl.query())
				if taken := bytes.Equal(got.TCBInfo, served.TCBInfo) && bytes.Equal(got.QEIdentity, served.QEIdentity); taken != row.taken {
					t.Errorf("taken is %v", taken)
				}
				if newer := row.issued > 0; newer != bytes.Equal(got.RootCRL, served.RootCRL) || newer != bytes.Equal(got.PCKCRL, served.PCKCRL) {
					t.Errorf("CRLs were not judged by themselves")
				}
				run(t, f, 3*day) // what was held has expired
				if got := get(t, f, fl.query()); !bytes.Equal(got.Append(nil), served.Append(nil)) {
					t.Errorf("expired collateral stands in the way of what is in force")
				}
			})
		})
	}
}

// TestBadAnswersDisplaceNothing: not what does not parse, not what is for
// another platform, not what is dated in the future.
func TestBadAnswersDisplaceNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl, other := newFleet(t, time.Now()), newFleet(t, time.Now())
		other.platform.FMSPC[0] = 1
		for name, bad := range map[string]verify.Collateral{
			"empty":                {},
			"of another platform":  other.issue(30, time.Now(), 30*day),
			"dated in the future":  fl.issue(30, time.Now().Add(3*day), 300*day),
			"with a page for CRLs": func() verify.Collateral { c := fl.issue(30, time.Now(), 30*day); c.RootCRL = []byte(page); return c }(),
		} {
			s := &source{}
			s.serve(bad)
			f := newFetcher(t, s, collateral.Options{Refresh: time.Hour})
			if _, err := f.Collateral(t.Context(), fl.query()); !errors.Is(err, collateral.ErrAnswer) {
				t.Errorf("%s: got %v", name, err)
			}
			time.Sleep(collateral.FailureFor)
			s.serve(fl.issue(20, time.Now(), 30*day))
			get(t, f, fl.query())
			s.serve(bad)
			run(t, f, 2*time.Hour)
			if n := evaluation(t, get(t, f, fl.query())); n != 20 {
				t.Errorf("%s: evaluation number %d", name, n)
			}
		}
	})
}

func TestFailuresAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		for name, row := range map[string]struct {
			err  error
			for_ time.Duration
		}{
			"unknown platform": {collateral.ErrUnknownPlatform, collateral.UnknownFor},
			"other failure":    {errDown, collateral.FailureFor},
		} {
			s := &source{}
			s.fail(row.err)
			f := newFetcher(t, s, collateral.Options{})
			for range 20 {
				if _, err := f.Collateral(t.Context(), fl.query()); !errors.Is(err, row.err) {
					t.Errorf("%s: got %v", name, err)
				}
			}
			if n := len(s.times()); n != 1 {
				t.Errorf("%s: the source was asked %d times", name, n)
			}
			time.Sleep(row.for_)
			s.serve(fl.issue(20, time.Now(), 30*day))
			get(t, f, fl.query())
		}
	})
}

func TestRetryAfterIsHeeded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		s := &source{}
		s.fail(&collateral.StatusError{Code: 429, RetryAfter: 20 * time.Minute})
		f := newFetcher(t, s, collateral.Options{})
		if _, err := f.Collateral(t.Context(), fl.query()); err == nil {
			t.Error("got collateral")
		}
		s.serve(fl.issue(20, time.Now(), 30*day))
		time.Sleep(19 * time.Minute)
		if _, err := f.Collateral(t.Context(), fl.query()); !errors.Is(err, collateral.ErrBusy) {
			t.Errorf("got %v", err)
		}
		if n := len(s.times()); n != 1 {
			t.Errorf("the source was asked %d times", n)
		}
		time.Sleep(time.Minute)
		get(t, f, fl.query())
	})
}

func TestCloseEndsFetches(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		hang := collateral.SourceFunc(func(ctx context.Context, q collateral.Query) (verify.Collateral, error) {
			<-ctx.Done()
			return verify.Collateral{}, ctx.Err()
		})
		f := newFetcher(t, hang, collateral.Options{})
		failed := make(chan error, 1)
		go func() { _, err := f.Collateral(t.Context(), fl.query()); failed <- err }()
		synctest.Wait()
		f.Close()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("under way: got %v", err)
		}
		if _, err := f.Collateral(t.Context(), fl.query()); !errors.Is(err, collateral.ErrBusy) {
			t.Errorf("after Close: got %v", err)
		}
		f.Run(t.Context()) // returns
	})
}

// TestHangingSource: a source that never answers is given up, and Run goes on.
func TestHangingSource(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		c := fl.issue(20, time.Now(), 30*day)
		var mu sync.Mutex // of c and hang: a fetch may outlive the Run that has asked for it
		hang := false
		set := func(h bool, now verify.Collateral) {
			mu.Lock()
			defer mu.Unlock()
			hang, c = h, now
		}
		s := collateral.SourceFunc(func(ctx context.Context, q collateral.Query) (verify.Collateral, error) {
			mu.Lock()
			hangs, has := hang, c
			mu.Unlock()
			if !hangs {
				return has, nil
			}
			<-ctx.Done()
			return verify.Collateral{}, ctx.Err()
		})
		f := newFetcher(t, s, collateral.Options{})
		get(t, f, fl.query())
		set(true, c)
		run(t, f, 2*day)
		set(false, fl.issue(21, time.Now(), 30*day))
		run(t, f, 2*time.Hour)
		if n := evaluation(t, get(t, f, fl.query())); n != 21 {
			t.Errorf("evaluation number %d", n)
		}
	})
}

// TestOffline: what was fetched over HTTPS serves a restarted node without its
// source.
func TestOffline(t *testing.T) {
	s := collateraltest.NewServer(t, collateraltest.PCCS)
	rec := phala(t)
	s.Offer(t, rec.collateral)
	dir := filepath.Join(t.TempDir(), "cache")
	o := collateral.Options{Dir: dir, Now: func() time.Time { return rec.now }}
	f := newFetcher(t, dial(t, s, collateraltest.PCCS), o)
	want := get(t, f, rec.query)
	f.Close()
	s.Close()
	if got := get(t, newFetcher(t, dial(t, s, collateraltest.PCCS), o), rec.query); !bytes.Equal(got.Append(nil), want.Append(nil)) {
		t.Error("the cache serves other collateral")
	}
	info, err := os.Stat(filepath.Join(dir, "00a067110000-processor.collateral"))
	if err != nil || !info.Mode().IsRegular() {
		t.Errorf("got %v, %v", info, err)
	}
}
