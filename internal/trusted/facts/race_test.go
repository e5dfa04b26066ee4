//go:build race

package facts

// rounds of 100 runs each. With the race detector a few, for the locks.
const rounds = 3
