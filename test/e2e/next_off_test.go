//go:build !next

package e2e

import "testing"

// next says whether tests of actions that the service does not have yet run.
const next = false

func nextLines() []line { return nil }

func nextDrives() []func(*testing.T, *oldClient) { return nil }
