package attested

import (
	"context"
	"crypto/hpke"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// enrollAttempts is how often an enrollment is begun: behind a load balancer the
// second request may come to another instance than the first.
const enrollAttempts = 8

// Enroll verifies the service and then makes an app there with a token, which nobody
// but the verified core sees, as little as the API key that comes back. The label, up
// to api.MaxEnrollLabel bytes of printable ASCII, says what the credential is for. The
// report tells what was verified. Errors: as of Verify, those of the service, and
// api.ErrEnroll for a reply that the core has not made.
func (v *Verifier) Enroll(ctx context.Context, c *ehsm.Client, token api.EnrollToken, label string) (ehsm.Credentials, *Report, error) {
	if token.IsZero() {
		return ehsm.Credentials{}, nil, &Error{ErrConfig, "configuration", errors.New("no enrollment token")}
	}
	for n := 1; ; n++ {
		report, err := v.Verify(ctx, c)
		if err != nil {
			return ehsm.Credentials{}, nil, err
		}
		cred, err := enrollAt(ctx, c, report, token, label)
		var refused *api.Error
		if errors.As(err, &refused) && refused.Code == api.CodeMisdirected && n < enrollAttempts {
			continue
		}
		return cred, report, err
	}
}

// enrollAt enrolls at the instance of a report.
func enrollAt(ctx context.Context, c *ehsm.Client, r *Report, token api.EnrollToken, label string) (cred ehsm.Credentials, err error) {
	instance, err := parseInstance(r.Instance)
	if err != nil {
		return cred, err
	}
	kem := hpke.MLKEM768X25519()
	core, err := kem.NewPublicKey(r.HPKEPublicKey)
	if err != nil {
		return cred, err
	}
	own, err := kem.GenerateKey()
	if err != nil {
		return cred, err
	}
	enc, s, err := hpke.NewSender(core, hpke.HKDFSHA256(), hpke.AES256GCM(), api.EnrollInfo(r.DomainID, instance))
	if err != nil {
		return cred, err
	}
	ask := api.EnrollAsk{Token: *token.Bytes(), PublicKey: [api.EnrollKeySize]byte(own.PublicKey().Bytes()), Label: label}
	text := ask.Append(nil)
	defer clear(text)
	sealed, err := s.Seal(nil, text)
	if err != nil {
		return cred, err
	}
	secret, err := s.Export(api.EnrollReplyExport, 32)
	if err != nil {
		return cred, err
	}
	res, err := c.EnrollFinish(ctx, api.EnrollFinishRequest{InstanceID: r.Instance, Enc: enc, Ciphertext: sealed})
	if err != nil {
		return cred, err
	}
	return openGrant(own, api.EnrollReplyInfo(r.DomainID, instance, secret), &res)
}

// openGrant reads the reply, which only the core that opened the request can make.
func openGrant(own hpke.PrivateKey, info []byte, res *api.EnrollFinishResult) (cred ehsm.Credentials, err error) {
	c, err := hpke.NewRecipient(res.Enc, own, hpke.HKDFSHA256(), hpke.AES256GCM(), info)
	if err != nil {
		return cred, fmt.Errorf("%w: reply: %w", api.ErrEnroll, err)
	}
	text, err := c.Open(nil, res.Ciphertext)
	if err != nil {
		return cred, fmt.Errorf("%w: reply: %w", api.ErrEnroll, err)
	}
	defer clear(text)
	g, err := api.DecodeEnrollGrant(text)
	if err != nil {
		return cred, err
	}
	b := g.AppID[:]
	return ehsm.Credentials{
		AppID:  fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:]),
		APIKey: ehsm.NewAPIKey(string(g.APIKey)),
	}, nil
}
