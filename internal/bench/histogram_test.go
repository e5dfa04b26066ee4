package bench

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	tests := []struct {
		name   string
		d, end time.Duration
		bucket int
	}{
		{"negative", -1, 0, 0},
		{"zero", 0, 0, 0},
		{"last exact one", 63, 63, 63},
		{"first of two", 64, 65, 64},
		{"second of two", 65, 65, 64},
		{"next", 66, 67, 65},
		{"microsecond", 1000, 1007, 4<<5 + 62},
		{"millisecond", time.Millisecond, 1015807, 14<<5 + 61},
		{"longest", 1<<37 - 1, 1<<37 - 1, histBuckets - 1},
		{"longer", time.Hour, 1<<37 - 1, histBuckets - 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := bucketOf(tt.d); got != tt.bucket || bucketEnd(got) != tt.end {
				t.Errorf("bucketOf: got %d, which ends at %d, want %d, %d", got, bucketEnd(got), tt.bucket, tt.end)
			}
		})
	}
}

func TestBucketsFollowEachOther(t *testing.T) {
	for i := range histBuckets {
		end := bucketEnd(i)
		if bucketOf(end) != i || i+1 < histBuckets && bucketOf(end+1) != i+1 {
			t.Fatalf("bucket %d ends at %d, which is in bucket %d, and the next in %d", i, end, bucketOf(end), bucketOf(end+1))
		}
	}
}

func TestQuantiles(t *testing.T) {
	var h, half histogram
	if got := h.quantile(0.5); got != 0 {
		t.Errorf("quantile of nothing: got %v, want 0", got)
	}
	r := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	for i := range 10001 {
		d := time.Duration(r.ExpFloat64() * float64(time.Millisecond))
		all = append(all, d)
		if i%2 == 0 {
			h.add(d)
		} else {
			half.add(d)
		}
	}
	h.merge(&half)
	slices.Sort(all)
	for _, q := range []float64{0, 0.5, 0.95, 0.99, 1} {
		want := all[int(q*10000)]
		if got := h.quantile(q); got < want || float64(got) > float64(want)*1.032+1 {
			t.Errorf("quantile %v: got %v, want %v", q, got, want)
		}
	}
}
