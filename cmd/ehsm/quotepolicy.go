package main

import (
	"context"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
)

func newQuotePolicy(a *app) *cobra.Command {
	return group(&cobra.Command{
		Use:   "quote-policy",
		Short: "Keep at the service which enclave quotes must be of",
		Long: `A quote policy is a pair of MRENCLAVE and MRSIGNER that the service keeps for you.
"ehsm attest check" has the service hold a quote to it. It is another thing than
the policy file of "ehsm attest verify", which stays with you and says more.`,
		Example: `  ID=$(ehsm quote-policy upload --quote quote.bin)
  ehsm attest check other.bin --policy-id $ID`,
	}, newQuotePolicyUpload(a), newQuotePolicyGet(a))
}

func newQuotePolicyUpload(a *app) *cobra.Command {
	var mrEnclave, mrSigner, quoteFile string
	cmd := &cobra.Command{
		Use:   "upload (--mrenclave HEX --mrsigner HEX | --quote FILE)",
		Short: "Store a quote policy and print its id",
		Long: `upload stores the two values, or those of a quote that you have verified: of
itself a quote proves nothing.`,
		Example: `  ehsm quote-policy upload --mrenclave $MRENCLAVE --mrsigner $MRSIGNER
  ehsm quote-policy upload --quote quote.bin`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if quoteFile != "" && mrEnclave+mrSigner != "" {
				return usagef("--quote excludes --mrenclave and --mrsigner")
			}
			if quoteFile != "" {
				enclave, signer, err := a.measurements(cmd.Context(), quoteFile)
				if err != nil {
					return err
				}
				return a.uploadQuotePolicy(cmd.Context(), enclave, signer)
			}
			enclave, err := parseHash("mrenclave", mrEnclave)
			if err != nil {
				return err
			}
			signer, err := parseHash("mrsigner", mrSigner)
			if err != nil {
				return err
			}
			return a.uploadQuotePolicy(cmd.Context(), enclave, signer)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&mrEnclave, "mrenclave", "", "`measurement` of the enclave, 64 hex digits")
	flags.StringVar(&mrSigner, "mrsigner", "", "`hash` of the key that signed it, 64 hex digits")
	flags.StringVar(&quoteFile, "quote", "", "`file` with a quote to take both from")
	return cmd
}

// measurements reads what a quote says of its enclave.
func (a *app) measurements(ctx context.Context, path string) (mrEnclave, mrSigner [32]byte, err error) {
	b, err := a.readLimited(ctx, path, maxQuoteFile)
	if err != nil {
		return mrEnclave, mrSigner, err
	}
	q, err := sgx.Parse(quoteBytes(b))
	if err != nil {
		return mrEnclave, mrSigner, withHint(fmt.Errorf("read %s: %w", path, err), "want an SGX quote of version 3, raw or in hex")
	}
	return q.Report.MREnclave, q.Report.MRSigner, nil
}

func parseHash(flag, text string) (hash [32]byte, err error) {
	b, err := hex.DecodeString(text)
	if err != nil || len(b) != len(hash) {
		return hash, withHint(usagef("--%s is %q, want 64 hex digits", flag, text), "ehsm attest show QUOTE prints both")
	}
	return [32]byte(b), nil
}

// A quotePolicyView is a policy in results.
type quotePolicyView struct {
	ID        string     `json:"policyId"`
	MREnclave string     `json:"mrenclave"`
	MRSigner  string     `json:"mrsigner"`
	Created   *time.Time `json:"created,omitempty"`
}

func (a *app) uploadQuotePolicy(ctx context.Context, mrEnclave, mrSigner [32]byte) error {
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	id, err := client.UploadQuotePolicy(ctx, mrEnclave, mrSigner)
	if err != nil {
		return err
	}
	return a.emit(quotePolicyView{ID: id, MREnclave: hex.EncodeToString(mrEnclave[:]), MRSigner: hex.EncodeToString(mrSigner[:])}, printable(id)+"\n")
}

