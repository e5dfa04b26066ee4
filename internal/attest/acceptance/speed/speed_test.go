package speed

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"
)

func TestMeasure(t *testing.T) {
	rates, err := Measure(t.Context(), time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	counts := threadCounts(runtime.GOMAXPROCS(0))
	if len(rates) != len(Names())*len(counts) {
		t.Fatalf("got %d rates of %d operations", len(rates), len(Names()))
	}
	for i, r := range rates {
		if r.PerSecond == 0 || r.Operation != Names()[i/len(counts)] || r.Threads != counts[i%len(counts)] {
			t.Errorf("rate %d: got %+v", i, r)
		}
	}
}

func TestMeasureEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Measure(ctx, time.Hour); !errors.Is(err, context.Canceled) {
		t.Errorf("Measure: got %v, want Canceled", err)
	}
}

func TestFailedOperations(t *testing.T) {
	broken := func() func() error { return func() error { return errWrong } }
	for _, threads := range []int{1, 3} {
		if n, err := run(broken, 2, threads, time.Hour); n != 0 || !errors.Is(err, errWrong) {
			t.Errorf("%d threads: got %d, %v, want errWrong", threads, n, err)
		}
	}
}

func TestNamesAreDistinct(t *testing.T) {
	names := Names()
	slices.Sort(names)
	if len(slices.Compact(names)) != len(operations()) {
		t.Errorf("a name occurs twice in %v", names)
	}
}
