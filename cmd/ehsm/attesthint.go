package main

import (
	"errors"

	sgx "github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// Hints that several refusals share.
const (
	hintRefetch  = "fetch the collateral of this machine again"
	hintOther    = "this collateral is of another kind of machine: fetch that for the FMSPC and the PCK CA that ehsm attest show prints"
	hintExpired  = "fetch the collateral again; --at verifies an old quote for the time at which it was made"
	hintEarly    = "set the clock of this machine, or --at to a later time"
	hintForged   = "the file is damaged or forged: get it from its source again, and do not trust what it says"
	hintRevoked  = "Intel has withdrawn its trust: do not give this machine any secret"
	hintQuoteNew = "update the platform software (quoting enclave) of the machine and make a new quote"
)

// attestHint says what to do about a refused quote.
func attestHint(step string, err error) string {
	for _, row := range []struct {
		err  error
		hint string
	}{
		{sgx.ErrTDX, "this build verifies SGX quotes of version 3 only"},
		{errSNP, "this build verifies SGX quotes of version 3 only"},
		{sgx.ErrVersion, "this build verifies SGX quotes of version 3 only; is the file a raw or hex quote?"},
		{sgx.ErrCertType, "have the machine's quote provider put the PCK certificate chain into its quotes (certification data of type 5)"},
		{verify.ErrUnknownRoot, "the machine is vouched for by somebody else than Intel; --root names another root, if you know and trust it"},
		{verify.ErrSimulated, "a simulated platform protects nothing; only a policy with allow_sim accepts it, for development"},
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
		{verify.ErrDocumentVersion, "fetch TCB info of version 3 and QE identity of version 2, from version 4 of Intel's service"},
		{validate.ErrReportData, "the quote is old, or was made for somebody else: ask for a new one, over your own challenge"},
		{validate.ErrDebug, "the host can read the memory of a debug enclave: run the release build"},
		{validate.ErrEnclave, "if you know this build, add its measurement, or signer and product, to the policy's enclaves"},
		{validate.ErrSVN, "update the enclave"},
		{validate.ErrPlatform, "if the machine is yours, add its PPID to the policy's platforms"},
		{validate.ErrEvaluation, "fetch newer collateral (update=standard or early), or lower the policy's min_evaluation_number"},
		{validate.ErrStatus, "update the machine's BIOS and microcode; or, if each advisory does no harm here, say so in the policy's accept with the reason"},
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
		return "is the file complete, and a raw or hex SGX quote of version 3?"
	case verify.StepPCKChain.String(), verify.StepSGXExtension.String(), verify.StepQEReport.String(), verify.StepQuoteSignature.String():
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
