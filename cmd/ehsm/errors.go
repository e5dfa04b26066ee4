package main

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// A usageError is a wrong command line.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

func usagef(format string, v ...any) error { return usageError{fmt.Errorf(format, v...)} }

// A hinted error says what to do next.
type hinted struct {
	err  error
	hint string
}

func (e hinted) Error() string { return e.err.Error() }
func (e hinted) Unwrap() error { return e.err }

func withHint(err error, hint string) error {
	if err == nil {
		return nil
	}
	return hinted{err, hint}
}

// withKey adds what to do about a refused use of a key.
func withKey(err error, keyID string) error {
	if ehsm.IsKeyDisabled(err) {
		return withHint(err, "ehsm key enable "+keyID)
	}
	return err
}

// report prints err with its hint and returns the exit code.
func (a *app) report(err error) int {
	a.warn("%v", err)
	var h hinted
	if errors.As(err, &h) {
		fmt.Fprintf(a.stderr, "ehsm: hint: %s\n", h.hint)
	} else if hint := hintFor(err); hint != "" {
		fmt.Fprintf(a.stderr, "ehsm: hint: %s\n", hint)
	}
	var usage usageError
	if errors.As(err, &usage) {
		return exitUsage
	}
	return exitError
}

// hintFor knows what to do about errors whatever the command was.
func hintFor(err error) string {
	var dial *net.OpError
	var certificate *tls.CertificateVerificationError
	var refusal *api.Error
	switch {
	case errors.Is(err, ehsm.ErrNoCredentials):
		return "ehsm enroll"
	case errors.Is(err, ehsm.ErrFingerprint):
		return "the server has another certificate than when you enrolled; ask its operator for the new fingerprint, do not just accept it"
	case errors.Is(err, ehsm.ErrOutcomeUnknown), errors.Is(err, ehsm.ErrReplySignature):
		return "look at the state before you try again: ehsm key list"
	case errors.As(err, &certificate):
		return "name the roots that vouch for the server with --ca-file, or its own certificate with --fingerprint"
	case errors.As(err, &dial) && dial.Op == "dial":
		return "is the service running? ehsm dev starts one on this machine"
	case errors.As(err, &refusal) && refusal.Message == api.MessageSealedOnly:
		return "whoever was on the way has read this request; pin domain and policy: ehsm attest verify --policy FILE --domain ID --pin"
	case ehsm.IsKeyDisabled(err):
		return "ehsm key enable ID"
	case ehsm.IsKeyNotFound(err):
		return "ehsm key list"
	case ehsm.IsKeyExpired(err):
		return "ehsm key create; an expired key still decrypts"
	case ehsm.IsDecryptionFailed(err):
		return "another key, another --aad, or a damaged ciphertext"
	case ehsm.IsBadCredentials(err):
		return "the service does not know these credentials; ehsm --profile NAME selects others, ehsm enroll makes new ones"
	case ehsm.IsExportFailed(err):
		return "another key, another --aad, or a data key that is too long for the target"
	case ehsm.IsImportToken(err):
		return "somebody else imports into this key; try again"
	case ehsm.IsSecretNotFound(err):
		return "ehsm secret list"
	case ehsm.IsSecretExists(err):
		return "ehsm secret put adds a version; the name of a deleted secret is taken until it is gone"
	case ehsm.IsSecretDeleted(err):
		return "ehsm secret restore NAME"
	case ehsm.IsClock(err):
		return "set the clock of this machine"
	case errors.As(err, &refusal) && refusal.Message == api.MessageExportTarget:
		return "the target is an RSA or SM2 key that encrypts, RSA of at least 2048 bits"
	case errors.As(err, &refusal) && refusal.Message == api.MessageException:
		return "the key is not for this: its spec, usage, origin or padding; ehsm key create --help"
	}
	return ""
}
