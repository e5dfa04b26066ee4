//go:build mutants

package channel_test

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/mutants"
)

// TestMutants removes the checks of channels, remote and local, with those of guests.
func TestMutants(t *testing.T) {
	folders := []string{".", "internal/session", "local", "../../attest/guests"}
	mutants.Run(t, mutants.Options{Folders: folders, Tests: folders[:3], Tags: "tsm", Least: 50})
}
