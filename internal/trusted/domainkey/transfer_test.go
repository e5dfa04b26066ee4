package domainkey

import (
	"bytes"
	"errors"
	"io/fs"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

func TestTransfer(t *testing.T) {
	dir, operator := owned(t)
	change(t, dir, operator, func(s *manifest.Statement) { s.Settings.RequestWindow = 100 })
	k, s, err := Open(dir, node(), secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	worker := node()
	worker.fuse = 9
	copied, err := Import(secret.NewHeap(), s, k.Export())
	if err != nil || !copied.Extends(k) || !k.Extends(copied) {
		t.Fatalf("Import: got %v", err)
	}
	files, err := Files(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("Files: got %d, %v", len(files), err)
	}
	other := t.TempDir()
	for range 2 { // the second time in place of the first
		if err := copied.Seal(other, worker); err != nil {
			t.Fatal(err)
		}
		for i, b := range files {
			if err := WriteManifest(other, uint64(i+1), b); err != nil {
				t.Fatal(err)
			}
		}
	}
	got, state, err := Open(other, worker, secret.NewHeap())
	if err != nil || !got.Extends(k) || state.Version != 2 || state.Domain != s.Domain {
		t.Errorf("the worker's directory: got %+v, %v", state, err)
	}
	if got, err := Unseal(other, worker, secret.NewHeap(), s); err != nil || !got.Extends(k) {
		t.Errorf("Unseal: got %v", err)
	}
}

func TestTransferRefusals(t *testing.T) {
	dir, _ := owned(t)
	k, s, err := Open(dir, node(), secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	elsewhere, _ := owned(t)
	_, other, err := Open(elsewhere, node(), secret.NewHeap())
	if err != nil {
		t.Fatal(err)
	}
	strict := *s
	strict.Settings.AllowSim = false
	edited := func(edit func([]byte) []byte) func() (*Keyring, error) {
		return func() (*Keyring, error) {
			return Import(secret.NewHeap(), s, secret.New(edit(k.Export().Expose())))
		}
	}
	machine := node()
	machine.fuse++
	for _, row := range []struct {
		name string
		open func() (*Keyring, error)
		want error
	}{
		{"bundle of another domain", func() (*Keyring, error) { return Unseal(dir, node(), secret.NewHeap(), other) }, ErrSeal},
		{"no bundle", func() (*Keyring, error) { return Unseal(t.TempDir(), node(), secret.NewHeap(), s) }, fs.ErrNotExist},
		{"other machine", func() (*Keyring, error) { return Unseal(dir, machine, secret.NewHeap(), s) }, ErrSeal},
		{"simulated", func() (*Keyring, error) { return Unseal(dir, node(), secret.NewHeap(), &strict) }, ErrSimulated},
		{"keys of another domain", func() (*Keyring, error) { return Import(secret.NewHeap(), other, k.Export()) }, ErrSeal},
		{"cut short", edited(func(b []byte) []byte { return b[:len(b)-1] }), ErrSeal},
		{"a byte more", edited(func(b []byte) []byte { return append(b, 0) }), ErrSeal},
		{"nothing", edited(func([]byte) []byte { return nil }), ErrSeal},
		{"other seed", edited(func(b []byte) []byte { b[0] ^= 1; return b }), ErrSeal},
		{"more versions than there are", edited(func(b []byte) []byte { b[35]++; return b }), ErrSeal},
	} {
		if got, err := row.open(); !errors.Is(err, row.want) || got != nil {
			t.Errorf("%s: got %v, want %v", row.name, err, row.want)
		}
	}
	if _, err := Files(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an empty directory: got %v", err)
	}
}

// TestExtends has keyrings that continue another one, and that do not.
func TestExtends(t *testing.T) {
	key := func(b byte) secret.Bytes { return secret.New(bytes.Repeat([]byte{b}, KeySize)) }
	ring := func(domain, seed byte, versions ...byte) *Keyring {
		var keys []secret.Bytes
		for _, v := range versions {
			keys = append(keys, key(v))
		}
		k, err := newKeyring(secret.NewHeap(), [32]byte{domain}, keys, key(seed))
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	old := ring(1, 1, 1, 2)
	for _, row := range []struct {
		name string
		k    *Keyring
		want bool
	}{
		{"itself", old, true},
		{"a version more", ring(1, 1, 1, 2, 3), true},
		{"a version less", ring(1, 1, 1), false},
		{"another version", ring(1, 1, 1, 3), false},
		{"other order", ring(1, 1, 2, 1), false},
		{"another seed", ring(1, 2, 1, 2), false},
		{"another domain", ring(2, 1, 1, 2), false},
	} {
		if got := row.k.Extends(old); got != row.want {
			t.Errorf("%s: got %v, want %v", row.name, got, row.want)
		}
	}
}
