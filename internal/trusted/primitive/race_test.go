//go:build race

package primitive

// raceEnabled thins out slow vector sets under the race detector.
const raceEnabled = true
