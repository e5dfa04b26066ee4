//go:build race

package canon

// differentialCases is how many random texts each comparison makes. The race
// detector slows encoding/json about tenfold, and no case has goroutines.
const differentialCases = 1000
