package core

import (
	"encoding/base64"
	"encoding/hex"
	"slices"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// coding is the payload for a rule about the quoter's enclave, by its measurement.
func coding(name string, q *quoter, more m) m {
	p := m{"issuer": nil, "audience": nil, "subject": nil, "jwks": nil, "kind": "quote", "mrEnclave": hex.EncodeToString(q.report.MREnclave[:])}
	for k, v := range more {
		p[k] = v
	}
	return loginRule(name, p)
}

// challenged asks the core for a challenge.
func (w *workload) challenged() (c [32]byte) {
	w.h.t.Helper()
	r := parseReply(w.h.t, w.h.call(w.core, &wire.Call{Action: api.LoginChallenge, Body: []byte("{}")}))
	b, err := base64.StdEncoding.DecodeString(r.text("challenge"))
	if err != nil || len(b) != len(c) || r.text("instanceId") != wire.UUID(w.info.Instance).String() {
		w.h.t.Fatalf("challenge: %+v, %v", r, err)
	}
	return [32]byte(b)
}

// bound is the report data that a client's quote must have.
func (w *workload) bound() [64]byte {
	return attest.ReportData(attest.UseLogin, w.info.Domain, w.ask.Tenant[:], w.info.Instance[:], w.ask.Challenge[:], api.LoginKey(w.ask.Kind, w.ask.PublicKey))
}

// quoted sends a quote over a challenge, changed by edits.
func (w *workload) quoted(q *quoter, edits ...func(*quote.Report)) reply {
	w.h.t.Helper()
	bind := func(r *quote.Report) { r.ReportData = w.bound() }
	w.ask.JWT, w.ask.Quote = nil, q.quote(w.h.t, append([]func(*quote.Report){bind}, edits...)...)
	return w.send(w.message(w.ask.Append(nil)))
}

func TestLoginQuote(t *testing.T) {
	h, _, q := newQuoteHost(t)
	alice := h.enroll()
	alice.mustDo(api.PutLoginRule, coding("code", q, nil))
	w := h.workload(alice, 0)
	w.ask.Challenge = w.challenged()
	r := w.quoted(q)
	want(t, "login", r, 200, "successful")
	g, err := w.opened(r)
	if err != nil {
		t.Fatal(err)
	}
	want(t, "use", w.holds(g.Token).lists(0), 200, "successful")
	want(t, "challenge twice", w.quoted(q), 400, api.MessageLogin)

	alice.mustDo(api.PutLoginRule, coding("code", q, m{
		"mrEnclave": nil, "mrSigner": hex.EncodeToString(q.report.MRSigner[:]), "isvProdId": 3, "minIsvSvn": 4}))
	w.ask.Challenge = w.challenged()
	want(t, "by its signer", w.quoted(q, func(r *quote.Report) { r.MREnclave[0] ^= 1; r.ISVSVN = 5 }), 200, "successful")
	want(t, "GET", parseReply(t, h.call(0, &wire.Call{Action: api.LoginChallenge, Get: true})), 404, "API Not Found")
}

func TestLoginQuoteRefused(t *testing.T) {
	h, d, q := newQuoteHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	alice := h.enroll()
	alice.mustDo(api.PutLoginRule, coding("code", q, nil))
	alice.mustDo(api.PutLoginRule, coding("signed", q, m{"mrEnclave": nil, "mrSigner": hex.EncodeToString(q.report.MRSigner[:]), "isvProdId": 7, "minIsvSvn": 9}))
	alice.mustDo(api.PutLoginRule, loginRule("web"))
	w := h.workload(alice, 0)
	none := func(*quote.Report) {}
	other := func(r *quote.Report) { r.MREnclave[0] ^= 1 }
	for _, row := range []struct {
		name   string
		edit   func(*quote.Report)
		reason string
	}{
		{"other enclave", other, "quote of another enclave"},
		{"other product of the signer", func(r *quote.Report) { other(r); r.ISVProdID, r.ISVSVN = 8, 9 }, "quote of another enclave"},
		{"older version of the signer's", func(r *quote.Report) { other(r); r.ISVProdID, r.ISVSVN = 7, 8 }, "quote of another enclave"},
		{"other signer", func(r *quote.Report) { other(r); r.ISVProdID, r.ISVSVN = 7, 9; r.MRSigner[0] ^= 1 }, "quote of another enclave"},
		{"debug", func(r *quote.Report) { r.Attributes.Flags |= quote.FlagDebug }, "quote of a debug enclave"},
		{"binds nothing", func(r *quote.Report) { r.ReportData = [64]byte{} }, "quote binds something else"},
		{"binds another key", func(r *quote.Report) {
			b := *w
			b.ask.PublicKey = make([]byte, 32)
			r.ReportData = b.bound()
		}, "quote binds something else"},
		{"binds another tenant", func(r *quote.Report) {
			b := *w
			b.ask.Tenant[0] ^= 1
			r.ReportData = b.bound()
		}, "quote binds something else"},
		{"binds another instance", func(r *quote.Report) {
			b := *w
			b.info.Instance[0] ^= 1
			r.ReportData = b.bound()
		}, "quote binds something else"},
		{"binds another challenge", func(r *quote.Report) {
			b := *w
			b.ask.Challenge[0] ^= 1
			r.ReportData = b.bound()
		}, "quote binds something else"},
	} {
		w.ask.Challenge = w.challenged()
		want(t, row.name, w.quoted(q, row.edit), 400, api.MessageLogin)
		h.wantReason(t, row.name, row.reason)
	}
	w.ask.Challenge = w.challenged()
	w.ask.Challenge[31] ^= 1
	want(t, "challenge of nobody", w.quoted(q, none), 400, api.MessageLogin)
	h.wantReason(t, "challenge of nobody", "challenge of nobody")
	w.core = 1
	elsewhere := w.challenged
	w.info.Instance = h.cores[1].info.Instance
	w.ask.Challenge = elsewhere()
	w.core, w.info.Instance = 0, h.cores[0].info.Instance
	want(t, "challenge of another instance", w.quoted(q, none), 400, api.MessageLogin)
	h.wantReason(t, "challenge of another instance", "challenge of nobody")
	w.ask.Challenge = w.challenged()
	h.serves(q.stated(t, func(terms *issue.Terms) { terms.Status = verify.OutOfDate }))
	want(t, "out of date", w.quoted(q, none), 400, api.MessageLogin)
	h.wantReason(t, "out of date", "TCB status is not accepted")
	h.collate = nil
	want(t, "no collateral", w.quoted(q, none), 400, api.MessageLogin)
	h.wantReason(t, "no collateral", "no collateral for the quote")
	h.serves(q.stated(t))
	want(t, "the challenge is still good", w.quoted(q, none), 200, "successful")
	w.ask.Challenge = w.challenged()
	h.now = h.now.Add(2 * time.Minute)
	want(t, "late", w.quoted(q, none), 400, api.MessageLogin)
	h.wantReason(t, "late", "challenge has expired")
	stranger := newQuoter(t, d.platform, noon2026)
	w.ask.Challenge = w.challenged()
	want(t, "other root", w.quoted(stranger, none), 400, api.MessageLogin)
	h.wantReason(t, "other root", "quote of an unknown root")
	w.ask.JWT, w.ask.Quote = nil, []byte("no quote")
	want(t, "no quote", w.send(w.message(w.ask.Append(nil))), 400, api.MessageLogin)
	h.wantReason(t, "no quote", "quote is malformed")
	for _, name := range []string{"code", "signed"} {
		alice.mustDo(api.DeleteLoginRule, withAction(api.DeleteLoginRule, m{"name": name}))
	}
	h.collate = func(wire.CollateralQuery) []byte {
		t.Error("the host is asked for collateral")
		return nil
	}
	w.ask.Challenge = w.challenged()
	want(t, "no rule for quotes", w.quoted(q, none), 400, api.MessageLogin)
	h.wantReason(t, "no rule for quotes", "no rule for quotes")
}

// wantReason looks into the last audit entry.
func (h *host) wantReason(t *testing.T, what, reason string) {
	t.Helper()
	all := slices.DeleteFunc(h.entries(t), func(e trail.Entry) bool { return e.Kind != trail.Request })
	if last := all[len(all)-1]; last.Reason != reason || last.Tenant != (wire.UUID{}) {
		t.Errorf("%s: got entry %+v, want reason %q and no tenant", what, last, reason)
	}
}
