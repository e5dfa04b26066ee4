package main

import (
	"context"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// maxToken is the longest file with an enrollment token, in bytes.
const maxToken = 4096

// attestedFlags say how to enroll with a token.
type attestedFlags struct {
	serviceFlags
	token, label string
}

// enrollAttested enrolls with a token at a service that is verified before, and says
// in words what was verified.
func (a *app) enrollAttested(ctx context.Context, c *ehsm.Client, f attestedFlags) (ehsm.Credentials, error) {
	if f.domain == "" || f.policy == "" {
		return ehsm.Credentials{}, withHint(usagef("--token needs --domain and --policy"), "ehsm attest verify shows what the service runs, and a policy for it")
	}
	b, err := a.readLimited(ctx, f.token, maxToken)
	if err != nil {
		return ehsm.Credentials{}, err
	}
	defer clear(b)
	token, err := api.ParseEnrollToken(string(b))
	if err != nil {
		return ehsm.Credentials{}, err
	}
	v, err := a.verifier(ctx, f.serviceFlags)
	if err != nil {
		return ehsm.Credentials{}, err
	}
	cred, report, err := v.Enroll(ctx, c, token, f.label)
	if report != nil {
		a.warn("verified before the token was sent:\n%s", report)
	}
	return cred, err
}
