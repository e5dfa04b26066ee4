// Package teetest is the suite that every platform passes, fake or hardware.
package teetest

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// Run runs the suite. open starts the program once more on the same machine.
func Run(t *testing.T, open func() (tee.Platform, error)) {
	t.Helper()
	first, again := start(t, open), start(t, open)
	t.Run("identity", func(t *testing.T) { identity(t, first, again) })
	if _, _, err := tee.NewSealKey(first, tee.BindSigner); errors.Is(err, tee.ErrNoSealKey) == tee.Seals(first) {
		t.Errorf("Seals says %t, and a new key gives %v", tee.Seals(first), err)
	} else if err != nil && !tee.Seals(first) {
		t.Run("no seal key", func(t *testing.T) { noSealKey(t, first) })
	} else {
		t.Run("seal keys", func(t *testing.T) { sealKeys(t, first, again) })
		t.Run("key requests", func(t *testing.T) { requests(t, first) })
	}
	if a, ok := first.(tee.Attester); ok {
		t.Run("evidence", func(t *testing.T) { evidence(t, a) })
	}
	if a, ok := first.(tee.LocalReporter); ok {
		t.Run("local reports", func(t *testing.T) { localReports(t, first.Identity(), a, again.(tee.LocalReporter)) })
	}
}

func start(t *testing.T, open func() (tee.Platform, error)) tee.Platform {
	t.Helper()
	p, err := open()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func identity(t *testing.T, first, again tee.Platform) {
	id := first.Identity()
	if id.Measurement == [32]byte{} {
		t.Error("the measurement is zero")
	}
	if again.Identity() != id || again.Name() != first.Name() || first.Name() == "" {
		t.Error("a second start is another program")
	}
	t.Logf("platform %s, simulated %t: measurement %x, signer %x, product %d, version %d, debug %t",
		first.Name(), first.Simulated(), id.Measurement, id.Signer, id.Product, id.SVN, id.Debug)
}

func noSealKey(t *testing.T, p tee.Platform) {
	for _, q := range []tee.KeyRequest{{}, {Policy: tee.BindSigner, SVN: p.Identity().SVN}, {Policy: 9}} {
		if k, err := p.SealKey(q); !errors.Is(err, tee.ErrNoSealKey) || k.Len() != 0 {
			t.Errorf("SealKey(%+v): got %v, want ErrNoSealKey", q, err)
		}
	}
}

func sealKeys(t *testing.T, first, again tee.Platform) {
	seen := map[string]string{}
	for _, policy := range []tee.Policy{tee.BindSigner, tee.BindMeasured} {
		for _, name := range []string{"first", "second"} {
			name = fmt.Sprintf("%s key of policy %d", name, policy)
			q, key, err := tee.NewSealKey(first, policy)
			if err != nil {
				t.Fatal(err)
			}
			if key.Len() != 32 || bytes.Equal(key.Expose(), make([]byte, 32)) {
				t.Errorf("%s: got %d bytes, or zeros", name, key.Len())
			}
			if len(q.Info) > tee.MaxKeyInfo || q.Policy != policy {
				t.Errorf("%s: got request %+v", name, q)
			}
			if other, ok := seen[string(key.Expose())]; ok {
				t.Errorf("%s: it is the %s", name, other)
			}
			seen[string(key.Expose())] = name
			for _, p := range []tee.Platform{first, again} {
				if k, err := p.SealKey(q); err != nil || !k.Equal(key) {
					t.Errorf("%s: the request gives another key, or %v", name, err)
				}
			}
		}
	}
}

// requests changes every part of a request: it must give another key or none.
func requests(t *testing.T, p tee.Platform) {
	q, key, err := tee.NewSealKey(p, tee.BindSigner)
	if err != nil {
		t.Fatal(err)
	}
	changed := map[string]tee.KeyRequest{}
	set := func(name string, f func(*tee.KeyRequest)) {
		c := q
		c.Info = bytes.Clone(q.Info)
		f(&c)
		changed[name] = c
	}
	set("policy", func(c *tee.KeyRequest) { c.Policy = tee.BindMeasured })
	if q.SVN > 0 {
		set("lower version", func(c *tee.KeyRequest) { c.SVN-- })
	}
	set("longer information", func(c *tee.KeyRequest) { c.Info = append(c.Info, 0) })
	for i := range q.KeyID {
		set(fmt.Sprintf("byte %d of KeyID", i), func(c *tee.KeyRequest) { c.KeyID[i] ^= 1 })
	}
	for i := range q.Info {
		set(fmt.Sprintf("byte %d of the information", i), func(c *tee.KeyRequest) { c.Info[i] ^= 1 })
		set(fmt.Sprintf("information cut to %d", i), func(c *tee.KeyRequest) { c.Info = c.Info[:i] })
	}
	for name, c := range changed {
		if k, err := p.SealKey(c); err == nil && k.Equal(key) {
			t.Errorf("%s: another request gives the same key", name)
		}
	}
	for name, c := range map[string]tee.KeyRequest{
		"nothing":        {},
		"no policy":      {SVN: q.SVN, KeyID: q.KeyID, Info: q.Info},
		"unknown policy": {Policy: 3, SVN: q.SVN, KeyID: q.KeyID, Info: q.Info},
		"higher version": {Policy: q.Policy, SVN: q.SVN + 1, KeyID: q.KeyID, Info: q.Info},
	} {
		if k, err := p.SealKey(c); !errors.Is(err, tee.ErrKeyRequest) || k.Len() != 0 {
			t.Errorf("%s: got %v, want ErrKeyRequest", name, err)
		}
	}
}

// evidence asks from many goroutines: state that they share shows as another's
// REPORTDATA.
func evidence(t *testing.T, a tee.Attester) {
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var data [64]byte
			rand.Read(data[:])
			e, err := a.Evidence(t.Context(), data)
			if err != nil {
				t.Errorf("Evidence: %v", err)
			} else if !bytes.Contains(e.Quote, data[:]) || e.Kind == 0 {
				t.Errorf("Evidence: %v of %d bytes does not bind its REPORTDATA", e.Kind, len(e.Quote))
			}
		})
	}
	wg.Wait()
}

// localReports has a, of identity own, prove itself to b.
func localReports(t *testing.T, own tee.Identity, a, b tee.LocalReporter) {
	target, err := b.Target()
	if err != nil {
		t.Fatal(err)
	}
	data := [64]byte{1, 63: 2}
	report, err := a.Report(target, data)
	if err != nil {
		t.Fatal(err)
	}
	if id, got, err := b.VerifyReport(report); err != nil || id != own || got != data {
		t.Errorf("VerifyReport: got %+v, %x, %v", id, got, err)
	}
	for i := range report {
		changed := bytes.Clone(report)
		changed[i] ^= 1
		if id, got, err := b.VerifyReport(changed); err == nil && (id != own || got != data) {
			t.Errorf("VerifyReport: byte %d changed, accepted as %+v", i, id)
		}
	}
	for _, n := range []int{0, 1, 15, 16, 17, len(report) - 1} {
		if _, _, err := b.VerifyReport(report[:n]); !errors.Is(err, tee.ErrEvidence) {
			t.Errorf("VerifyReport: cut to %d bytes: got %v, want ErrEvidence", n, err)
		}
	}
}
