//go:build mutants

package recovery

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/mutants"
)

// TestMutants removes the checks of restorations, and of the files for them.
func TestMutants(t *testing.T) {
	folders := []string{".", "../../wire/escrow", "../../attest/restoration"}
	mutants.Run(t, mutants.Options{Folders: folders, Tests: folders[:2], Least: 18})
}
