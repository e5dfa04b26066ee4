//go:build mutants

package channel_test

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/mutants"
)

// TestMutants removes the checks of channels, remote and local, with those of guests.
func TestMutants(t *testing.T) {
	mutants.Run(t, mutants.Options{Folders: []string{".", "internal/session", "local"}, Tags: "tsm", Least: 50})
}
