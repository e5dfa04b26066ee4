package collateral_test

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
)

const cacheFile = "0053494d0000-platform.collateral"

// fill makes a cache directory with collateral of the fleet.
func fill(t *testing.T, dir string, fl *fleet, c verify.Collateral) {
	t.Helper()
	s := &source{}
	s.serve(c)
	f := newFetcher(t, s, collateral.Options{Dir: dir})
	get(t, f, fl.query())
	f.Close()
}

func TestCacheSurvivesRestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		fl := newFleet(t, time.Now())
		fill(t, dir, fl, fl.issue(20, time.Now(), 30*day))
		time.Sleep(2 * day)
		s := &source{}
		s.serve(fl.issue(21, time.Now(), 30*day))
		f := newFetcher(t, s, collateral.Options{Dir: dir})
		if n := evaluation(t, get(t, f, fl.query())); n != 20 || len(s.times()) > 0 {
			t.Errorf("evaluation number %d: the cache was not used", n)
		}
		run(t, f, time.Minute) // it is two days old
		if n := evaluation(t, get(t, f, fl.query())); n != 21 {
			t.Errorf("evaluation number %d: it was not refreshed", n)
		}
		time.Sleep(40 * day)
		f = newFetcher(t, s, collateral.Options{Dir: dir})
		s.times()
		s.fail(errDown)
		if n := evaluation(t, get(t, f, fl.query())); n != 21 || len(s.times()) != 1 {
			t.Errorf("evaluation number %d: expired collateral, and the source is down", n)
		}
	})
}

// TestDamagedCache: a file that cannot be what was written is fetched again.
func TestDamagedCache(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl, other := newFleet(t, time.Now()), newFleet(t, time.Now())
		other.platform.FMSPC[0] = 1
		foreign, err := collateral.EncodeBundle([]verify.Collateral{other.issue(30, time.Now(), 30*day)})
		if err != nil {
			t.Fatal(err)
		}
		two, err := collateral.EncodeBundle([]verify.Collateral{fl.issue(30, time.Now(), 30*day), other.issue(30, time.Now(), 30*day)})
		if err != nil {
			t.Fatal(err)
		}
		future, err := collateral.EncodeBundle([]verify.Collateral{fl.issue(30, time.Now().Add(30*day), 30*day)})
		if err != nil {
			t.Fatal(err)
		}
		for name, damage := range map[string]func(b []byte) []byte{
			"empty":               func([]byte) []byte { return nil },
			"cut":                 func(b []byte) []byte { return b[:len(b)/2] },
			"a bit flipped":       func(b []byte) []byte { b[len(b)/3] ^= 4; return b },
			"zeros":               func(b []byte) []byte { return make([]byte, len(b)) },
			"a page":              func([]byte) []byte { return []byte(page) },
			"of another platform": func([]byte) []byte { return foreign },
			"of two platforms":    func([]byte) []byte { return two },
			"from the future":     func([]byte) []byte { return future },
		} {
			dir := t.TempDir()
			fill(t, dir, fl, fl.issue(20, time.Now(), 30*day))
			path := filepath.Join(dir, cacheFile)
			b, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, damage(b), 0o644); err != nil {
				t.Fatal(err)
			}
			s := &source{}
			s.serve(fl.issue(21, time.Now(), 30*day))
			var log bytes.Buffer
			f := newFetcher(t, s, collateral.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
			if n := evaluation(t, get(t, f, fl.query())); n != 21 || !strings.Contains(log.String(), "cannot be used") {
				t.Errorf("%s: evaluation number %d, log %q", name, n, log.String())
			}
			f.Close()
			s.fail(errDown)
			if n := evaluation(t, get(t, newFetcher(t, s, collateral.Options{Dir: dir}), fl.query())); n != 21 {
				t.Errorf("%s: evaluation number %d after the repair", name, n)
			}
		}
	})
}

// TestKilledBetweenWriteAndRename: the file before is served, what was being
// written is cleared away.
func TestKilledBetweenWriteAndRename(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		fl := newFleet(t, time.Now())
		fill(t, dir, fl, fl.issue(20, time.Now(), 30*day))
		for name, written := range map[string]string{"half": label + "\x00\x00", "all": string(encoded(recording{collateral: fl.issue(21, time.Now(), 30*day)}))} {
			if err := os.WriteFile(filepath.Join(dir, cacheFile+".new"), []byte(written), 0o644); err != nil {
				t.Fatal(err)
			}
			s := &source{}
			s.fail(errDown)
			f := newFetcher(t, s, collateral.Options{Dir: dir})
			if n := evaluation(t, get(t, f, fl.query())); n != 20 {
				t.Errorf("%s: evaluation number %d", name, n)
			}
			if left, err := filepath.Glob(filepath.Join(dir, "*.new")); len(left) > 0 || err != nil {
				t.Errorf("%s: left %v, %v", name, left, err)
			}
		}
	})
}

