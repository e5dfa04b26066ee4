package ehsm

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
)

var (
	// ErrQuoteBinding says that a quote of GenerateQuote does not bind what it
	// must: the challenge, the domain and the HPKE key beside it.
	ErrQuoteBinding = errors.New("quote does not bind the challenge")
	// ErrVerdict says that a verdict of VerifyQuote does not carry a signature
	// under the API key, or is about something else.
	ErrVerdict = errors.New("verdict on the quote is not signed with the API key")
	// ErrNoQuotePolicy says that the tenant has no such quote policy.
	ErrNoQuotePolicy = errors.New("no such quote policy")
)

// GenerateQuote has the core's platform make a quote over a challenge of 1 to
// api.MaxChallenge bytes, which should be random and used once. What it checks is
// that an SGX quote binds the challenge, and domain and HPKE key as the result
// states them: ErrQuoteBinding. It does not verify the quote; see package
// attested.
func (c *Client) GenerateQuote(ctx context.Context, challenge []byte) (api.GenerateQuoteResult, error) {
	var res api.GenerateQuoteResult
	err := c.call(ctx, api.GenerateQuote, true, api.GenerateQuoteRequest{Challenge: challenge}, &res)
	if err == nil && len(res.Quote) == 0 {
		err = missing(api.GenerateQuote, "quote")
	}
	if err == nil {
		err = checkBinding(&res, challenge)
	}
	if err != nil {
		return api.GenerateQuoteResult{}, err
	}
	return res, nil
}

// Where an SGX quote of version 3 has its version and REPORTDATA.
const (
	sgxVersion      = 3
	reportDataStart = 48 + 320
	reportDataEnd   = reportDataStart + 64
)

// checkBinding compares what an SGX quote binds with what the result says. Quotes
// of other kinds have it elsewhere and are for their verifiers to read.
func checkBinding(res *api.GenerateQuoteResult, challenge []byte) error {
	domain, err := hex.DecodeString(res.DomainID)
	switch {
	case !bytes.Equal(res.Challenge, challenge):
		return fmt.Errorf("%s: %w: it is about another challenge", api.GenerateQuote, ErrQuoteBinding)
	case res.ReportDataBinding != api.BindingNative:
		return fmt.Errorf("%s: %w: binding %q is unknown", api.GenerateQuote, ErrQuoteBinding, res.ReportDataBinding)
	case err != nil || len(domain) != sha256.Size:
		return fmt.Errorf("%s: %w: domain id %q is none", api.GenerateQuote, ErrQuoteBinding, res.DomainID)
	case len(res.Quote) < reportDataEnd || binary.LittleEndian.Uint16(res.Quote) != sgxVersion:
		return nil
	}
	first := sha256.Sum256(challenge)
	second := sha256.Sum256(bytes.Join([][]byte{[]byte(api.BindingNative), domain, res.HPKEPublicKey}, nil))
	if !hmac.Equal(res.Quote[reportDataStart:reportDataEnd], append(first[:], second[:]...)) {
		return fmt.Errorf("%s: %w", api.GenerateQuote, ErrQuoteBinding)
	}
	return nil
}

// VerifyQuote asks the service whether an SGX quote of at most api.MaxQuote bytes
// is genuine, of a platform whose TCB the domain accepts and, if policyID is not
// "", of the enclave that the policy names. Every other verdict is an error:
// IsQuoteRefused. The verdict is signed under the API key over a fresh nonce,
// which is checked: ErrVerdict. What the quote binds the caller must check.
func (c *Client) VerifyQuote(ctx context.Context, quote []byte, policyID string) (api.VerifyQuoteResult, error) {
	nonce := make([]byte, 32)
	rand.Read(nonce) // never fails
	var raw json.RawMessage
	err := c.call(ctx, api.VerifyQuote, true, api.VerifyQuoteRequest{Quote: quote, Nonce: nonce, PolicyID: policyID}, &raw)
	if err != nil {
		return api.VerifyQuoteResult{}, err
	}
	res, err := c.verdict(raw, nonce)
	if err != nil {
		return api.VerifyQuoteResult{}, fmt.Errorf("%s: %w", api.VerifyQuote, err)
	}
	return res, nil
}

