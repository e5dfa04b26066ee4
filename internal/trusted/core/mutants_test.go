//go:build mutants

package core

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/mutants"
)

// TestMutants expects the attacker of TestHostAttacker to succeed without each
// check of the core and of its records, or else another test to fail.
func TestMutants(t *testing.T) {
	mutants.Run(t, mutants.Options{Folders: []string{".", "../record"}, Tests: []string{"."}, First: "TestHostAttacker", Least: 30})
}
