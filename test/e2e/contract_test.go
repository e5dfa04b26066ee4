package e2e

import (
	"slices"
	"testing"
)

// A line is one line of the compatibility checklist of the contract, section
// 10, or a part of one; its number is in its name. Lines without a number test
// what the checklist leaves to the sections.
type line struct {
	name string
	run  func(t *testing.T, g *target)
}

// TestContract runs the checklist on every target. 5 begins with TestVectors,
// 33 ends with TestClosedDomainRefusesEnroll, 41 with
// TestReplaySurvivesRestart.
func TestContract(t *testing.T) {
	lines := slices.Concat(edgeLines(), envelopeLines(), signatureLines(), timeLines(), validationLines(),
		keyLines(), symmetricLines(), replySignatureLines(),
		specLines(), asymmetricLines(), signingLines(),
		exportLines(), importLines(), secretLines(), quoteLines(), opensslLines())
	eachTarget(t, func(t *testing.T, g *target) {
		for _, l := range lines {
			t.Run(l.name, func(t *testing.T) { l.run(t, g) })
		}
	})
}
