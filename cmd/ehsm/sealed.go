package main

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
)

// seal returns a client that seals its requests to the verified core, if the profile
// says how to know the service, domain and policy. Nothing is asked of it yet.
func (a *app) seal(c *ehsm.Client, url string) (*ehsm.Client, error) {
	p, err := a.selected()
	if err != nil {
		return nil, err
	}
	if a.plain || p.Policy == "" || p.Domain == "" {
		return c, nil
	}
	if !sameService(url, p.URL) { // what the profile pins says nothing about another service
		a.warn("requests are not sealed: domain and policy of the profile are those of %s", p.URL)
		return c, nil
	}
	v := &attested.Verifier{Now: time.Now}
	if v.Domain, err = attested.ParseDomain(strings.ToLower(p.Domain)); err != nil {
		return nil, usagef("domain of the profile: %v", err)
	}
	if v.Policy, err = a.policyOf(p.Policy); err != nil {
		return nil, err
	}
	return v.Sealed(c), nil
}

// policyOf reads the policy that a profile names.
func (a *app) policyOf(file string) (*attested.Policy, error) {
	info, err := os.Stat(file)
	if err == nil && info.Size() > maxPolicy {
		err = fmt.Errorf("it has %d bytes, limit %d", info.Size(), maxPolicy)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, withHint(fmt.Errorf("read the policy of the profile: %w", err), "--plain sends requests that the host of the service reads")
	}
	policy, err := attested.ParsePolicy(b)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", file, err)
	}
	for _, w := range policy.Warnings() {
		a.warn("policy: %s", w)
	}
	return policy, nil
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
	if p.Policy, err = filepath.Abs(f.policy); err != nil {
		return err
	}
	p.Domain = strings.ToLower(f.domain)
	if err := saveProfile(path, name, p); err != nil {
		return err
	}
	a.warn("profile %q: requests are sealed to cores that %s accepts, of domain %s", name, p.Policy, p.Domain)
	return nil
}
