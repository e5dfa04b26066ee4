package domainkey

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// rotated are settings that ask for a version, without those that are forgotten.
func rotated(version uint32, forgotten ...uint32) *manifest.Settings {
	s := settings()
	s.DomainKey = manifest.DomainKey{Version: version, Forgotten: forgotten}
	return &s
}

// held lists the versions that a keyring holds.
func held(k *Keyring) (versions []uint32) {
	for v := uint32(0); v <= k.Newest()+1; v++ {
		if k.Holds(v) {
			versions = append(versions, v)
		}
	}
	return versions
}

func next(t testing.TB, k *Keyring) *Keyring {
	t.Helper()
	n, err := k.Next(secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestNext(t *testing.T) {
	one := open(t, create(t, node()), node())
	two, other := next(t, one), next(t, one)
	if one.Newest() != 1 || two.Newest() != 2 || two.Current() != 2 || !slices.Equal(held(two), []uint32{1, 2}) {
		t.Errorf("versions %d and %d, current is %d, held %v", one.Newest(), two.Newest(), two.Current(), held(two))
	}
	if !two.Extends(one) || one.Extends(two) || two.Extends(other) {
		t.Error("Extends: a version more does not continue, or another one does")
	}
	if a, b := two.set.Load().versions[1], two.set.Load().versions[0]; a.Equal(b) || a.Equal(secret.New(make([]byte, KeySize))) {
		t.Error("the new version is no new key")
	}
}

// TestAdopt takes newer versions over in place: who uses the keyring has them, and
// the current one stays.
func TestAdopt(t *testing.T) {
	k := open(t, create(t, node()), node())
	before, err := k.Key(RecordWrapping, 1)
	if err != nil {
		t.Fatal(err)
	}
	three := next(t, next(t, k))
	if err := k.Adopt(three); err != nil || k.Newest() != 3 || k.Current() != 1 {
		t.Fatalf("Adopt: %v, newest %d, current %d", err, k.Newest(), k.Current())
	}
	if !same(k, three) {
		t.Error("other keys than those adopted")
	}
	if after, _ := k.Key(RecordWrapping, 1); &after.Expose()[0] != &before.Expose()[0] {
		t.Error("a key that was held has moved")
	}
	for _, p := range []Purpose{RecordWrapping, ImportToken, RewrapSalt, NegativeFacts, LoginToken} {
		for v := uint32(1); v <= 3; v++ {
			a, err := k.Key(p, v)
			b, _ := three.Key(p, v)
			if err != nil || !a.Equal(b) {
				t.Errorf("%s of version %d: %v", p, v, err)
			}
		}
	}
	if err := errors.Join(k.Adopt(k), k.Adopt(three)); err != nil || k.Newest() != 3 {
		t.Errorf("once more: %v", err)
	}
}

func TestAdoptRefused(t *testing.T) {
	k := open(t, create(t, node()), node())
	two, other := next(t, k), next(t, k)
	if err := k.Adopt(two); err != nil {
		t.Fatal(err)
	}
	for name, newer := range map[string]*Keyring{
		"another version 2":      other,
		"more after another one": next(t, other),
		"another domain":         open(t, create(t, node()), node()),
	} {
		if err := k.Adopt(newer); !errors.Is(err, ErrForeign) || !same(k, two) {
			t.Errorf("%s: got %v, want ErrForeign", name, err)
		}
	}
}

func TestAdvance(t *testing.T) {
	k := open(t, create(t, node()), node())
	if err := k.Adopt(next(t, next(t, k))); err != nil {
		t.Fatal(err)
	}
	for _, row := range []struct {
		to   uint32
		want error
		now  uint32
	}{
		{0, ErrNoVersion, 1}, {4, ErrNoVersion, 1}, {2, nil, 2}, {1, ErrCurrent, 2}, {2, nil, 2}, {3, nil, 3}, {2, ErrCurrent, 3},
	} {
		if err := k.Advance(row.to); !errors.Is(err, row.want) || k.Current() != row.now {
			t.Errorf("to %d: got %v, current is %d, want %v and %d", row.to, err, k.Current(), row.want, row.now)
		}
	}
}

func TestSettle(t *testing.T) {
	for _, row := range []struct {
		name    string
		newest  uint32
		current uint32
		s       *manifest.Settings
		want    []uint32
	}{
		{"nothing", 2, 2, rotated(2), []uint32{1, 2}},
		{"the first", 2, 2, rotated(2, 1), []uint32{2}},
		{"two", 3, 3, rotated(3, 1, 2), []uint32{3}},
		{"one between", 3, 3, rotated(3, 2), []uint32{1, 3}},
		{"the new one is not there yet", 1, 1, rotated(2, 1), []uint32{1}},
		{"the old one is the current one still", 2, 1, rotated(2, 1), []uint32{1, 2}},
		{"a version that was never held", 2, 2, rotated(9, 5), []uint32{1, 2}},
	} {
		k := open(t, create(t, node()), node())
		newest := k
		for newest.Newest() < row.newest {
			newest = next(t, newest)
		}
		if err := errors.Join(k.Adopt(newest), k.Advance(row.current)); err != nil {
			t.Fatal(err)
		}
		gone := k.set.Load().versions[0]
		forgot := k.Settle(row.s)
		if got := held(k); !slices.Equal(got, row.want) || forgot != (len(got) < int(row.newest)) {
			t.Errorf("%s: held %v, forgot %v, want %v", row.name, got, forgot, row.want)
		}
		if zero := gone.Equal(secret.New(make([]byte, KeySize))); zero == k.Holds(1) {
			t.Errorf("%s: version 1 is zeroed: %v", row.name, zero)
		}
		if k.Settle(row.s) {
			t.Errorf("%s: forgets twice", row.name)
		}
	}
}

// TestForgottenTravels seals and hands on keys of which one is forgotten.
func TestForgottenTravels(t *testing.T) {
	dir := create(t, node())
	k, s, err := Open(dir, node(), secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	three := next(t, next(t, k))
	three.Settle(rotated(3, 2))
	if err := three.Seal(dir, node()); err != nil {
		t.Fatal(err)
	}
	again := open(t, dir, node())
	copied, err := Import(secret.NewHeap(), s, three.Export())
	if err != nil {
		t.Fatal(err)
	}
	for name, got := range map[string]*Keyring{"opened again": again, "handed on": copied} {
		if !slices.Equal(held(got), []uint32{1, 3}) || !got.Extends(three) || !got.Extends(k) {
			t.Errorf("%s: held %v", name, held(got))
		}
	}
	// One that slept takes the third and keeps what nobody has told it to forget.
	slept := next(t, k)
	if err := slept.Adopt(three); !errors.Is(err, nil) || !slices.Equal(held(slept), []uint32{1, 2, 3}) {
		t.Errorf("one that slept: %v, held %v", err, held(slept))
	}
	forgetting := *s
	forgetting.Settings = *rotated(3, 1)
	if got, err := Import(secret.NewHeap(), &forgetting, three.Export()); err != nil || !slices.Equal(held(got), []uint32{3}) {
		t.Errorf("imported under a manifest that forgets more: %v, held %v", err, held(got))
	}
	// The last version is never missing.
	plain := bytes.Clone(three.Export().Expose())
	clear(plain[len(plain)-KeySize:])
	if _, err := Import(secret.NewHeap(), s, secret.New(plain)); !errors.Is(err, ErrSeal) {
		t.Errorf("without the last version: got %v, want ErrSeal", err)
	}
}

// TestRotate makes what a manifest asks for, and seals it first.
func TestRotate(t *testing.T) {
	dir := create(t, node())
	k := open(t, dir, node())
	if got, err := k.Rotate(dir, node(), secret.NewHeap(), rotated(0), nil); got != k || err != nil {
		t.Errorf("nothing to do: %v", err)
	}
	kept := 0
	three, err := k.Rotate(dir, node(), secret.NewHeap(), rotated(3), func(n *Keyring) error {
		kept++
		if !same(n, open(t, dir, node())) {
			t.Error("it is not sealed before it is kept elsewhere")
		}
		return nil
	})
	if err != nil || three.Newest() != 3 || kept != 1 || !same(three, open(t, dir, node())) {
		t.Errorf("two rotations in a row: %v, kept %d times", err, kept)
	}
	again, err := open(t, dir, node()).Rotate(dir, node(), secret.NewHeap(), rotated(3), nil)
	if err != nil || !same(again, three) {
		t.Errorf("after a restart it makes others: %v", err)
	}
	refusal := errors.New("no room")
	if got, err := three.Rotate(dir, node(), secret.NewHeap(), rotated(4), func(*Keyring) error { return refusal }); got.Newest() != 4 || !errors.Is(err, refusal) {
		t.Errorf("what is not kept elsewhere: got %v", err)
	}
	if got, err := three.Rotate(filepath.Join(dir, "missing"), node(), secret.NewHeap(), rotated(4), nil); got != nil || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what cannot be sealed: got %v", err)
	}
}

// TestRotateWithHSM has a version made where the domain's root is an HSM, and refused
// by a platform without it.
func TestRotateWithHSM(t *testing.T) {
	p, dir := withHSM{real()}, filepath.Join(t.TempDir(), "domain")
	if err := creating(t, manifest.HSM, false, false)(dir, p); err != nil {
		t.Fatal(err)
	}
	k, _, err := Open(dir, p, secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	two, err := k.Rotate(dir, p, secret.NewHeap(), rotated(2), nil)
	if err != nil {
		t.Fatal(err)
	}
	if again, _, err := Open(dir, p, secret.NewHeap()); err != nil || !same(again, two) {
		t.Errorf("opened again: %v", err)
	}
	if got, err := two.Rotate(dir, real(), secret.NewHeap(), rotated(3), nil); got != nil || !errors.Is(err, ErrRoot) {
		t.Errorf("without the HSM: got %v, want ErrRoot", err)
	}
}

// TestForgetWhileUsed has keys used, adopted and forgotten at once.
func TestForgetWhileUsed(t *testing.T) {
	k := open(t, create(t, node()), node())
	newest := k
	for range 8 {
		newest = next(t, newest)
	}
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for range 4 {
		wg.Go(func() {
			for v := uint32(1); ; v = v%9 + 1 {
				select {
				case <-stop:
					return
				default:
				}
				k.Hold()
				key, err := k.Key(RecordWrapping, v)
				if err == nil && key.Equal(secret.New(make([]byte, KeySize))) {
					t.Error("a key is zeroed while it is in use")
				}
				k.Release()
				exported := k.Export()
				exported.Zero()
			}
		})
	}
	var gone []uint32
	for v := uint32(2); v <= 9; v++ {
		if err := errors.Join(k.Adopt(newest), k.Advance(v)); err != nil {
			t.Fatal(err)
		}
		gone = append(gone, v-1)
		k.Settle(rotated(9, gone...))
	}
	close(stop)
	wg.Wait()
	if got := held(k); !slices.Equal(got, []uint32{9}) {
		t.Errorf("held %v", got)
	}
}
