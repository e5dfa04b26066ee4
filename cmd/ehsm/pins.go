package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
)

// Pins say how to know the core of a service: which program in which domain.
type Pins struct {
	Domain      string `yaml:"domain,omitempty"`      // id; also what attest verify expects
	Policy      string `yaml:"policy,omitempty"`      // file
	Measurement string `yaml:"measurement,omitempty"` // in place of Policy: see measurementPolicy
	Collateral  string `yaml:"collateral,omitempty"`  // file; else the service is asked
	AllowSim    bool   `yaml:"allow_sim,omitempty"`   // also where the policy does not say so
}

// complete reports whether they say what requests can be sealed to.
func (p *Pins) complete() bool { return p.Domain != "" && (p.Policy != "" || p.Measurement != "") }

// register adds the flags that state them; when says of what they are.
func (p *Pins) register(flags *pflag.FlagSet, when string) {
	flags.StringVar(&p.Policy, "policy", "", "`file` that says which programs and machines are accepted"+when)
	flags.StringVar(&p.Measurement, "measurement", "", "in place of --policy: the one `program`, as MRENCLAVE, or as MRSIGNER:PRODID:SVN with the least SVN, on any machine"+when)
	flags.StringVar(&p.Domain, "domain", "", "`id` of the domain that the service must belong to"+when)
	flags.StringVar(&p.Collateral, "collateral", "", "`file` of collateral"+when+"; else the service is asked")
	flags.BoolVar(&p.AllowSim, "allow-sim", false, "accept a simulated platform"+when+"; no hardware protects keys then")
}

// kept returns them as a profile keeps them, with files that are found from everywhere.
func (p Pins) kept() (Pins, error) {
	if !p.complete() || p.Policy != "" && p.Measurement != "" {
		return p, withHint(usagef("want --domain, and either --policy or --measurement"), "ehsm attest verify shows what a service runs, and a policy for it")
	}
	if p.Policy == stdio || p.Collateral == stdio {
		return p, usagef("--policy and --collateral have to be files, as they are read again")
	}
	p.Domain = strings.ToLower(p.Domain)
	for _, path := range []*string{&p.Policy, &p.Collateral} {
		if *path == "" {
			continue
		}
		var err error
		if *path, err = filepath.Abs(*path); err != nil {
			return p, err
		}
	}
	return p, nil
}

// verifierOf returns who verifies a service by its pins, which are complete.
func (a *app) verifierOf(ctx context.Context, p Pins) (*attested.Verifier, error) {
	v := &attested.Verifier{AllowSim: p.AllowSim, Now: time.Now} // collateral may be issued while it is fetched
	var err error
	if v.Domain, err = attested.ParseDomain(strings.ToLower(p.Domain)); err != nil {
		return nil, withHint(usagef("%v", err), "ehsm dev prints it; for others ask the operator")
	}
	if p.Collateral != "" {
		if v.Collateral, err = a.collateralFor(ctx, p.Collateral); err != nil {
			return nil, err
		}
	}
	var text []byte
	if p.Measurement != "" {
		text, err = measurementPolicy(p.Measurement, p.AllowSim)
	} else {
		text, err = readPolicy(p.Policy)
	}
	if err != nil {
		return nil, err
	}
	if v.Policy, err = attested.ParsePolicy(text); err != nil {
		return nil, withHint(fmt.Errorf("read %s: %w", p.program(), err), "docs/formats.md#attestation-policy-v1 has an example")
	}
	for _, w := range v.Policy.Warnings() {
		a.warn("policy: %s", w)
	}
	return v, nil
}

// program is what says which program is accepted.
func (p *Pins) program() string {
	if p.Measurement != "" {
		return "measurement " + p.Measurement
	}
	return p.Policy
}

func readPolicy(file string) ([]byte, error) {
	info, err := os.Stat(file)
	if err == nil && info.Size() > maxPolicy {
		err = fmt.Errorf("it has %d bytes, limit %d", info.Size(), maxPolicy)
	}
	var b []byte
	if err == nil {
		b, err = os.ReadFile(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read the policy: %w", err)
	}
	return b, nil
}

// measurementPolicy is the policy that accepts one SGX program on any machine: by its
// MRENCLAVE, 64 hex digits, or by MRSIGNER, product id and the least SVN.
func measurementPolicy(text string, allowSim bool) ([]byte, error) {
	refused := usagef("measurement is %q, want MRENCLAVE, 64 hex digits, or MRSIGNER:PRODID:SVN", text)
	parts := strings.Split(strings.ToLower(text), ":")
	if b, err := hex.DecodeString(parts[0]); err != nil || len(b) != 32 || len(parts) != 1 && len(parts) != 3 {
		return nil, refused
	}
	enclave := map[string]any{"name": "core"}
	if len(parts) == 1 {
		enclave["mrenclave"] = parts[0]
	} else {
		product, err := strconv.ParseUint(parts[1], 10, 16)
		svn, svnErr := strconv.ParseUint(parts[2], 10, 16)
		if err != nil || svnErr != nil {
			return nil, refused
		}
		enclave["mrsigner"], enclave["isvprodid"], enclave["min_isvsvn"] = parts[0], product, svn
	}
	policy := map[string]any{"format": validate.PolicyFormat, "enclaves": []any{enclave}, "any_platform": true}
	if allowSim {
		policy["allow_sim"] = true
	}
	return json.Marshal(policy)
}
