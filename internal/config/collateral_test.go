package config

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"
)

func loadCollateral(pairs ...string) (Collateral, error) {
	k, err := LoadKMS(env(append([]string{"EHSM_KMS_TLS_CERT", "/c", "EHSM_KMS_TLS_KEY", "/k"}, pairs...)...))
	return k.Collateral, err
}

func TestCollateralSettings(t *testing.T) {
	common := Collateral{Source: "none", Dir: "/var/lib/ehsm/collateral", Refresh: 24 * time.Hour}
	with := func(change func(*Collateral)) Collateral { c := common; change(&c); return c }
	for name, row := range map[string]struct {
		env  []string
		want Collateral
	}{
		"default":      {nil, common},
		"Intel's":      {[]string{"EHSM_KMS_COLLATERAL", "pcs"}, with(func(c *Collateral) { c.Source = "pcs" })},
		"with a key":   {[]string{"EHSM_KMS_COLLATERAL", "pcs", "EHSM_KMS_COLLATERAL_API_KEY_FILE", "/k"}, with(func(c *Collateral) { c.Source, c.APIKeyFile = "pcs", "/k" })},
		"one's own":    {[]string{"EHSM_KMS_COLLATERAL", "pccs", "EHSM_KMS_COLLATERAL_URL", "https://p", "EHSM_KMS_COLLATERAL_CA_FILE", "/ca"}, with(func(c *Collateral) { c.Source, c.URL, c.CAFile = "pccs", "https://p", "/ca" })},
		"a file":       {[]string{"EHSM_KMS_COLLATERAL", "bundle", "EHSM_KMS_COLLATERAL_BUNDLE", "/b"}, with(func(c *Collateral) { c.Source, c.Bundle = "bundle", "/b" })},
		"early, often": {[]string{"EHSM_KMS_COLLATERAL_UPDATE", "early", "EHSM_KMS_COLLATERAL_REFRESH", "1h", "EHSM_KMS_COLLATERAL_DIR", "/d"}, with(func(c *Collateral) { c.Early, c.Refresh, c.Dir = true, time.Hour, "/d" })},
	} {
		if got, err := loadCollateral(row.env...); err != nil || got != row.want {
			t.Errorf("%s: got %+v, %v, want %+v", name, got, err, row.want)
		}
	}
	for _, key := range []string{"collateral", "collateral_url", "collateral_api_key_file", "collateral_dir"} {
		if !slices.Contains(KMSKeys(), key) {
			t.Errorf("the file may not have %s", key)
		}
	}
}

func TestCollateralRefusals(t *testing.T) {
	for name, row := range map[string]struct {
		env  []string
		want string
	}{
		"unknown source":       {[]string{"EHSM_KMS_COLLATERAL", "intel"}, "want one of none, pcs, pccs, bundle"},
		"no PCCS":              {[]string{"EHSM_KMS_COLLATERAL", "pccs"}, "EHSM_KMS_COLLATERAL_URL is not set; name the PCCS"},
		"no file":              {[]string{"EHSM_KMS_COLLATERAL", "bundle"}, "EHSM_KMS_COLLATERAL_BUNDLE is not set"},
		"URL, no source":       {[]string{"EHSM_KMS_COLLATERAL_URL", "https://p"}, "EHSM_KMS_COLLATERAL is none; it is for pcs or pccs"},
		"URL and a file":       {[]string{"EHSM_KMS_COLLATERAL", "bundle", "EHSM_KMS_COLLATERAL_BUNDLE", "/b", "EHSM_KMS_COLLATERAL_URL", "https://p"}, "EHSM_KMS_COLLATERAL_URL is set, but"},
		"file and a service":   {[]string{"EHSM_KMS_COLLATERAL", "pcs", "EHSM_KMS_COLLATERAL_BUNDLE", "/b"}, "it is for bundle"},
		"key for a PCCS":       {[]string{"EHSM_KMS_COLLATERAL", "pccs", "EHSM_KMS_COLLATERAL_URL", "https://p", "EHSM_KMS_COLLATERAL_API_KEY_FILE", "/k"}, "it is for pcs"},
		"CA file, no source":   {[]string{"EHSM_KMS_COLLATERAL_CA_FILE", "/ca"}, "EHSM_KMS_COLLATERAL_CA_FILE is set"},
		"unknown update":       {[]string{"EHSM_KMS_COLLATERAL_UPDATE", "never"}, "want one of standard, early"},
		"refreshed too often":  {[]string{"EHSM_KMS_COLLATERAL_REFRESH", "1s"}, "want at least 1m"},
		"refreshed backwards":  {[]string{"EHSM_KMS_COLLATERAL_REFRESH", "-1h"}, "want a duration"},
		"refresh is a number":  {[]string{"EHSM_KMS_COLLATERAL_REFRESH", "24"}, "want a duration"},
		"source in upper case": {[]string{"EHSM_KMS_COLLATERAL", "PCS"}, "want one of"},
	} {
		if got, err := loadCollateral(row.env...); !errors.Is(err, ErrSetting) || !strings.Contains(err.Error(), row.want) {
			t.Errorf("%s: got %+v, %v, want %q", name, got, err, row.want)
		}
	}
}
