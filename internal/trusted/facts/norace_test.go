//go:build !race

package facts

// rounds of 100 runs each: one run in some hundred meets what matters.
const rounds = 40
