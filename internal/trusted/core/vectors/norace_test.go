//go:build !race

package vectors

// raceEnabled thins out slow vector sets under the race detector.
const raceEnabled = false
