package main

import (
	"cmp"
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
)

// fetch obtains collateral for the evidence and reads what it says of itself.
func (d *doctor) fetch(ctx context.Context) []check {
	const name = "source"
	switch {
	case d.evidence == nil && d.flags.collateral != "":
		return d.fileChecks(ctx)
	case d.evidence == nil:
		return []check{skipped(name, "no evidence to fetch it for")}
	}
	source, err := d.obtain(ctx)
	if d.flags.at == "" {
		d.now = time.Now().UTC() // it may have been issued since the start
	}
	if err != nil {
		var h hinted
		errors.As(err, &h)
		return []check{problem(name, cmp.Or(h.hint, hintFor(err), hintRefetch), "%s: %s", source, printable(err.Error()))}
	}
	all := []check{passed(name, "%s", source)}
	if d.evidence.collateral == nil { // of SEV-SNP
		return all
	}
	contents, err := d.evidence.collateral.Contents()
	if err != nil { // TCB info of TDX is another document
		return append(all, noted("dates", "not shown: %s", printable(err.Error())))
	}
	d.contents = &contents
	return append(all, d.collateralChecks(&contents)...)
}

// fileChecks looks at a file of collateral for which there is no evidence.
func (d *doctor) fileChecks(ctx context.Context) []check {
	const name = "source"
	all, err := d.app.collateralIn(ctx, d.flags.collateral)
	if err != nil {
		var h hinted
		errors.As(err, &h)
		return []check{problem(name, cmp.Or(h.hint, hintRefetch), "%v", err)}
	}
	if len(all) != 1 {
		return []check{noted(name, "%s has collateral of %d kinds of machines; which one is needed only the evidence says", d.flags.collateral, len(all))}
	}
	contents, err := all[0].Contents()
	if err != nil {
		return []check{problem(name, hintRefetch, "%s: %s", d.flags.collateral, printable(err.Error()))}
	}
	d.contents = &contents
	return append([]check{passed(name, "%s, for %s", d.flags.collateral, collateral.Format(contents.Query))}, d.collateralChecks(&contents)...)
}

// obtain reads collateral from where the flags say, or asks the service.
func (d *doctor) obtain(ctx context.Context) (source string, err error) {
	e := d.evidence
	switch {
	case d.flags.collateral != "" && d.kind == attest.SNPReport:
		e.guest.snpCollateral, err = d.app.readSNPCollateral(ctx, d.flags.collateral)
		return d.flags.collateral, err
	case d.flags.collateral != "":
		e.collateral, err = d.app.readCollateral(ctx, d.flags.collateral, e.raw)
		return d.flags.collateral, err
	case d.flags.pccs != "":
		e.collateral, err = d.askPCCS(ctx)
		return d.flags.pccs, err
	}
	b, err := d.client.Collateral(ctx)
	if err != nil {
		return "the service", withHint(err, hintOwn+" (--pccs, --collateral)")
	}
	return "the service, which need not be trusted for it", d.decode(b)
}

func (d *doctor) decode(b []byte) error {
	if d.kind == attest.SNPReport {
		c, err := snp.DecodeCollateral(b)
		if err == nil {
			d.evidence.guest.snpCollateral = &c
		}
		return err
	}
	c, err := verify.DecodeCollateralJSON(b)
	if err == nil {
		d.evidence.collateral = &c
	}
	return err
}

func (d *doctor) askPCCS(ctx context.Context) (*verify.Collateral, error) {
	q, err := verify.QueryOf(d.evidence.raw)
	if err != nil {
		return nil, withHint(err, "a PCCS is asked about SGX quotes only; use --collateral")
	}
	s, err := collateral.NewPCCS(collateral.ServiceOptions{URL: d.flags.pccs, CAFile: d.flags.pccsCAFile})
	if err != nil {
		return nil, withHint(err, "--pccs https://host:8081, and --pccs-ca-file if its certificate is of its own making")
	}
	c, err := s.Fetch(ctx, q)
	if err != nil {
		return nil, withHint(err, fetchHint(err, true))
	}
	return &c, nil
}

// readPolicy reads the policy, if there is one: first whether it is one at all,
// then as one for the evidence. Its warnings are for later.
func (d *doctor) readPolicy(ctx context.Context) {
	if d.flags.policy == "" {
		return
	}
	b, err := d.app.readLimited(ctx, d.flags.policy, maxPolicy)
	if err != nil {
		d.policyErr = withHint(err, "name a file that can be read")
		return
	}
	p, err := attested.ParsePolicy(b)
	if err != nil {
		d.policyErr = withHint(fmt.Errorf("read %s: %w", d.flags.policy, err), "docs/formats.md#attestation-policy-v1 has an example")
		return
	}
	d.warnings = p.Warnings()
	quiet := *d.app
	quiet.stderr = io.Discard
	switch {
	case d.evidence == nil:
	case isGuest(d.evidence.raw):
		d.policyErr = quiet.readGuestPolicy(ctx, d.evidence, d.flags.policy, d.kind == attest.SNPReport)
	default:
		d.evidence.policy, d.policyErr = quiet.readPolicy(ctx, d.flags.policy)
	}
}

// verify judges the evidence and shows each step.
func (d *doctor) verify(ctx context.Context) []check {
	e := d.evidence
	switch {
	case e == nil:
		return []check{skipped("genuine", "no evidence")}
	case e.collateral == nil && e.guest.snpCollateral == nil:
		return []check{skipped("genuine", "no collateral")}
	}
	e.options.Now, e.options.AllowSim = d.now, d.flags.allowSim || e.policy != nil && e.policy.AllowSim
	if d.kind == attest.SNPReport {
		e.guest.snpRoots = snp.Roots()
	}
	switch {
	case d.flags.root != "":
		roots, err := d.app.readRoots(ctx, d.flags.root)
		if err != nil {
			return []check{problem("root", "name a PEM file of the certificates to trust", "%v", err)}
		}
		e.options.Roots, e.guest.snpRoots, e.rootName = roots, roots, d.flags.root
	case d.simRoot != nil && e.options.AllowSim:
		e.options.Roots, e.rootName = []*x509.Certificate{d.simRoot}, nameOfSimRoot
	}
	d.verdict = judge(e)
	all := genuineChecks(&d.verdict.Genuine, d.kind)
	if g := d.verdict.Guest; g != nil && g.Revocation != nil && !*g.Revocation {
		all = append(all, noted("revocation", "not checked: the collateral has no CRL").with("add the CRL of the ARK to the file; policies refuse such a report unless they say without_crl"))
	}
	return all
}