func newQuotePolicyGet(a *app) *cobra.Command {
	return &cobra.Command{
		Use:     "get ID",
		Short:   "Show a quote policy",
		Example: "  ehsm quote-policy get $ID",
		Args:    args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			client, err := a.client()
			if err != nil {
				return err
			}
			defer client.Close()
			p, err := client.GetQuotePolicy(cmd.Context(), args[0])
			if ehsm.IsQuotePolicyNotFound(err) {
				return withHint(fmt.Errorf("no quote policy %s", printable(args[0])), hintPolicyID)
			}
			if err != nil {
				return err
			}
			v := quotePolicyView{p.ID, hex.EncodeToString(p.MREnclave[:]), hex.EncodeToString(p.MRSigner[:]), when(p.Created)}
			return a.emit(v, fmt.Sprintf("policy:    %s\nMRENCLAVE: %s\nMRSIGNER:  %s\ncreated:   %s\n",
				printable(v.ID), v.MREnclave, v.MRSigner, instant(p.Created)))
		},
	}
}

const hintPolicyID = "ehsm quote-policy upload makes one; those of other tenants are not seen"

func newAttestCheck(a *app) *cobra.Command {
	var policyID string
	cmd := &cobra.Command{
		Use:   "check FILE",
		Short: "Have the service verify an SGX quote",
		Long: `check sends a quote to the service, which verifies it inside its TEE and signs the
verdict. Roots, collateral and accepted TCB statuses are those of the service's
domain. Use it where you trust the service more than this machine; a service
cannot vouch for itself.

The service says only that it accepts a quote. "ehsm attest verify" on this
machine says why one is refused. Exit code 0: accepted.`,
		Example: `  ehsm attest check quote.bin
  ehsm attest check quote.bin --policy-id $ID --output json`,
		Args: args(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error { return a.checkQuote(cmd.Context(), args[0], policyID) },
	}
	cmd.Flags().StringVar(&policyID, "policy-id", "", "`id` of a quote policy that it must please; ehsm quote-policy upload")
	return cmd
}

// A serviceVerdict is what attest check prints.
type serviceVerdict struct {
	Accepted  bool   `json:"accepted"`
	MREnclave string `json:"mrenclave"`
	MRSigner  string `json:"mrsigner"`
	TCBStatus string `json:"tcbStatus"`
	PolicyID  string `json:"policyId,omitempty"`
}

func (a *app) checkQuote(ctx context.Context, path, policyID string) error {
	b, err := a.readLimited(ctx, path, maxQuoteFile)
	if err != nil {
		return err
	}
	raw := quoteBytes(b)
	if len(raw) > api.MaxQuote {
		return fmt.Errorf("read %s: it has %d bytes, and the service takes quotes of at most %d", path, len(raw), api.MaxQuote)
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := client.VerifyQuote(ctx, raw, policyID)
	switch {
	case ehsm.IsQuotePolicyNotFound(err):
		return withHint(fmt.Errorf("no quote policy %s", printable(policyID)), hintPolicyID)
	case ehsm.IsQuoteRefused(err): // one answer for all causes
		hint := "ehsm attest verify " + shellWord(path) + " --collateral FILE says which check fails; or the service has no collateral for that machine"
		if policyID != "" {
			hint += ", or the quote is of another enclave than ehsm quote-policy get shows"
		}
		return withHint(fmt.Errorf("the service does not accept %s: %w", path, err), hint)
	case err != nil:
		return err
	}
	v := serviceVerdict{true, r.MREnclave, r.MRSigner, r.TCBStatus.String(), policyID}
	return a.emit(v, v.text())
}

func (v *serviceVerdict) text() string {
	var b strings.Builder
	policy := "none: of any enclave"
	if v.PolicyID != "" {
		policy = printable(v.PolicyID)
	}
	row(&b, "accepted:", "yes, by the service, which has signed so")
	row(&b, "policy:", "%s", policy)
	row(&b, "TCB status:", "%s", v.TCBStatus)
	row(&b, "MRENCLAVE:", "%s", printable(v.MREnclave))
	row(&b, "MRSIGNER:", "%s", printable(v.MRSigner))
	return b.String()
}
