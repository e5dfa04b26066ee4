package bench

import (
	"math/bits"
	"time"
)

// A histogram counts durations in logarithmic buckets: 32 per power of two of
// nanoseconds, so a quantile is at most 3.2 % too high. The zero value is empty.
// It takes durations up to 2^37 ns, more than two minutes; longer ones count as
// that.
type histogram struct {
	count   uint64
	buckets [histBuckets]uint32
}

const (
	histSub     = 5  // bits of a duration that a bucket resolves
	histMax     = 37 // bits of the longest duration
	histBuckets = (histMax - histSub + 1) << histSub
)

// add counts one duration.
func (h *histogram) add(d time.Duration) {
	h.buckets[bucketOf(d)]++
	h.count++
}

// bucketOf returns the bucket of d. Durations below 2^histSub have one each;
// above, the index is the exponent followed by the histSub bits after the
// leading one.
func bucketOf(d time.Duration) int {
	n := min(uint64(max(d, 0)), 1<<histMax-1)
	shift := max(bits.Len64(n)-1-histSub, 0)
	return shift<<histSub + int(n>>shift)
}

// bucketEnd returns the longest duration that bucketOf puts into a bucket.
func bucketEnd(bucket int) time.Duration {
	if bucket < 2<<histSub {
		return time.Duration(bucket)
	}
	shift := bucket>>histSub - 1
	first := uint64(bucket-shift<<histSub) << shift
	return time.Duration(first + 1<<shift - 1)
}

// merge adds what other has counted.
func (h *histogram) merge(other *histogram) {
	h.count += other.count
	for i, n := range other.buckets {
		h.buckets[i] += n
	}
}

// quantile returns a duration that at least the share q of those counted do not
// exceed, 0 if there are none.
func (h *histogram) quantile(q float64) time.Duration {
	want := max(uint64(q*float64(h.count)+0.5), 1)
	var seen uint64
	for i, n := range h.buckets {
		if seen += uint64(n); seen >= want {
			return bucketEnd(i)
		}
	}
	return 0
}
