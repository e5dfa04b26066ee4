package main

import (
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// factsKnown is what the dkeyserver knows of the log of negative facts, for
// operators.
func (s *server) factsKnown() *overview.Facts {
	said := s.heads.Say(facts.Statement{})
	if said.Head.Count == 0 && len(said.Ask) == 0 {
		return nil
	}
	f := &overview.Facts{Entries: said.Head.Count, Hash: said.Head.Hash}
	for _, h := range said.Ask {
		f.Unproven = append(f.Unproven, h.Count)
	}
	if err := s.heads.Fork(); err != nil {
		f.Fork = overview.Cut(err.Error())
	}
	return f
}