func TestCacheDirectoryLost(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "a", "b")
		fl := newFleet(t, time.Now())
		s := &source{}
		s.serve(fl.issue(20, time.Now(), 30*day))
		var log bytes.Buffer
		f := newFetcher(t, s, collateral.Options{Dir: dir, Log: slog.New(slog.NewTextHandler(&log, nil))})
		if err := os.RemoveAll(dir); err != nil {
			t.Fatal(err)
		}
		get(t, f, fl.query())
		if !strings.Contains(log.String(), "cannot be cached") {
			t.Errorf("log: %s", log.String())
		}
	})
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if f, err := collateral.New(&source{}, collateral.Options{Dir: file}); err == nil {
		t.Errorf("a file for a directory: got %v", f)
	}
}

// TestHostileQuotes: quotes may name any FMSPC. The source is spared, what is
// held is served, what is pinned is fetched, and memory and disk stay small.
func TestHostileQuotes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		s := &source{}
		known := fl.query()
		s.set(func(q collateral.Query) (verify.Collateral, error) {
			if q.FMSPC[5] == 0 {
				mine := *fl
				mine.platform.FMSPC = q.FMSPC
				return mine.issue(20, time.Now(), 30*day), nil
			}
			return verify.Collateral{}, fmt.Errorf("%w: no such FMSPC", collateral.ErrUnknownPlatform)
		})
		f := newFetcher(t, s, collateral.Options{})
		get(t, f, known)
		s.times()
		busy := 0
		for i := range 3000 {
			q := collateral.Query{FMSPC: [6]byte{9, 9, 9, byte(i >> 8), byte(i), 1}, CA: verify.CAPlatform}
			if _, err := f.Collateral(t.Context(), q); errors.Is(err, collateral.ErrBusy) {
				busy++
			} else if !errors.Is(err, collateral.ErrUnknownPlatform) {
				t.Fatalf("got %v", err)
			}
		}
		if n := len(s.times()); n != collateral.BudgetBurst-1 || busy != 3000-n {
			t.Errorf("the source was asked %d times, %d queries were refused", n, busy)
		}
		get(t, f, known)
		own := collateral.Query{FMSPC: [6]byte{7}, CA: verify.CAPlatform}
		f.Pin(own)
		get(t, f, own)
		time.Sleep(10 * time.Second) // one more may be asked for
		q := collateral.Query{FMSPC: [6]byte{8}, CA: verify.CAPlatform}
		get(t, f, q)
		for i := range 3 * collateral.MaxFailures { // slowly
			time.Sleep(time.Second)
			f.Collateral(t.Context(), collateral.Query{FMSPC: [6]byte{1, 9, 9, byte(i >> 8), byte(i), 1}, CA: verify.CAPlatform})
		}
		if n := f.Failures(); n > collateral.MaxFailures {
			t.Errorf("%d failures are remembered", n)
		}
	})
}

func TestManyPlatforms(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fl := newFleet(t, time.Now())
		base := fl.issue(20, time.Now(), 300*day)
		s := &source{}
		s.set(func(q collateral.Query) (verify.Collateral, error) {
			c := base // the signatures do not matter here
			c.TCBInfo = bytes.Replace(c.TCBInfo, []byte(`"fmspc":"0053494d0000"`), fmt.Appendf(nil, `"fmspc":"%x"`, q.FMSPC), 1)
			return c, nil
		})
		f := newFetcher(t, s, collateral.Options{})
		own := fl.query()
		f.Pin(own)
		get(t, f, own)
		for i := range collateral.MaxHeld + 20 {
			time.Sleep(10 * time.Second)
			get(t, f, collateral.Query{FMSPC: [6]byte{1, byte(i >> 8), byte(i)}, CA: verify.CAPlatform})
		}
		if n := f.Held(); n != collateral.MaxHeld {
			t.Errorf("%d are held", n)
		}
		s.times()
		get(t, f, own)
		if n := len(s.times()); n > 0 {
			t.Error("the pinned platform was forgotten")
		}
		run(t, f, 10*day) // nobody asks for the others any more
		if n := f.Held(); n != 1 {
			t.Errorf("%d are held after ten days", n)
		}
	})
}

func TestDiskIsBounded(t *testing.T) {
	dir := t.TempDir()
	now := time.Now()
	fl := newFleet(t, now)
	for i := range 5 {
		fl.platform.FMSPC[0] = byte(i)
		if err := collateral.Save(dir, 3, fl.query(), fl.issue(20, now, 30*day), now.Add(time.Duration(i)*time.Second)); err != nil {
			t.Fatal(err)
		}
	}
	files, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(files) != 3 || filepath.Base(files[0]) != "0253494d0000-platform.collateral" {
		t.Errorf("got %v, %v", files, err)
	}
}
