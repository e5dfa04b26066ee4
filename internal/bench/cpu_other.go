//go:build !linux

package bench

import "time"

// cpuTime returns 0: other systems do not show the CPU time of other processes
// to the nanosecond, and the report leaves out what it does not have.
func cpuTime([]int) (time.Duration, error) { return 0, nil }

// busyTime returns 0, which the report leaves out.
func busyTime() (time.Duration, error) { return 0, nil }

// residentSize returns 0, which the report leaves out.
func residentSize([]int) (int64, error) { return 0, nil }

// lowestPriority changes nothing: what it would take differs between systems.
func lowestPriority() error { return nil }
