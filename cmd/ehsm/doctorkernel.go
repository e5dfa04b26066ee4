package main

import (
	"fmt"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/harden"
)

// leastLocked is how much memory a core locks for its keys while it takes a version
// of the DomainKey over, in bytes.
const leastLocked = 48 << 10

// kernelProtection says what the kernel can keep from other processes, where
// programs of ours run outside of enclaves. Without it they run all the same, but
// for a core in a confidential guest, so that what is missing is only noted.
func kernelProtection(k harden.Kernel) check {
	const name = "process protection"
	var has, lacks []string
	for _, part := range []struct {
		there bool
		name  string
		wants string
	}{
		{k.SecretMemory, "secret memory", "CONFIG_SECRETMEM"},
		{k.LockedMemory >= leastLocked, "locked memory", fmt.Sprintf("RLIMIT_MEMLOCK of %d KiB", leastLocked>>10)},
		{k.Landlock > 0, fmt.Sprintf("landlock %d", k.Landlock), "CONFIG_SECURITY_LANDLOCK, and landlock in lsm="},
		{k.Seccomp, "seccomp", "CONFIG_SECCOMP_FILTER"},
	} {
		if part.there {
			has = append(has, part.name)
		} else {
			lacks = append(lacks, part.wants)
		}
	}
	if len(lacks) == 0 {
		return passed(name, "%s", strings.Join(has, ", "))
	}
	return noted(name, "not all that servers use here: no %s", strings.Join(lacks, "; no "))
}
