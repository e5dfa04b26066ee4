//go:build mutants

package hsmroot

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/mutants"
)

// TestMutants removes the checks of both halves, and those of the domain's root.
func TestMutants(t *testing.T) {
	mutants.Run(t, mutants.Options{Folders: []string{".", "../domainkey"}, Least: 10})
}
