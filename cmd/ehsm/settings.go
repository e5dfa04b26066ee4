package main

import (
	"cmp"
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// settings are what flags, environment and profile say together. The profile is
// consulted for what they leave open: address and TLS settings come from one
// place, and so do app id and API key.
func (a *app) settings() (ehsm.Config, error) {
	p, err := a.selected()
	if err != nil {
		return ehsm.Config{}, err
	}
	insecure, err := a.insecure()
	if err != nil {
		return ehsm.Config{}, err
	}
	if url := cmp.Or(a.url, a.getenv("EHSM_ADDR"), a.getenv("EHSM_SERVER_URL")); url != "" && !sameService(url, p.URL) {
		// How to know the profile's server says nothing about another one.
		p.URL, p.Fingerprint, p.CAFile, p.Insecure = url, "", "", false
	}
	caFile, fingerprint := cmp.Or(a.caFile, a.getenv("EHSM_CA_FILE")), cmp.Or(a.fingerprint, a.getenv("EHSM_FINGERPRINT"))
	if caFile != "" || fingerprint != "" {
		p.CAFile, p.Fingerprint, p.Insecure = caFile, fingerprint, false
	}
	id, key := a.getenv("EHSM_APPID"), a.getenv("EHSM_APIKEY")
	if (id == "") != (key == "") {
		return ehsm.Config{}, usagef("EHSM_APPID and EHSM_APIKEY: got one of them, want both or none")
	}
	if id != "" {
		p.AppID, p.APIKey.APIKey = id, ehsm.NewAPIKey(key)
	}
	if p.APIKey.IsZero() {
		p.AppID = "" // of a profile that logs in
	}
	if p.URL == "" {
		return ehsm.Config{}, withHint(usagef("no service to call: no profile, --url or EHSM_ADDR"),
			"ehsm dev starts a service on this machine; ehsm enroll --url https://host:port registers with another")
	}
	return ehsm.Config{
		URL: p.URL, CAFile: p.CAFile, Fingerprint: p.Fingerprint, Insecure: p.Insecure || insecure,
		AppID: p.AppID, APIKey: p.APIKey.APIKey,
	}, nil
}

// sameService reports whether two addresses are of one service: some are given
// with the path of the API.
func sameService(a, b string) bool {
	base := func(s string) string { return strings.TrimSuffix(strings.TrimRight(s, "/"), api.Path) }
	return base(a) == base(b)
}

// domainOf returns the domain id that the profile knows for the service at an
// address, or "".
func (a *app) domainOf(url string) string {
	p, err := a.selected()
	if err != nil || !sameService(url, p.URL) {
		return ""
	}
	return p.Domain
}

// selected returns the profile that was named, or the default one. Only a named
// one must exist.
func (a *app) selected() (profile, error) {
	path, err := a.configPath()
	if err != nil {
		if a.profile != "" {
			return profile{}, err
		}
		return profile{}, nil
	}
	c, err := loadConfig(path)
	if err != nil {
		return profile{}, err
	}
	p, ok := c.Profiles[cmp.Or(a.profile, c.choose())]
	switch {
	case a.profile != "" && !ok:
		return p, usagef("no profile %q in %s, which has: %s", a.profile, path, cmp.Or(strings.Join(c.names(), ", "), "none"))
	case !ok && len(c.Profiles) > 0 && a.url+a.getenv("EHSM_ADDR")+a.getenv("EHSM_SERVER_URL") == "":
		return p, usagef("no profile %q in %s; choose one with --profile: %s", defaultProfile, path, strings.Join(c.names(), ", "))
	}
	return p, nil
}

// insecure reads EHSM_INSECURE.
func (a *app) insecure() (bool, error) {
	text := a.getenv("EHSM_INSECURE")
	if text == "" {
		return false, nil
	}
	on, err := strconv.ParseBool(text)
	if err != nil {
		return false, usagef("EHSM_INSECURE is %q, want 0 or 1", text)
	}
	return on, nil
}

// client returns a client as the settings say, which seals its requests if the
// profile pins domain and policy, and logs in if the profile is a workload's.
func (a *app) client() (*ehsm.Client, error) {
	cfg, err := a.settings()
	if err != nil {
		return nil, err
	}
	c, err := a.plainClient()
	if err != nil {
		return nil, err
	}
	p, err := a.selected()
	if err != nil {
		return nil, err
	}
	if p.Login != nil && cfg.AppID == "" && sameService(cfg.URL, p.URL) {
		c, _, err = a.logIn(context.Background(), c, p)
		return c, err
	}
	return a.seal(c, cfg.URL)
}

// plainClient returns a client for what is not sealed, with a warning if it does not
// authenticate the server.
func (a *app) plainClient() (*ehsm.Client, error) {
	cfg, err := a.settings()
	if err != nil {
		return nil, err
	}
	c, err := ehsm.New(cfg)
	if err != nil {
		return nil, usageError{fmt.Errorf("settings: %w", err)}
	}
	if cfg.Insecure && cfg.Fingerprint == "" && cfg.CAFile == "" {
		a.warn("insecure connection: the server is not authenticated")
	}
	return c, nil
}
