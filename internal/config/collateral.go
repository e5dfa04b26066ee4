package config

import (
	"errors"
	"fmt"
	"strings"
	"time"
)

// Sources of collateral, what Intel says of SGX platforms.
const (
	CollateralNone   = "none"   // quotes cannot be verified
	CollateralPCS    = "pcs"    // Intel's Provisioning Certification Service
	CollateralPCCS   = "pccs"   // an operator's caching service for it
	CollateralBundle = "bundle" // a file
)

// Collateral says where collateral comes from.
type Collateral struct {
	Source     string // CollateralNone and so on
	URL        string // of a PCS or PCCS
	APIKeyFile string // with the subscription key for a PCS
	CAFile     string // PEM, vouches for the service's TLS certificate
	Bundle     string // file
	Dir        string // cache
	Refresh    time.Duration
	Early      bool // TCB info as soon as it is published
}

func (c *Collateral) table() []setting {
	return []setting{
		{"EHSM_KMS_COLLATERAL", CollateralNone, "where Intel's statements about SGX platforms come from: pcs, Intel's service; pccs, one's own; bundle, a file; none: VerifyQuote is refused", oneOf(&c.Source, CollateralNone, CollateralPCS, CollateralPCCS, CollateralBundle)},
		{"EHSM_KMS_COLLATERAL_URL", "", "https address of the PCCS, or of a PCS that is not Intel's", text(&c.URL)},
		{"EHSM_KMS_COLLATERAL_API_KEY_FILE", "", "file with a subscription key for the PCS; Intel's needs none", text(&c.APIKeyFile)},
		{"EHSM_KMS_COLLATERAL_CA_FILE", "", "PEM file that vouches for the service's TLS certificate, in place of the system's", text(&c.CAFile)},
		{"EHSM_KMS_COLLATERAL_BUNDLE", "", "file of the source bundle, as ehsm attest collateral makes it", text(&c.Bundle)},
		{"EHSM_KMS_COLLATERAL_DIR", "/var/lib/ehsm/collateral", "directory where collateral is cached, one for each node", text(&c.Dir)},
		{"EHSM_KMS_COLLATERAL_REFRESH", "24h", "how often it is fetched again", atLeast(&c.Refresh, time.Minute)},
		{"EHSM_KMS_COLLATERAL_UPDATE", "standard", "early: TCB info as soon as Intel publishes it; standard: when platforms had time to update", early(&c.Early)},
	}
}

// check refuses settings that contradict each other, as one of them is not meant.
func (c *Collateral) check() error {
	service := c.Source == CollateralPCS || c.Source == CollateralPCCS
	var errs []error
	for _, row := range []struct {
		name, value string
		of          bool // the source has such a setting
		hint        string
	}{
		{"EHSM_KMS_COLLATERAL_URL", c.URL, service, "pcs or pccs"},
		{"EHSM_KMS_COLLATERAL_API_KEY_FILE", c.APIKeyFile, c.Source == CollateralPCS, "pcs"},
		{"EHSM_KMS_COLLATERAL_CA_FILE", c.CAFile, service, "pcs or pccs"},
		{"EHSM_KMS_COLLATERAL_BUNDLE", c.Bundle, c.Source == CollateralBundle, "bundle"},
	} {
		if row.value != "" && !row.of {
			errs = append(errs, fmt.Errorf("%w: %s is set, but EHSM_KMS_COLLATERAL is %s; it is for %s", ErrSetting, row.name, c.Source, row.hint))
		}
	}
	if c.Source == CollateralPCCS && c.URL == "" {
		errs = append(errs, missing("EHSM_KMS_COLLATERAL_URL", "name the PCCS, such as https://localhost:8081"))
	}
	if c.Source == CollateralBundle && c.Bundle == "" {
		errs = append(errs, missing("EHSM_KMS_COLLATERAL_BUNDLE", "name the file"))
	}
	return errors.Join(errs...)
}

// oneOf takes one of some words.
func oneOf(v *string, words ...string) func(string) error {
	return func(s string) error {
		for _, word := range words {
			if s == word {
				*v = s
				return nil
			}
		}
		return fmt.Errorf("want one of %s", strings.Join(words, ", "))
	}
}

func early(v *bool) func(string) error {
	var word string
	take := oneOf(&word, "standard", "early")
	return func(s string) error {
		err := take(s)
		*v = word == "early"
		return err
	}
}

// atLeast takes durations from least on.
func atLeast(v *time.Duration, least time.Duration) func(string) error {
	take := span(v)
	return func(s string) error {
		if err := take(s); err != nil {
			return err
		}
		if *v < least {
			return fmt.Errorf("want at least %v", least)
		}
		return nil
	}
}
