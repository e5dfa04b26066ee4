package verify_test

import (
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

func cpuTime(b *testing.B) time.Duration {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkVerify reports processor time as well, which other load on the
// machine does not change.
func BenchmarkVerify(b *testing.B) {
	for _, g := range genuineQuotes(b)[:2] {
		b.Run(filepath.Base(g.name), func(b *testing.B) {
			o := intel(g.at)
			start := cpuTime(b)
			for b.Loop() {
				if _, err := verify.Verify(g.quote, g.collateral, o); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(cpuTime(b)-start)/float64(b.N), "cpu-ns/op")
		})
	}
}
