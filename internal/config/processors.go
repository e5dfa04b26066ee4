package config

import "runtime"

// spareThreads is how many threads of Go code there are beyond the processors. One takes
// in requests while others have long work on all processors; the second does when that
// one works too.
const spareThreads = 2

// TuneProcessors lets Go run on more threads than there are processors, so that the
// kernel shares these: where as many goroutines as Go has processors compute for long,
// Go itself looks for arrived requests every 10 ms only. It returns for how many
// processors Go would have run, and changes nothing if the operator has set GOMAXPROCS.
func TuneProcessors(getenv func(string) string) int {
	n := runtime.GOMAXPROCS(0)
	if getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(n + spareThreads)
	}
	return n
}
