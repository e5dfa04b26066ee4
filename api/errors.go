package api

import "fmt"

// Codes of an envelope. The HTTP status is 200 with every one of them.
const (
	CodeOK          = 200
	CodeInvalid     = 400 // the request is wrong, or wrong for the state of what it names
	CodeUnknown     = 404 // no such action
	CodeOverloaded  = 429 // try again later
	CodeServerError = 500
)

// Texts of refusals that callers act on. They are fixed by the clients that
// exist, odd spelling included. A failed validation has a text of its own that
// names the member.
const (
	MessageMissing          = "Missing required parameters"
	MessageParamType        = "param type error"
	MessageNonceLength      = "Nonce length error"
	MessageTimestampLength  = "Timestamp length error"
	MessageTimestamp        = "Timestamp error"      // the clocks differ by 10 minutes or more
	MessageSign             = "sign error"           // wrong signature or unknown appid
	MessageSealed           = "sealed request error" // does not open, or says outside what it does not say inside
	MessageSealedKey        = "sealed key unknown"   // the result names the one that the instance has
	MessageSealedOnly       = "sealed requests only" // the domain takes no signed request in clear
	MessageReplay           = "Timestamp can't be repeated in 20 minutes"
	MessageInvalidJSON      = "Invalid JSON"
	MessageTooLarge         = "Request body too large."
	MessageUnknownAction    = "API Not Found"
	MessageTooMany          = "Too many requests."
	MessageFullKeys         = "The limit of keys is reached."
	MessageFullSecrets      = "The limit of secrets is reached."
	MessageKeyUnknown       = "keyid error"         // unknown or another tenant's
	MessageKeyNotFound      = "not find this keyid" // the same, of EnableKey and DisableKey
	MessageKeyDisabled      = "keyid is disabled"
	MessageKeyExpired       = "keyid expire"
	MessageDecryptionFailed = "Decryption failed, Please confirm that your parameters are correct."
	MessageExportFailed     = "Failed, Please confirm that your parameters are correct." // a data key does not open, or does not fit
	MessageExportTarget     = "key invalid."                                             // no key to export a data key to
	MessageImportToken      = "ImportToken failed."                                      // wrong, replaced, used, or failed too often
	MessageImportExpired    = `Token validity time is 24 hours. Try to send "GetParametersForImport" request again.`
	MessageImportFailed     = "Import key failed." // material that does not unwrap, does not fit, or is not what the key has
	MessageEnrollFailed     = "enroll user info failed"
	MessageQuotePolicy      = "Invalid  policyId." // unknown or another tenant's; two spaces
	MessageQuoteLength      = "The quote's length is invalid."
	MessageBatchVersions    = "Too many key versions in one batch." // send fewer ciphertexts at a time
	MessageException        = "Server exception."
	MessageInternal         = "Server internal error, please contact the administrator."
)

// Texts of refusals of the actions on secrets. That of GetSecretValue for an
// unknown secret has the name between its two parts.
const (
	MessageSecretExists           = "Secret name already exists, cannot use the same secret name"
	MessageSecretUpdateUnknown    = "Cannot find secretName"
	MessageSecretPutUnknown       = "Can not find secretName"
	MessageSecretDeleteUnknown    = "Delete error, Can not find the secretName"
	MessageSecretRestoreUnknown   = "Can not restore secret, the secretName not find."
	MessageSecretGetUnknownBefore = "Can't find the "
	MessageSecretGetUnknownAfter  = "'s value."
	MessageSecretUpdateDeleted    = "Can not modify a deleted secret."
	MessageSecretPutDeleted       = "Can not put value for a deleted secret."
	MessageSecretKeyUnknown       = "Cannot find cmk by keyid."
	MessageSecretNoDefaultKey     = "Cannot find default CMK."
	MessageSecretRotation         = "The rotation time is less than 6 hours or more than 8760 hours"
)

// Error is a refusal by the service. Message is meant for the caller; it carries
// no key material.
type Error struct {
	Code    int    `json:"code"`
	Message string `json:"message"`
}

// Error returns the message and the code. The message is quoted unless it is
// printable, because it may come from a host that nobody vouches for.
func (e *Error) Error() string {
	if len(e.Message) > maxShown || !printable(e.Message) {
		return fmt.Sprintf("%.*q (code %d)", maxShown, e.Message, e.Code)
	}
	return fmt.Sprintf("%s (code %d)", e.Message, e.Code)
}

const maxShown = 256 // bytes of a message in an error text

// printable reports whether s can be shown on a terminal as it is.
func printable(s string) bool {
	for _, c := range []byte(s) {
		if c < ' ' || c > '~' {
			return false
		}
	}
	return s != ""
}
