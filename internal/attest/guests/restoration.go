package guests

import (
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/restoration"
)

// Restoring judges a guest that restores a domain's DomainKey; it is for
// restoration.Options. Errors: those of Judge.
func Restoring(g restoration.Guest) (*restoration.Found, error) {
	v, err := Judge(Question{
		Evidence: g.Evidence, Collateral: g.Collateral, Role: restoration.Role, Policy: g.Policy,
		Guests: admission.GuestsOf(g.Settings, restoration.Role), Roots: g.Roots, Now: g.Now, ReportData: g.ReportData,
	})
	if err != nil {
		return nil, fmt.Errorf("guest: %w", err)
	}
	f := &restoration.Found{Program: fmt.Sprintf("in a guest that measures %x", v.Measurement), Machine: v.Decision.Platform}
	if v.Quote != nil {
		f.Number = fmt.Sprintf("PPID %x, TCB %v", v.Machine.PPID, v.Quote.Status)
	} else {
		f.Number = fmt.Sprintf("chip id %x", v.Machine.Chip)
	}
	return f, nil
}
