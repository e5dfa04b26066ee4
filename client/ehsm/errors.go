package ehsm

import (
	"errors"
	"slices"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
)

// Errors of calls, beside *api.Error for a refusal by the service and the
// errors of net/http and context.
var (
	// ErrReplySignature says that a reply does not carry the core's signature for
	// this request. The host or somebody on the path made it; it is not used. The
	// request may have been executed.
	ErrReplySignature = errors.New("reply is not signed by the core")

	// ErrReply says that a reply is no envelope of the API, or is too long.
	ErrReply = errors.New("reply is not of the API")

	// ErrOutcomeUnknown says that the connection failed after a request that
	// changes state may have reached the service. It is not sent again; look at
	// the state before you do.
	ErrOutcomeUnknown = errors.New("request may have been executed")

	// ErrSecretNotFound says that the tenant has no such secret. The service has
	// several ways of saying so; IsSecretNotFound knows them all.
	ErrSecretNotFound = errors.New("no such secret")

	// ErrNoSecretVersion says that a secret has no version of that number.
	ErrNoSecretVersion = errors.New("secret has no such version")

	// ErrNotText says that name, value or description of a secret is not UTF-8.
	// Nothing was sent.
	ErrNotText = errors.New("text is not UTF-8")
)

// unauthenticated marks a refusal that nobody vouches for.
type unauthenticated struct{ refusal *api.Error }

func (e unauthenticated) Error() string { return e.refusal.Error() + ", not signed by the core" }
func (e unauthenticated) Unwrap() error { return e.refusal }

// IsUnauthenticated reports whether err is a refusal without the core's
// signature. The core cannot sign where it does not know the caller, and the
// manager cannot sign at all; but anyone on the path could have made it, so do
// not take it as a fact about a key.
func IsUnauthenticated(err error) bool {
	var e unauthenticated
	return errors.As(err, &e)
}

// refused reports whether err is a refusal with one of these messages.
func refused(err error, messages ...string) bool {
	var e *api.Error
	return errors.As(err, &e) && slices.Contains(messages, e.Message)
}

// IsKeyDisabled reports whether the service refused because the key is disabled.
// Like the reports below it does not look at who made the refusal; see
// IsUnauthenticated.
func IsKeyDisabled(err error) bool { return refused(err, api.MessageKeyDisabled) }

// IsKeyNotFound reports whether the tenant has no such key.
func IsKeyNotFound(err error) bool {
	return refused(err, api.MessageKeyUnknown, api.MessageKeyNotFound, api.MessageSecretKeyUnknown)
}

// IsKeyExpired reports whether the key no longer protects new data. It still
// decrypts.
func IsKeyExpired(err error) bool { return refused(err, api.MessageKeyExpired) }

// IsDecryptionFailed reports whether a ciphertext does not open, for whatever
// reason: another key, other additional data, or damage.
func IsDecryptionFailed(err error) bool { return refused(err, api.MessageDecryptionFailed) }

// IsExportFailed reports whether a data key does not open, or is too long for the
// key to export it to.
func IsExportFailed(err error) bool { return refused(err, api.MessageExportFailed) }

// IsImportToken reports whether an import token is not, or no more, that of an
// open session: ask for new parameters.
func IsImportToken(err error) bool {
	return refused(err, api.MessageImportToken, api.MessageImportExpired)
}

// IsImportFailed reports whether key material did not unwrap, is not of the key's
// length, or is not what the key has already.
func IsImportFailed(err error) bool { return refused(err, api.MessageImportFailed) }

// IsSecretNotFound reports whether the tenant has no such secret, or for
// GetSecretValue and ListSecretVersions one that is to be deleted.
func IsSecretNotFound(err error) bool {
	if errors.Is(err, ErrSecretNotFound) {
		return true
	}
	var e *api.Error
	return refused(err, api.MessageSecretUpdateUnknown, api.MessageSecretPutUnknown, api.MessageSecretDeleteUnknown, api.MessageSecretRestoreUnknown) ||
		errors.As(err, &e) && strings.HasPrefix(e.Message, api.MessageSecretGetUnknownBefore) && strings.HasSuffix(e.Message, api.MessageSecretGetUnknownAfter)
}

// IsSecretExists reports whether the name of a new secret is taken, be it by one
// that is to be deleted.
func IsSecretExists(err error) bool { return refused(err, api.MessageSecretExists) }

// IsSecretDeleted reports whether a secret cannot be changed because it is to be
// deleted. RestoreSecret brings it back.
func IsSecretDeleted(err error) bool {
	return refused(err, api.MessageSecretUpdateDeleted, api.MessageSecretPutDeleted)
}

// IsClock reports whether the caller's clock is too far from the service's.
func IsClock(err error) bool { return refused(err, api.MessageTimestamp) }

// IsBadCredentials reports whether app id or API key are not accepted.
func IsBadCredentials(err error) bool { return refused(err, api.MessageSign) }

// IsOverloaded reports whether the service asks to try again later: it has too much
// to do, or the app has made too many requests.
func IsOverloaded(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == api.CodeOverloaded && !IsFull(err)
}

// IsFull reports whether the app has as many keys or secrets as the domain lets it
// have, or as many policies as there can be.
func IsFull(err error) bool {
	return refused(err, api.MessageFullKeys, api.MessageFullSecrets, api.MessageFullPolicies)
}
