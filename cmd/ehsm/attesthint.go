package main

import (
	"errors"

	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/snp"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
)

// Hints that several refusals share.
const (
	hintRefetch         = "fetch the collateral of this machine again"
	hintOther           = "this collateral is of another kind of machine: fetch that for the FMSPC and the PCK CA that ehsm attest show prints"
	hintExpired         = "fetch the collateral again; --at verifies an old quote for the time at which it was made"
	hintEarly           = "set the clock of this machine, or --at to a later time"
	hintForged          = "the file is damaged or forged: get it from its source again, and do not trust what it says"
	hintRevoked         = "Intel has withdrawn its trust: do not give this machine any secret"
	hintGuest           = "if you know this guest, add its measurements to the policy's guests"
	hintGuestDebug      = "the host can read the memory of a guest in debug mode: start it without"
	hintGuestMigratable = "whoever migrates the guest can read its memory: start it without that permission"
	hintSimulated       = "it is of a simulated platform, which protects nothing: --allow-sim accepts that, for tests only, as does a policy with allow_sim"
	hintSimService      = "ehsm dev and other services for tests do; --allow-sim accepts that, for tests only"
	hintQuoteNew        = "update the platform software (quoting enclave) of the machine and make a new quote"
)

// attestHint says what to do about a refused quote.
func attestHint(step string, err error) string {
	for _, row := range []struct {
		err  error
		hint string
	}{
		{sgx.ErrTDX, "TDX quotes of versions 4 and 5 are verified"},
		{sgx.ErrVersion, "SGX quotes of version 3, TDX quotes of versions 4 and 5, and SEV-SNP reports are verified; is the file one, raw or in hex?"},
		{sgx.ErrCertType, "have the machine's quote provider put the PCK certificate chain into its quotes (certification data of type 5)"},
		{verify.ErrUnknownRoot, "the machine is vouched for by somebody else than Intel; --root names another root, if you know and trust it"},
		{verify.ErrSimulated, hintSimulated},
		{validate.ErrSimulated, hintSimulated},
		{verify.ErrRootCRLMissing, "collateral without both CRLs does not show that nothing is revoked: fetch it again with root_ca_crl and pck_crl"},
		{verify.ErrPCKCRLMissing, "collateral without both CRLs does not show that nothing is revoked: fetch it again with root_ca_crl and pck_crl"},
		{verify.ErrCRLIssuer, hintOther},
		{verify.ErrCRLIssuerChain, hintOther},
		{verify.ErrFMSPC, hintOther},
		{verify.ErrPCEID, hintOther},
		{verify.ErrCRLExpired, hintExpired},
		{verify.ErrDocumentExpired, hintExpired},
		{verify.ErrCertExpired, hintExpired},
		{verify.ErrCRLNotYetValid, hintEarly},
		{verify.ErrDocumentNotYetValid, hintEarly},
		{verify.ErrCertNotYetValid, hintEarly},
		{verify.ErrPCKRevoked, hintRevoked},
		{verify.ErrIntermediateRevoked, hintRevoked},
		{verify.ErrTCBSignerRevoked, hintRevoked},
		{verify.ErrPlatformRevoked, hintRevoked},
		{verify.ErrQERevoked, hintQuoteNew},
		{verify.ErrQELevel, hintQuoteNew},
		{verify.ErrNoTCBLevel, "the machine is older than all that Intel lists: update its BIOS and microcode"},
		{verify.ErrDocumentID, "SGX and TDX have each TCB info and a QE identity of its own: fetch those for this kind of quote"},
		{verify.ErrDocumentVersion, "fetch TCB info of version 3 and QE identity of version 2, from version 4 of Intel's service"},
		{validate.ErrReportData, "the quote is old, or was made for somebody else: ask for a new one, over your own challenge"},
		{validate.ErrDebug, "the host can read the memory of a debug enclave: run the release build"},
		{validate.ErrEnclave, "if you know this build, add its measurement, or signer and product, to the policy's enclaves"},
		{validate.ErrSVN, "update the enclave"},
		{validate.ErrPlatform, "if the machine is yours, add its PPID to the policy's platforms"},
		{validate.ErrEvaluation, "fetch newer collateral (update=standard or early), or lower the policy's min_evaluation_number"},
		{validate.ErrStatus, "update the machine's BIOS and microcode; or, if each advisory does no harm here, say so in the policy's accept with the reason"},
		{tdx.ErrModuleRevoked, "Intel has withdrawn its trust in this TDX module: update it"},
		{tdx.ErrModuleLevel, "the TDX module is older than all that Intel lists: update it"},
		{tdx.ErrModuleUnknown, "fetch newer collateral; if that does not know the TDX module either, do not trust it"},
		{tdx.ErrDebug, hintGuestDebug},
		{snp.ErrDebug, hintGuestDebug},
		{tdx.ErrMigratable, hintGuestMigratable},
		{snp.ErrMigratable, hintGuestMigratable},
		{tdx.ErrGuest, hintGuest},
		{snp.ErrGuest, hintGuest},
		{snp.ErrReportData, "the report is old, or was made for somebody else: ask for a new one, over your own challenge"},
		{snp.ErrChip, "if the machine is yours, add its chip id to the policy's chips"},
		{snp.ErrTCBMinimum, "update the machine's firmware, or lower the policy's min_tcb"},
		{snp.ErrUnrevocable, "add the CRL of the ARK to the collateral, or say without_crl in the policy"},
		{snp.ErrUnknownRoot, "the chip is vouched for by somebody else than AMD; --root names another root, if you know and trust it"},
		{snp.ErrChipID, "these certificates are of another chip: get the VCEK of this one from AMD's key distribution service"},
		{snp.ErrTCB, "the VCEK is for another TCB: get that for the reported TCB from AMD's key distribution service"},
		{snp.ErrCRLDates, "get the CRL again; --at verifies an old report for the time at which it was made"},
		{snp.ErrCertDates, "get the certificates again; --at verifies an old report for the time at which it was made"},
		{snp.ErrRevoked, "AMD has withdrawn its trust: do not give this machine any secret"},
		{snp.ErrSigner, "a VLEK names a provider and not a chip: have the machine's owner turn it off"},
	} {
		if errors.Is(err, row.err) {
			return row.hint
		}
	}
	return stepHint(step)
}

