//go:build mutants

package provision

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/mutants"
)

// TestMutants removes the checks of provisioning.
func TestMutants(t *testing.T) {
	mutants.Run(t, mutants.Options{Folders: []string{"."}, Least: 8})
}
