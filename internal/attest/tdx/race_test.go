//go:build race

package tdx

const raceEnabled = true