// stepHint is for refusals that have no hint of their own.
func stepHint(step string) string {
	switch step {
	case verify.StepParse.String():
		return "is the file complete, and one quote or report, raw or in hex?"
	case verify.StepPCKChain.String(), snp.StepRoot.String(), snp.StepChip.String(), snp.StepSignature.String(), verify.StepSGXExtension.String(), verify.StepQEReport.String(), verify.StepQuoteSignature.String():
		return hintForged
	case verify.StepCRL.String(), verify.StepTCBInfo.String(), verify.StepQEIdentity.String(), verify.StepTCBLevel.String():
		return hintRefetch
	}
	return ""
}

// policyStep names the check of a policy that failed.
func policyStep(err error) string {
	for _, row := range []struct {
		err  error
		step string
	}{
		{validate.ErrReportData, "report-data"},
		{snp.ErrReportData, "report-data"},
		{tdx.ErrDebug, "debug"},
		{snp.ErrDebug, "debug"},
		{tdx.ErrMigratable, "migration"},
		{snp.ErrMigratable, "migration"},
		{snp.ErrVMPL, "vmpl"},
		{tdx.ErrGuest, "guest"},
		{snp.ErrGuest, "guest"},
		{snp.ErrChip, "platform"},
		{snp.ErrTCBMinimum, "tcb-status"},
		{snp.ErrUnrevocable, "revocation"},
		{validate.ErrDebug, "debug"},
		{validate.ErrEnclave, "enclave"},
		{validate.ErrSVN, "svn"},
		{validate.ErrPlatform, "platform"},
		{validate.ErrEvaluation, "evaluation"},
		{validate.ErrStatus, "tcb-status"},
	} {
		if errors.Is(err, row.err) {
			return row.step
		}
	}
	return "policy"
}
