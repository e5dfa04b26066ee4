package core

import (
	"context"
	"encoding/base64"
	"encoding/hex"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

const (
	// quoteTime is how long the platform may take for a quote.
	quoteTime = 10 * time.Second
	// How many quotes may be under way at once, for tenants and for strangers;
	// further ones are refused. A platform makes them one after the other, in up
	// to hundreds of milliseconds each.
	maxTenantQuotes   = 8
	maxStrangerQuotes = 4
)

// maxChallenge is the longest challenge, in characters of base64.
const maxChallenge = 4096

// quoteActions are the actions of remote attestation.
func quoteActions() []*action {
	return []*action{
		{name: "GenerateQuote", run: (*request).generateQuote, members: []member{base64Member("challenge", maxChallenge)}},
		{name: "VerifyQuote", run: (*request).verifyQuote, members: []member{
			base64Member("quote", maxQuoteText), base64Member("nonce", maxChallenge), keyIDMember("policyId").opt()}},
		{name: "UploadQuotePolicy", mutates: true, run: (*request).uploadQuotePolicy, members: []member{
			hashMember("mr_enclave"), hashMember("mr_signer")}},
		{name: "GetQuotePolicy", run: (*request).getQuotePolicy, members: []member{keyIDMember("policyId")}},
	}
}

// quoting has the platform make evidence, a bounded number at a time, so that
// neither a tenant nor a stranger can have everybody else wait for it.
type quoting struct {
	attester           tee.Attester // nil on a platform without evidence
	tenants, strangers chan struct{}
}

func newQuoting(p tee.Platform) *quoting {
	attester, _ := p.(tee.Attester)
	return &quoting{attester, make(chan struct{}, maxTenantQuotes), make(chan struct{}, maxStrangerQuotes)}
}

// evidence binds reportData, in one of the places of slots.
func (q *quoting) evidence(ctx context.Context, slots chan struct{}, reportData [64]byte) (attest.Evidence, error) {
	if q.attester == nil {
		return attest.Evidence{}, errServer("platform without evidence")
	}
	select {
	case slots <- struct{}{}:
	default:
		return attest.Evidence{}, errTooMany()
	}
	defer func() { <-slots }()
	ctx, cancel := context.WithTimeout(ctx, quoteTime)
	defer cancel()
	e, err := q.attester.Evidence(ctx, reportData)
	if err != nil || len(e.Quote) == 0 || len(e.Quote) > attest.MaxQuote {
		return attest.Evidence{}, errServer("platform gives no evidence")
	}
	return e, nil
}

// generateQuote makes evidence for a tenant. It binds nothing but the challenge,
// which it hashes, and who this core is: no caller chooses what a quote says.
func (x *request) generateQuote() (result, error) {
	c := x.core
	key := x.instanceKey()
	binding := attest.NativeReportData(x.payload.bytes("challenge"), c.keys.Domain(), key.public[:])
	e, err := c.quoting.evidence(x.ctx, c.quoting.tenants, binding)
	if err != nil {
		x.takeBack() // the client may send the request again
		return result{}, err
	}
	o := object{}.text("challenge", x.payload.text("challenge")).base64("quote", e.Quote)
	return result{textSuccess, x.identify(o.text("reportDataBinding", api.BindingNative), key).end()}, nil
}

// identify adds to a result what both bindings have.
func (x *request) identify(o object, k *instanceKey) object {
	domain := x.core.keys.Domain()
	return o.text("domainId", hex.EncodeToString(domain[:])).base64("hpkePublicKey", k.public[:])
}

// instanceKey returns the HPKE key that new evidence binds.
func (x *request) instanceKey() *instanceKey {
	return x.core.instance.at(x.now, x.core.terms.Load().window*1000)
}

// getEvidence makes evidence for anybody who wants to verify this core before
// sending anything to it. The body of the call is the challenge in base64url.
func (x *request) getEvidence() (result, error) {
	text := string(x.call.Body)
	challenge, err := evidenceChallenge(text)
	if err != nil {
		return result{}, err
	}
	c := x.core
	id, key := c.info.Instance, x.instanceKey()
	binding := attest.ReportData(attest.UseInstanceKeys, c.keys.Domain(), []byte(api.RoleCore), challenge, id[:], key.public[:], c.reply.public)
	e, err := c.quoting.evidence(x.ctx, c.quoting.strangers, binding)
	if err != nil {
		return result{}, err
	}
	o := object{}.text("challenge", text).base64("evidence", e.Append(nil)).text("role", api.RoleCore).text("instanceId", id.String())
	o = x.identify(o, key).base64("replyKey", c.reply.public)
	return result{textSuccess, o.text("reportDataBinding", api.BindingInstanceKeys).end()}, nil
}

// evidenceChallenge reads 32 bytes in base64url without padding.
func evidenceChallenge(text string) ([]byte, error) {
	m := member{name: api.ChallengeParam}
	if text == "" {
		return nil, errEmpty(m.name)
	}
	if len(text) != base64.RawURLEncoding.EncodedLen(api.EvidenceChallenge) {
		return nil, m.invalid("length error.")
	}
	challenge, err := base64.RawURLEncoding.Strict().DecodeString(text)
	if err != nil || len(challenge) != api.EvidenceChallenge { // base64 skips line ends
		return nil, m.invalid("not a vailed base64 string.")
	}
	return challenge, nil
}
