package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/host/collateral"
)

// Limits of the files of a verification, in bytes. Those of policies and of the
// parts of collateral are in their packages.
const (
	maxQuoteFile = 4 * sgx.MaxSize // hex digits, with room for line ends
	maxRootFile  = 64 << 10
	maxPolicy    = 1 << 20
)

func newAttest(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "attest",
		Short: "Find out what a service, or a quote, proves of itself",
		Long: `A service proves with evidence what it runs, and on what: a quote of an SGX enclave
or a TDX guest, or a SEV-SNP report. verify judges it, and doctor says why it is
refused and what to do. docs/attestation.md has the whole way.`,
		Example: `  ehsm attest verify --url https://kms.example:9000 --policy policy.json
  ehsm attest doctor
  ehsm attest show quote.bin
  ehsm attest verify quote.bin --collateral collateral.json --policy policy.json`,
	}, newAttestShow(a), newAttestVerify(a), newAttestAcceptance(a), newAttestCollateral(a),
		newAttestQuote(a), newAttestCheck(a), newAttestDoctor(a))
}

// evidenceFlags name what a quote is verified with.
type evidenceFlags struct {
	collateral, root, at string
	policy, reportData   string // of attest verify only
}

// evidence is what a quote is judged by, read from the files that the flags name.
type evidence struct {
	file       string
	raw        []byte // the quote
	collateral *verify.Collateral
	policy     *validate.Policy
	reportData *[64]byte // what the quote must bind, if that is known
	options    verify.Options
	rootName   string
	guest      guest // of TDX and SEV-SNP
}

// readEvidence reads the files. It judges nothing but their form.
func (a *app) readEvidence(ctx context.Context, file string, f evidenceFlags) (*evidence, error) {
	e := &evidence{file: file, rootName: "Intel's SGX root CA"}
	e.options.Roots = []*x509.Certificate{verify.IntelRoot()}
	var err error
	if e.options.Now, err = parseAt(f.at); err != nil {
		return nil, err
	}
	if e.reportData, err = parseReportData(f.reportData); err != nil {
		return nil, err
	}
	b, err := a.readLimited(ctx, file, maxQuoteFile)
	if err != nil {
		return nil, err
	}
	e.raw = quoteBytes(b)
	if isGuest(e.raw) {
		return e, a.readGuest(ctx, e, f)
	}
	if f.root != "" {
		if e.options.Roots, err = a.readRoots(ctx, f.root); err != nil {
			return nil, err
		}
		e.rootName = f.root
	}
	if f.collateral != "" {
		if e.collateral, err = a.readCollateral(ctx, f.collateral, e.raw); err != nil {
			return nil, err
		}
	}
	if f.policy != "" {
		if e.policy, err = a.readPolicy(ctx, f.policy); err != nil {
			return nil, err
		}
		// The policy's other bounds are left to validate, so that "not wanted"
		// is not reported as "not genuine". Its grace periods are for machines
		// that a service admitted before, which nobody knows here.
		e.options.AllowSim = e.policy.AllowSim
	}
	return e, nil
}

// readLimited reads a file that must not be longer than limit bytes.
func (a *app) readLimited(ctx context.Context, path string, limit int) ([]byte, error) {
	r, _, err := a.open(ctx, path)
	if err != nil {
		return nil, err
	}
	defer r.Close()
	b, err := io.ReadAll(io.LimitReader(r, int64(limit)+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	if len(b) > limit {
		return nil, fmt.Errorf("read %s: it is longer than %d bytes", path, limit)
	}
	return b, nil
}

// quoteBytes decodes hex digits with white space between them, and returns what
// is none as it is: a binary quote starts with bytes that are no hex digits.
func quoteBytes(b []byte) []byte {
	text := string(bytes.Join(bytes.Fields(b), nil))
	raw, err := hex.DecodeString(strings.TrimPrefix(text, "0x"))
	if err != nil || len(raw) == 0 {
		return b
	}
	return raw
}

// foreign returns why evidence is of a kind that is not verified here, or nil.
// That says nothing about whether it is genuine. TDX quotes and SEV-SNP reports
// are judged by judgeGuest, unless they are of a version that nobody knows.
func foreign(raw []byte) error {
	_, err := sgx.Parse(raw)
	for _, kind := range []error{sgx.ErrTDX, sgx.ErrVersion, sgx.ErrTEEType, sgx.ErrKeyType, sgx.ErrVendor, sgx.ErrCertType} {
		if errors.Is(err, kind) {
			return err
		}
	}
	return nil
}

// readCollateral reads the JSON that verifiers exchange, or what we make of it:
// that of one machine, or a bundle of several, from which it takes what the quote
// needs.
func (a *app) readCollateral(ctx context.Context, path string, quote []byte) (*verify.Collateral, error) {
	b, err := a.readLimited(ctx, path, collateral.MaxBundleFile)
	if err != nil {
		return nil, err
	}
	if all, err := collateral.DecodeBundle(b); err == nil {
		return chooseFor(all, quote, path)
	}
	decode := verify.DecodeCollateral
	if bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
		decode = verify.DecodeCollateralJSON
	}
	c, err := decode(b)
	if err != nil { // the text may quote the file, which nobody vouches for
		return nil, withHint(fmt.Errorf("read %s: %s", path, printable(err.Error())),
			"collateral is JSON with tcb_info, qe_identity, both CRLs and so on, or a bundle: docs/formats.md#collateral-v1")
	}
	return &c, nil
}

func (a *app) readPolicy(ctx context.Context, path string) (*validate.Policy, error) {
	b, err := a.readLimited(ctx, path, maxPolicy)
	if err != nil {
		return nil, err
	}
	p, err := validate.ParsePolicy(b)
	if err != nil {
		return nil, withHint(fmt.Errorf("read %s: %w", path, err), "docs/formats.md#attestation-policy-v1 has an example")
	}
	for _, w := range p.Warnings() {
		a.warn("policy: %s", w)
	}
	return p, nil
}

// readRoots reads one or more certificates in PEM.
func (a *app) readRoots(ctx context.Context, path string) (roots []*x509.Certificate, err error) {
	rest, err := a.readLimited(ctx, path, maxRootFile)
	if err != nil {
		return nil, err
	}
	for len(bytes.TrimSpace(rest)) > 0 {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" {
			return nil, fmt.Errorf("read %s: want certificates in PEM and nothing else", path)
		}
		root, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
		roots = append(roots, root)
	}
	if len(roots) == 0 {
		return nil, fmt.Errorf("read %s: no certificate in it", path)
	}
	return roots, nil
}

// parseAt reads a time or a date, which means its first instant in UTC. The
// empty text means now.
func parseAt(text string) (time.Time, error) {
	if text == "" {
		return time.Now().UTC().Truncate(time.Second), nil
	}
	for _, layout := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(layout, text); err == nil {
			return t.UTC(), nil
		}
	}
	return time.Time{}, usagef("--at is %q, want a time such as 2025-06-25T00:00:00Z, or a date", text)
}

func parseReportData(text string) (*[64]byte, error) {
	if text == "" {
		return nil, nil
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != 64 {
		return nil, usagef("--report-data is %q, want 128 hex digits", text)
	}
	return (*[64]byte)(b), nil
}
