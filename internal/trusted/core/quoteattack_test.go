package core

import (
	"math/big"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// quoter is the machine of the attacker's domain: it is the attacker's in this
// file, down to the fleet's keys where an attack says so.
func (a *attacker) quoter() *quoter { return a.domain.platform.(*quoter) }

// judged reports whether alice gets a verdict on a quote, with this collateral.
func (a *attacker) judged(core int, q []byte, c verify.Collateral, policy ...string) bool {
	a.serves(c)
	return a.succeeds(core, "VerifyQuote", a.alice.body(verifying(q, policy...)))
}

// uploads stores a policy of a tenant and returns its record.
func (a *attacker) uploads(c *tenant, enclave, signer [32]byte) (id string, name wire.RecordID) {
	id = a.must(0, c, "UploadQuotePolicy", policyOf(enclave, signer)).text("policyId")
	u, err := wire.ParseUUID(id)
	if err != nil {
		a.t.Fatal(err)
	}
	return id, wire.RecordID{Type: wire.QuotePolicy, Tenant: c.id(), ID: u}
}

// number sets the tcbEvaluationDataNumber.
func number(n uint32) func(*issue.Terms) { return func(t *issue.Terms) { t.Evaluation = n } }

// quoteAttacks are those of a host that wants a tenant to trust an enclave, or to
// lose trust in one.
var quoteAttacks = []attack{
	{"a quote of the attacker's own enclave under a policy", func(a *attacker) bool {
		q := a.quoter()
		id, _ := a.uploads(a.alice, q.report.MREnclave, q.report.MRSigner)
		mine := q.quote(a.t, func(r *quote.Report) { r.MREnclave = [32]byte{66} })
		return a.judged(0, mine, q.stated(a.t), id)
	}},
	{"the right code signed by the attacker under a policy", func(a *attacker) bool {
		q := a.quoter()
		id, _ := a.uploads(a.alice, q.report.MREnclave, q.report.MRSigner)
		mine := q.quote(a.t, func(r *quote.Report) { r.MRSigner = [32]byte{66} })
		return a.judged(0, mine, q.stated(a.t), id)
	}},
	{"a debug enclave, whose memory the host reads", func(a *attacker) bool {
		q := a.quoter()
		open := q.quote(a.t, func(r *quote.Report) { r.Attributes.Flags |= quote.FlagDebug })
		return a.judged(0, open, q.stated(a.t))
	}},
	{"a quote with another report in it", func(a *attacker) bool {
		q := a.quoter()
		forged := q.quote(a.t)
		copy(forged[48+64:], make([]byte, 32)) // MRENCLAVE
		return a.judged(0, forged, q.stated(a.t))
	}},
	{"a quote over the limit", func(a *attacker) bool {
		code, message := a.gets(0, "VerifyQuote", a.alice.body(verifying(make([]byte, 8193))))
		return code != codeBad || message != "The quote's length is invalid."
	}},
	{"bob's policy in place of alice's", func(a *attacker) bool {
		q := a.quoter()
		id, name := a.uploads(a.alice, [32]byte{1}, [32]byte{2})
		_, bobs := a.uploads(a.bob, q.report.MREnclave, q.report.MRSigner)
		w := a.rows[bobs]
		w.ID = name
		a.rows[name] = w
		return a.judged(a.start(), q.quote(a.t), q.stated(a.t), id)
	}},
	{"another policy of alice in place of the one she names", func(a *attacker) bool {
		q := a.quoter()
		id, name := a.uploads(a.alice, [32]byte{1}, [32]byte{2})
		_, other := a.uploads(a.alice, q.report.MREnclave, q.report.MRSigner)
		w := a.rows[other]
		w.ID = name
		a.rows[name] = w
		return a.judged(a.start(), q.quote(a.t), q.stated(a.t), id)
	}},
	{"a policy of bob that alice names", func(a *attacker) bool {
		q := a.quoter()
		id, _ := a.uploads(a.bob, q.report.MREnclave, q.report.MRSigner)
		return a.judged(0, q.quote(a.t), q.stated(a.t), id)
	}},
	{"a policy that the store has lost", func(a *attacker) bool {
		q := a.quoter()
		id, name := a.uploads(a.alice, [32]byte{1}, [32]byte{2})
		delete(a.rows, name)
		return a.judged(a.start(), q.quote(a.t), q.stated(a.t), id)
	}},
	{"an altered policy", func(a *attacker) bool {
		q := a.quoter()
		id, name := a.uploads(a.alice, q.report.MREnclave, q.report.MRSigner)
		b, quoted := q.stated(a.t), q.quote(a.t)
		return a.altered(name, func(core int) bool { return a.judged(core, quoted, b, id) })
	}},
	{"a policy of the attacker's making", func(a *attacker) bool {
		q := a.quoter()
		id, name := a.uploads(a.alice, [32]byte{1}, [32]byte{2})
		elsewhere := newDomain(a.t)
		sealed, err := record.SealQuotePolicy(elsewhere.keys, record.Header{ID: name, Revision: 1}, record.QuotePolicy{
			Created: 1, MREnclave: q.report.MREnclave, MRSigner: q.report.MRSigner,
		})
		if err != nil {
			a.t.Fatal(err)
		}
		a.rows[name] = wire.Write{ID: name, Revision: 1, Sealed: sealed}
		return a.judged(a.start(), q.quote(a.t), q.stated(a.t), id)
	}},
	{"collateral of another fleet", func(a *attacker) bool {
		q := a.quoter()
		mine := newQuoter(a.t, q.Platform, noon2026)
		mine.terms.Platform = q.terms.Platform
		return a.judged(0, q.quote(a.t), mine.stated(a.t))
	}},
	{"a quote of another fleet, with its collateral", func(a *attacker) bool {
		mine := newQuoter(a.t, a.quoter().Platform, noon2026)
		return a.judged(0, mine.quote(a.t), mine.stated(a.t))
	}},
	{"collateral of another platform", func(a *attacker) bool {
		q := a.quoter()
		return a.judged(0, q.quote(a.t), q.stated(a.t, func(t *issue.Terms) { t.Platform.FMSPC[5] ^= 1 }))
	}},
	{"collateral that has expired", func(a *attacker) bool {
		q := a.quoter()
		quoted, stated := q.quote(a.t), q.stated(a.t)
		a.now = a.now.Add(40 * day)
		return a.judged(0, quoted, stated)
	}},
	{"revocation lists of last month with documents of today", func(a *attacker) bool {
		q := a.quoter()
		old := q.stated(a.t, func(t *issue.Terms) { t.Issued, t.Next = noon2026.Add(-40*day), noon2026.Add(-10*day) })
		c := q.stated(a.t, func(t *issue.Terms) { t.RevokedPCKs = []*big.Int{q.machine.PCK.Cert.SerialNumber} })
		c.RootCRL, c.PCKCRL = old.RootCRL, old.PCKCRL
		return a.judged(0, q.quote(a.t), c)
	}},
	{"a platform that is out of date", func(a *attacker) bool {
		q := a.quoter()
		return a.judged(0, q.quote(a.t), q.stated(a.t, func(t *issue.Terms) { t.Status = verify.OutOfDate }))
	}},
	{"collateral from before a TCB recovery", func(a *attacker) bool {
		q := a.quoter()
		quoted, older := q.quote(a.t), q.stated(a.t)
		if !a.judged(0, quoted, older) || !a.judged(0, quoted, q.stated(a.t, number(21))) {
			a.t.Fatal("preparation: the quote is not accepted")
		}
		return a.judged(0, quoted, older)
	}},
	{"collateral from before the platform was out of date", func(a *attacker) bool {
		q := a.quoter()
		quoted := q.quote(a.t)
		a.judged(0, quoted, q.stated(a.t, number(21), func(t *issue.Terms) { t.Status = verify.OutOfDate }))
		return a.judged(0, quoted, q.stated(a.t))
	}},
	{"collateral from before the platform was revoked", func(a *attacker) bool {
		q := a.quoter()
		quoted := q.quote(a.t)
		a.judged(0, quoted, q.stated(a.t, number(21), func(t *issue.Terms) { t.Status = verify.Revoked }))
		return a.judged(0, quoted, q.stated(a.t))
	}},
	{"collateral from before the quoting enclave was revoked", func(a *attacker) bool {
		q := a.quoter()
		quoted := q.quote(a.t)
		a.judged(0, quoted, q.stated(a.t, number(21), func(t *issue.Terms) { t.QEStatus = verify.Revoked }))
		return a.judged(0, quoted, q.stated(a.t))
	}},
	{"forged collateral of the future, so that genuine collateral counts as old", func(a *attacker) bool {
		q := a.quoter()
		quoted := q.quote(a.t)
		mine := newQuoter(a.t, q.Platform, noon2026)
		mine.terms.Platform = q.terms.Platform
		for _, edit := range []func(*issue.Terms){func(*issue.Terms) {}, func(t *issue.Terms) { t.Status = verify.Revoked }} {
			a.judged(0, quoted, mine.stated(a.t, number(1000), edit))
			a.judged(0, mine.quote(a.t), mine.stated(a.t, number(1000), edit))
			forged := q.stated(a.t, edit)
			forged.TCBInfo = mine.stated(a.t, number(1000), edit).TCBInfo
			a.judged(0, quoted, forged)
		}
		return !a.judged(0, quoted, q.stated(a.t))
	}},
	{"a simulated quote in a domain that does not allow them", func(a *attacker) bool {
		q := a.quoter()
		a.domain.settings.SimRoot = nil
		return a.judged(a.start(), q.quote(a.t), q.stated(a.t))
	}},
	{"a simulated root in the genesis of a domain that does not allow it", func(a *attacker) bool {
		s := a.domain.settings
		s.AllowSim = false
		_, err := New(Config{Platform: hardware{a.quoter()}, Keys: a.domain.keys, Settings: s})
		return err == nil
	}},
	{"a root of the attacker that passes for Intel's", func(a *attacker) bool {
		s := a.domain.settings
		s.SimRoot = verify.IntelRoot().Raw
		_, err := New(Config{Platform: a.quoter(), Keys: a.domain.keys, Settings: s})
		return err == nil
	}},
	{"a verdict for bob shown to alice", func(a *attacker) bool {
		q := a.quoter()
		a.serves(q.stated(a.t))
		r := a.must(0, a.bob, "VerifyQuote", verifying(q.quote(a.t)))
		return r.text("sign") == signedVerdict(a.alice, r)
	}},
}
