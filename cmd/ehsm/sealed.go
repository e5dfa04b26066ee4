package main

import (
	"cmp"
	"context"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// seal returns a client that seals its requests to the verified core, if the profile
// says how to know the service. Nothing is asked of it yet.
func (a *app) seal(c *ehsm.Client, url string) (*ehsm.Client, error) {
	p, err := a.selected()
	if err != nil {
		return nil, err
	}
	if a.plain || !p.complete() {
		return c, nil
	}
	if !sameService(url, p.URL) { // what the profile pins says nothing about another service
		a.warn("requests are not sealed: domain and policy of the profile are those of %s", p.URL)
		return c, nil
	}
	v, err := a.verifierOf(context.Background(), p.Pins)
	if err != nil {
		return nil, withHint(err, "--plain sends requests that the host of the service reads")
	}
	return v.Sealed(c), nil
}

// pin keeps in the profile what the service was verified with, so that requests are
// sealed from then on.
func (a *app) pin(url string, f serviceFlags) error {
	path, err := a.configPath()
	if err != nil {
		return err
	}
	c, err := loadConfig(path)
	if err != nil {
		return err
	}
	name := cmp.Or(a.profile, c.choose())
	p, ok := c.Profiles[name]
	if !ok || !sameService(url, p.URL) {
		return usagef("no profile %q of %s in %s", name, url, path)
	}
	if p.Pins, err = (Pins{Domain: f.domain, Policy: f.policy, Collateral: f.collateral, AllowSim: f.allowSim}).kept(); err != nil {
		return err
	}
	if err := saveProfile(path, name, p); err != nil {
		return err
	}
	a.sealsTo(name, p.Pins)
	return nil
}

// sealsTo says that requests with a profile are sealed from now on.
func (a *app) sealsTo(name string, p Pins) {
	a.warn("profile %q: requests are sealed to cores that %s accepts, of domain %s", name, p.program(), p.Domain)
}
