//go:build mutants

package facts

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/mutants"
)

// TestMutants removes the checks of the log and of the heads one at a time.
func TestMutants(t *testing.T) {
	mutants.Run(t, mutants.Options{Folders: []string{"."}, Least: 18})
}
