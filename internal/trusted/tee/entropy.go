package tee

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"

	"golang.org/x/sys/cpu"
)

// ErrEntropy says that a TEE's source of randomness is not to be trusted.
var ErrEntropy = errors.New("randomness of this TEE cannot be trusted")

// CheckEntropy tests what can be tested of the randomness of a hardware TEE: the
// processor has RDRAND and RDSEED, which the run-times and guest kernels draw
// from inside the TEE, and crypto/rand gives no constant. That getrandom really
// ends there and not at the host is a property of the measured run-time, which a
// program cannot see from within; docs/platforms.md#randomness says for each
// platform where it is shown. Errors: ErrEntropy.
func CheckEntropy() error {
	return checkEntropy(cpu.X86.HasRDRAND, cpu.X86.HasRDSEED, func(b []byte) { rand.Read(b) })
}

func checkEntropy(rdrand, rdseed bool, read func([]byte)) error {
	if !rdrand || !rdseed {
		return fmt.Errorf("%w: the processor shows RDRAND %t and RDSEED %t", ErrEntropy, rdrand, rdseed)
	}
	const blocks, size = 8, 32
	seen := make([][]byte, 0, blocks)
	for range blocks {
		b := make([]byte, size)
		read(b)
		if bytes.Count(b, b[:1]) == size {
			return fmt.Errorf("%w: %d equal bytes in a row", ErrEntropy, size)
		}
		for _, earlier := range seen {
			if bytes.Equal(earlier, b) {
				return fmt.Errorf("%w: a block of %d bytes came twice", ErrEntropy, size)
			}
		}
		seen = append(seen, b)
	}
	return nil
}
