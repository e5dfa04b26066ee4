package overview

import "cmp"

// A Rewrap is how far the records of a store follow the DomainKey, as a manager
// has told its core: by the word of the host.
type Rewrap struct {
	Floor   uint32 `json:"floor"`             // least version that the store takes records under; 0: any
	Done    uint32 `json:"done"`              // no record needs an older version, but for refused ones
	Total   uint64 `json:"total,omitempty"`   // records that there were when it began
	Looked  uint64 `json:"looked,omitempty"`  // of these, so many were
	Refused uint64 `json:"refused,omitempty"` // of these, the core did not wrap so many anew
	// What follows was made under this version of the DomainKey or an earlier one and
	// is still in use. 0: no version has leaked, or nothing was counted yet.
	Compromised uint32 `json:"compromised,omitempty"`
	Keys        uint64 `json:"keysLeft,omitempty"`    // their newest versions
	Secrets     uint64 `json:"secretsLeft,omitempty"` // their newest values
	APIKeys     uint64 `json:"apiKeysLeft,omitempty"`
	Tenants     uint64 `json:"tenantsLeft,omitempty"` // that have any of these
}

// left counts what is to be replaced.
func (r *Rewrap) left() uint64 { return r.Keys + r.Secrets + r.APIKeys }

// Rewrap is how far the records of the domain are: what the core tells that knows of
// most; of several, one that knows of the least that is left to be replaced: owners
// replace, and managers tell every 10 s. false: nobody tells, or the DomainKey was
// never rotated.
func (s *Status) Rewrap() (Rewrap, bool) {
	var most Rewrap
	for _, m := range s.Members {
		if m.State == Connected && cmp.Or(cmp.Compare(m.Rewrap.Floor, most.Floor), cmp.Compare(m.Rewrap.Done, most.Done), cmp.Compare(m.Rewrap.Looked, most.Looked),
			cmp.Compare(m.Rewrap.Compromised, most.Compromised), cmp.Compare(most.left(), m.Rewrap.left())) > 0 {
			most = m.Rewrap
		}
	}
	return most, most.Floor > 1
}
