package overview

import "cmp"

// A Rewrap is how far the records of a store follow the DomainKey, as a manager
// has told its core: by the word of the host.
type Rewrap struct {
	Floor   uint32 `json:"floor"`             // least version that the store takes records under; 0: any
	Done    uint32 `json:"done"`              // no record needs an older version, but for refused ones
	Total   uint64 `json:"total,omitempty"`   // records that were to be looked at, or are
	Looked  uint64 `json:"looked,omitempty"`  // of these, so many were
	Refused uint64 `json:"refused,omitempty"` // of these, the core did not wrap so many anew
}

// Rewrap is how far the records of the domain are: what the core tells that knows of
// most. false: nobody tells, or the DomainKey was never rotated.
func (s *Status) Rewrap() (Rewrap, bool) {
	var most Rewrap
	for _, m := range s.Members {
		if m.State == Connected && cmp.Or(cmp.Compare(m.Rewrap.Floor, most.Floor), cmp.Compare(m.Rewrap.Done, most.Done), cmp.Compare(m.Rewrap.Looked, most.Looked)) > 0 {
			most = m.Rewrap
		}
	}
	return most, most.Floor > 1
}
