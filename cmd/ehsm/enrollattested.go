package main

import (
	"context"
	"errors"
	"net/http"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// maxToken is the longest file with an enrollment token, in bytes.
const maxToken = 4096

// attestedFlags say how to enroll with a token.
type attestedFlags struct {
	Pins
	token, label string
}

// enrollAttested enrolls with a token at a service that is verified before, and says
// in words what was verified.
func (a *app) enrollAttested(ctx context.Context, c *ehsm.Client, f attestedFlags) (ehsm.Credentials, error) {
	b, err := a.readLimited(ctx, f.token, maxToken)
	if err != nil {
		return ehsm.Credentials{}, err
	}
	defer clear(b)
	token, err := api.ParseEnrollToken(string(b))
	if err != nil {
		return ehsm.Credentials{}, err
	}
	v, err := a.verifierOf(ctx, f.Pins)
	if err != nil {
		return ehsm.Credentials{}, err
	}
	cred, report, err := v.Enroll(ctx, c, token, f.label)
	if report != nil {
		a.warn("verified before the token was sent:\n%s", report)
	}
	var refused *api.Error
	if errors.As(err, &refused) && refused.Code == http.StatusBadRequest {
		err = withHint(err, "the token is unknown, used, revoked or expired: an administrator makes another one")
	}
	return cred, err
}
