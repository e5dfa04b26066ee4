package local_test

import "testing"

// BenchmarkLocal makes a channel between two programs of one simulated machine,
// both ends in one process.
func BenchmarkLocal(b *testing.B) {
	s := newScene(b)
	for b.Loop() {
		core, cache, err1, err2 := s.play(nil)
		if err1 != nil || err2 != nil {
			b.Fatal(err1, err2)
		}
		closeAll(core, cache)
	}
}