// verdict reads a result of VerifyQuote. The signature is checked over the text
// that came, not over what was read of it.
func (c *Client) verdict(raw []byte, nonce []byte) (res api.VerifyQuoteResult, err error) {
	tree, err := canon.Parse(raw)
	if err == nil {
		err = json.Unmarshal(raw, &res)
	}
	if err != nil {
		return res, fmt.Errorf("%w: %w", ErrReply, err)
	}
	switch {
	case c.pair == nil && c.session == nil && !hmac.Equal(c.verdictMAC(tree), res.Sign): // a key pair's is under the reply's signature
		return res, ErrVerdict
	case !res.Result || !bytes.Equal(res.Nonce, nonce):
		return res, fmt.Errorf("%w: it is not the answer to this request", ErrVerdict)
	case len(res.MREnclave) != hex.EncodedLen(sha256.Size) || len(res.MRSigner) != hex.EncodedLen(sha256.Size):
		return res, fmt.Errorf("%w: no mr_enclave or mr_signer", ErrReply)
	}
	return res, nil
}

// verdictMAC is what the service signs a verdict with for the holder of an API key.
func (c *Client) verdictMAC(tree canon.Value) []byte {
	mac := hmac.New(sha256.New, c.apiKey.get().text)
	mac.Write(tree.Without("sign").AppendCanonicalObject(nil, canon.Skipping))
	return mac.Sum(nil)
}

// A QuotePolicy says which enclave the quotes of VerifyQuote must be of.
type QuotePolicy struct {
	ID        string
	MREnclave [32]byte
	MRSigner  [32]byte
	Created   time.Time
}

// UploadQuotePolicy stores a policy, which never changes, and returns its id.
func (c *Client) UploadQuotePolicy(ctx context.Context, mrEnclave, mrSigner [32]byte) (policyID string, err error) {
	var res api.UploadQuotePolicyResult
	err = c.call(ctx, api.UploadQuotePolicy, false, api.UploadQuotePolicyRequest{
		MREnclave: hex.EncodeToString(mrEnclave[:]), MRSigner: hex.EncodeToString(mrSigner[:]),
	}, &res)
	if err == nil && res.PolicyID == "" {
		err = missing(api.UploadQuotePolicy, "policyId")
	}
	return res.PolicyID, err
}

// GetQuotePolicy returns a policy, or ErrNoQuotePolicy.
func (c *Client) GetQuotePolicy(ctx context.Context, policyID string) (QuotePolicy, error) {
	var res api.GetQuotePolicyResult
	if err := c.call(ctx, api.GetQuotePolicy, true, api.GetQuotePolicyRequest{PolicyID: policyID}, &res); err != nil {
		return QuotePolicy{}, err
	}
	switch {
	case res.PolicyID != policyID:
		return QuotePolicy{}, fmt.Errorf("%s: %w: it is another policy", api.GetQuotePolicy, ErrReply)
	case res.MREnclave == "" && res.MRSigner == "":
		return QuotePolicy{}, fmt.Errorf("%s: %w", api.GetQuotePolicy, ErrNoQuotePolicy)
	}
	p := QuotePolicy{ID: res.PolicyID, Created: time.UnixMilli(res.CreateTime)}
	for _, hash := range []struct {
		text string
		out  *[32]byte
	}{{res.MREnclave, &p.MREnclave}, {res.MRSigner, &p.MRSigner}} {
		b, err := hex.DecodeString(hash.text)
		if err != nil || copy(hash.out[:], b) != len(b) || len(b) != len(hash.out) {
			return QuotePolicy{}, fmt.Errorf("%s: %w: %q is no hash", api.GetQuotePolicy, ErrReply, hash.text)
		}
	}
	return p, nil
}

// IsQuoteRefused reports whether VerifyQuote did not accept the quote: it is not
// genuine, not wanted, or no collateral was there to judge it. The service does
// not say which; its audit trail does.
func IsQuoteRefused(err error) bool {
	return refused(err, api.MessageException, api.MessageQuoteLength)
}

// IsQuotePolicyNotFound reports whether the tenant has no such quote policy.
func IsQuotePolicyNotFound(err error) bool {
	return errors.Is(err, ErrNoQuotePolicy) || refused(err, api.MessageQuotePolicy)
}
