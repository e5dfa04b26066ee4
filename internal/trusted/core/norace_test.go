//go:build !race

package core

// raceEnabled thins out random tests under the race detector.
const raceEnabled = false
