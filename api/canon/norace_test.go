//go:build !race

package canon

// differentialCases is how many random texts each comparison makes.
const differentialCases = 8000
