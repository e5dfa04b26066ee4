package main

import (
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/harden"
)

func TestKernelProtection(t *testing.T) {
	all := harden.Kernel{Landlock: 7, Seccomp: true, SecretMemory: true, LockedMemory: 8 << 20}
	with := func(change func(*harden.Kernel)) harden.Kernel {
		k := all
		change(&k)
		return k
	}
	for _, row := range []struct {
		name   string
		kernel harden.Kernel
		state  string
		text   string
	}{
		{"all", all, stateOK, "secret memory, locked memory, landlock 7, seccomp"},
		{"nothing", harden.Kernel{}, stateNote, "no CONFIG_SECRETMEM; no RLIMIT_MEMLOCK of 48 KiB; no CONFIG_SECURITY_LANDLOCK"},
		{"no secret memory", with(func(k *harden.Kernel) { k.SecretMemory = false }), stateNote, "here: no CONFIG_SECRETMEM"},
		{"little to lock", with(func(k *harden.Kernel) { k.LockedMemory = 48<<10 - 1 }), stateNote, "here: no RLIMIT_MEMLOCK"},
		{"no landlock", with(func(k *harden.Kernel) { k.Landlock = 0 }), stateNote, "here: no CONFIG_SECURITY_LANDLOCK"},
		{"no seccomp", with(func(k *harden.Kernel) { k.Seccomp = false }), stateNote, "here: no CONFIG_SECCOMP_FILTER"},
	} {
		got := kernelProtection(row.kernel)
		if got.State != row.state || !strings.Contains(got.Found, row.text) {
			t.Errorf("%s: got %s, %q, want %s, %q", row.name, got.State, got.Found, row.state, row.text)
		}
	}
}
