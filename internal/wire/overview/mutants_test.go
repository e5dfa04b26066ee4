//go:build mutants

package overview

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/mutants"
)

// TestMutants removes the checks of what a dkeyserver tells operators.
func TestMutants(t *testing.T) {
	mutants.Run(t, mutants.Options{Folders: []string{"."}, Least: 20})
}
