package genesis

import (
	"crypto/x509"
	"errors"
	"fmt"
	"regexp"
	"slices"
)

// Attestation says which genuine quotes VerifyQuote accepts. At least one of its
// fields is set.
type Attestation struct {
	// Accept lists what is accepted beside platforms that are up to date.
	Accept []Acceptance `json:"accept,omitempty"`
	// MinEvaluation is the least tcbEvaluationDataNumber of collateral.
	MinEvaluation uint32 `json:"minEvaluationNumber,omitempty"`
}

// An Acceptance accepts a TCB status where the advisory is the cause. A quote with
// several advisories needs one for each.
type Acceptance struct {
	Status   string `json:"status"`   // Intel's word, such as SWHardeningNeeded; never Revoked
	Advisory string `json:"advisory"` // such as INTEL-SA-00615
	Reason   string `json:"reason"`   // why it does no harm here; for those who read the genesis
}

const (
	// simulation is the organization in every name of a simulated fleet, the same
	// as in package verify, which this package must not know.
	simulation = "SIMULATION - NOT INTEL"

	maxAccept  = 256
	maxReason  = 1024 // bytes
	maxSimRoot = 4096 // bytes
)

// statuses are those that a domain may accept. Intel's verifiers know two more:
// UpToDate needs no acceptance, and Revoked gets none.
func statuses() []string {
	return []string{
		"SWHardeningNeeded", "ConfigurationNeeded", "ConfigurationAndSWHardeningNeeded",
		"OutOfDate", "OutOfDateConfigurationNeeded",
	}
}

var advisoryID = regexp.MustCompile(`^INTEL-(DOC|SA)-[0-9]{5}$`)

func (a *Attestation) validate() error {
	if len(a.Accept) == 0 && a.MinEvaluation == 0 {
		return errors.New("attestation says nothing; leave it out")
	}
	return CheckAccept(a.Accept)
}

// CheckAccept refuses a list of more than 256 acceptances, one that has a cause
// twice, and members that are not as Acceptance has them.
func CheckAccept(list []Acceptance) error {
	if len(list) > maxAccept {
		return fmt.Errorf("attestation accepts %d causes, limit %d", len(list), maxAccept)
	}
	seen := map[[2]string]bool{}
	for i, c := range list {
		name := [2]string{c.Status, c.Advisory}
		switch {
		case !slices.Contains(statuses(), c.Status):
			return fmt.Errorf("accept %d: status %q is unknown or cannot be accepted", i, c.Status)
		case !advisoryID.MatchString(c.Advisory):
			return fmt.Errorf("accept %d: advisory %q, want one such as INTEL-SA-00615", i, c.Advisory)
		case c.Reason == "" || len(c.Reason) > maxReason:
			return fmt.Errorf("accept %d: reason of %d bytes, want 1 to %d", i, len(c.Reason), maxReason)
		case seen[name]:
			return fmt.Errorf("accept %d: %s for %s comes twice", i, c.Status, c.Advisory)
		}
		seen[name] = true
	}
	return nil
}

func (g *Genesis) validateSimRoot() error {
	if g.SimRoot == nil {
		return nil
	}
	if !g.AllowSim {
		return errors.New("simRoot without allowSim")
	}
	return CheckSimRoot(g.SimRoot)
}

// CheckSimRoot refuses what is no certificate in DER of at most 4096 bytes, and a
// root that could be taken for Intel's.
func CheckSimRoot(der []byte) error {
	if len(der) > maxSimRoot {
		return fmt.Errorf("simRoot has %d bytes, limit %d", len(der), maxSimRoot)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return fmt.Errorf("simRoot: %w", err)
	}
	if !slices.Equal(root.Subject.Organization, []string{simulation}) {
		return fmt.Errorf("simRoot: its organization is %q, want %q", root.Subject.Organization, simulation)
	}
	return nil
}
