package attested_test

import (
	"slices"
	"strings"
	"testing"
)

// Models of what clients do with a core, searched to their end: of attested
// enrollment (enrollmodel_test.go) and of sealed requests (sealedmodel_test.go). The
// attacker owns the network, the manager and the store. He drops, replays, reorders
// and mixes, has genuine cores in a domain of his own, a program of his own, the key of
// a core that has ended, and one client's key. docs/enrollment.md#model says what the
// models leave out.
//
// Here is what both have in common: the evidence that a client is shown, and what it
// accepts.

// Programs, which also name their instances and keys.
const (
	pCore    = 'c' // a core of the client's domain
	pOther   = 'o' // another one of it
	pForeign = 'f' // a core of the attacker's domain
	pEvil    = 'e' // a program of the attacker's
	pGone    = 'g' // a core of the client's domain that has ended; its key has leaked
	keyNext  = 'n' // the key of pCore after its first
)

// Domains.
const (
	dClient   = 'D'
	dAttacker = 'A'
)

func domainOf(program byte) byte {
	if program == pForeign {
		return dAttacker
	}
	return dClient
}

// leaked reports whether the attacker has a private key from the start.
func leaked(key byte) bool { return key == pEvil || key == pGone }

// A statement is what a service says of itself beside its evidence.
type statement struct{ domain, instance, key byte }

// mEvidence is evidence of a program.
type mEvidence struct {
	by    byte
	quote bool // of GenerateQuote, over data that the attacker chose
	fresh bool // over the client's challenge
	bound statement
}

// A protocol is the real one, without something.
type protocol struct{ without string }

func (p protocol) has(what string) bool {
	return !slices.Contains(strings.Fields(p.without), what)
}

// evidences are those that the attacker can have: of cores that run, over any
// challenge; key is the one that pCore has.
func evidences(key byte) []mEvidence {
	all := []mEvidence{
		{by: pCore, fresh: true, bound: statement{dClient, pCore, key}},
		{by: pOther, fresh: true, bound: statement{dClient, pOther, pOther}},
		{by: pForeign, fresh: true, bound: statement{dAttacker, pForeign, pForeign}},
		{by: pEvil, fresh: true, bound: statement{dClient, pCore, pEvil}},
		{by: pGone, bound: statement{dClient, pGone, pGone}},
		{by: pCore, fresh: true, quote: true, bound: statement{dClient, pCore, pEvil}},
	}
	if key != pCore {
		all = append(all, mEvidence{by: pCore, bound: statement{dClient, pCore, pCore}})
	}
	return all
}

// verified are the statements that a client can be made to accept.
func (p protocol) verified(key byte) (all []statement) {
	for _, e := range evidences(key) {
		for _, domain := range []byte{dClient, dAttacker} {
			for _, instance := range []byte{pCore, pOther, pForeign, pGone} {
				for _, key := range []byte{e.bound.key, pEvil} {
					s := statement{domain, instance, key}
					if p.accepts(e, s) && !slices.Contains(all, s) {
						all = append(all, s)
					}
				}
			}
		}
	}
	return all
}

// accepts are the checks of Verifier.Verify.
func (p protocol) accepts(e mEvidence, s statement) bool {
	switch {
	case p.has("code") && e.by == pEvil:
	case p.has("use") && e.quote:
	case p.has("challenge") && !e.fresh:
	case p.has("pin") && s.domain != dClient:
	case p.has("domain") && e.bound.domain != s.domain:
	case p.has("instance") && e.bound.instance != s.instance:
	case p.has("key") && e.bound.key != s.key:
	default:
		return true
	}
	return false
}

// opens reports whether a program with a key opens what was encrypted after a
// statement. The info of HPKE has the domain, and in an enrollment the instance.
func (p protocol) opens(program, key byte, s statement) bool {
	return key == s.key && (!p.has("info") || s.domain == domainOf(program))
}

// explore visits all worlds that can be reached from the first one, and returns the
// first flaw.
func explore[W comparable](first W, next func(W) []W, flawOf func(*W) string) (flaw string, visited int) {
	seen := map[W]bool{first: true}
	for queue := []W{first}; len(queue) > 0; {
		w := queue[0]
		queue = queue[1:]
		if flaw := flawOf(&w); flaw != "" {
			return flaw, len(seen)
		}
		for _, n := range next(w) {
			if !seen[n] {
				seen[n] = true
				queue = append(queue, n)
			}
		}
	}
	return "", len(seen)
}

// A modelRow is a protocol without something, and whether that has a flaw.
type modelRow struct {
	without string
	flawed  bool
}

// checkModel searches a model once for each row.
func checkModel(t *testing.T, rows []modelRow, search func(protocol) (string, int)) {
	t.Helper()
	for _, row := range rows {
		flaw, visited := search(protocol{row.without})
		if (flaw != "") != row.flawed {
			t.Errorf("without %q: got flaw %q, want one: %v", row.without, flaw, row.flawed)
		}
		t.Logf("without %q: %d worlds, %s", row.without, visited, flaw)
	}
}
