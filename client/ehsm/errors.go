package ehsm

import (
	"errors"
	"slices"

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
	return refused(err, api.MessageKeyUnknown, api.MessageKeyNotFound)
}

// IsKeyExpired reports whether the key no longer protects new data. It still
// decrypts.
func IsKeyExpired(err error) bool { return refused(err, api.MessageKeyExpired) }

// IsDecryptionFailed reports whether a ciphertext does not open, for whatever
// reason: another key, other additional data, or damage.
func IsDecryptionFailed(err error) bool { return refused(err, api.MessageDecryptionFailed) }

// IsClock reports whether the caller's clock is too far from the service's.
func IsClock(err error) bool { return refused(err, api.MessageTimestamp) }

// IsBadCredentials reports whether app id or API key are not accepted.
func IsBadCredentials(err error) bool { return refused(err, api.MessageSign) }

// IsOverloaded reports whether the service asks to try again later.
func IsOverloaded(err error) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Code == api.CodeOverloaded
}
