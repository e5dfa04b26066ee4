package config

import "runtime/debug"

// TuneCollector lets the heap of a server grow by growth per cent of its live
// data before it is collected, unless the operator has set GOGC. The live data of
// a server is small and its requests are short, so memory is cheaper than time.
func TuneCollector(getenv func(string) string, growth int) {
	if getenv("GOGC") == "" {
		debug.SetGCPercent(growth)
	}
}
