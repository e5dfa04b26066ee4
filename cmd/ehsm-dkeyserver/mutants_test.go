//go:build mutants

package main

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/mutants"
)

// TestMutants removes the checks of the dkeyserver.
func TestMutants(t *testing.T) {
	mutants.Run(t, mutants.Options{Folders: []string{"."}, Least: 12})
}
