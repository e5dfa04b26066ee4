package core

import (
	"errors"

	"github.com/ehsm-kms/ehsm/api"
)

// A refusal is an answer that the caller is meant to see: code and message of
// the envelope, and the reason that goes into the audit entry. Reasons are
// constants, so that nothing a client sent gets into the trail through them.
type refusal struct {
	code    int
	message string
	reason  string
	stores  bool   // the writes of the request are stored all the same
	result  []byte // JSON object for the caller; nil: an empty one
}

func (r *refusal) Error() string { return r.message }

// Codes of the envelope.
const (
	codeOK       = 200
	codeBad      = 400
	codeUnknown  = 404
	codeTooMany  = 429
	codeInternal = 500
)

// Messages of the envelope, as docs/api.md gives them, odd spelling included.
const (
	textSuccess      = "success!"
	textSuccessful   = "successful"
	textSignError    = "sign error"
	textImport       = "ImportKeyMaterial failed."
	textParameters   = "GetParametersForImport failed."
	textTooMany      = "Too many requests."
	textFullKeys     = "The limit of keys is reached."
	textFullSecrets  = "The limit of secrets is reached."
	textDecryption   = "Decryption failed, Please confirm that your parameters are correct."
	textTokenExpired = `Token validity time is 24 hours. Try to send "GetParametersForImport" request again.`
)

func bad(message, reason string) *refusal { return refuse(codeBad, message, reason) }

func refuse(code int, message, reason string) *refusal {
	return &refusal{code: code, message: message, reason: reason}
}

// Refusals that do not depend on the request's content.
func errMissing() *refusal              { return bad("Missing required parameters", "missing parameters") }
func errJSON() *refusal                 { return bad("Invalid JSON", "invalid JSON") }
func errType() *refusal                 { return bad("param type error", "parameter type") }
func errNonce() *refusal                { return bad("Nonce length error", "nonce length") }
func errStampLength() *refusal          { return bad("Timestamp length error", "timestamp length") }
func errStamp() *refusal                { return bad("Timestamp error", "timestamp") }
func errSign() *refusal                 { return bad(textSignError, "sign error") }
func errReplay() *refusal               { return bad("Timestamp can't be repeated in 20 minutes", "replay") }
func errKeyID() *refusal                { return bad("keyid error", "no such key") }
func errVersion(reason string) *refusal { return bad("keyversion error", reason) }
func errDisabled() *refusal             { return bad("keyid is disabled", "key disabled") }
func errExpired() *refusal              { return bad("keyid expire", "key expired") }
func errDecryption() *refusal           { return bad(textDecryption, "decryption failed") }

// errPKCS1 is errDecryption with a reason of its own, as it tells of an attack.
func errPKCS1() *refusal { return bad(textDecryption, "PKCS#1 v1.5 decryption failed") }

// errEmpty refuses the lack of a member.
func errEmpty(name string) *refusal {
	return bad("Missing required parameters, The "+name+" cannot be empty.", "missing member")
}

func errAPI() *refusal     { return refuse(codeUnknown, "API Not Found", "unknown action") }
func errTooMany() *refusal { return refuse(codeTooMany, textTooMany, "too many requests") }

// errLimit refuses a request of an app that has made too many.
func errLimit() *refusal { return refuse(codeTooMany, textTooMany, "limit of requests") }

// Refusals to make one more of what an app has as many of as it may.
func errFullKeys() *refusal { return refuse(codeTooMany, textFullKeys, "limit of keys") }
func errFullPolicies() *refusal {
	return refuse(codeTooMany, api.MessageFullPolicies, "limit of policies")
}
func errFullSecrets() *refusal {
	return refuse(codeTooMany, textFullSecrets, "limit of secrets")
}

// errFailures refuses PKCS#1 v1.5 decryptions of a key after too many failures.
func errFailures() *refusal {
	return refuse(codeTooMany, textTooMany, "too many PKCS#1 v1.5 failures")
}

// errServer is the contract's answer to an operation that does not fit the key.
func errServer(reason string) *refusal { return refuse(codeInternal, "Server exception.", reason) }

// Refusals of the two import actions.
func errParameters(reason string) *refusal {
	return refuse(codeInternal, textParameters, reason)
}
func errImport(reason string) *refusal { return refuse(codeInternal, textImport, reason) }
func errToken(reason string) *refusal  { return refuse(codeInternal, "ImportToken failed.", reason) }
func errTokenExpired() *refusal {
	return refuse(codeInternal, textTokenExpired, "import token expired")
}

// errMaterial is the one refusal of material that does not unwrap, does not fit
// or is not what the key has already.
func errMaterial() *refusal {
	return &refusal{code: codeInternal, message: "Import key failed.", reason: "material refused", stores: true}
}

// errInternal is the answer to what should not happen: a record that does not
// open, a stale one, a failure of our own.
func errInternal(reason string) *refusal {
	return refuse(codeInternal, "Server internal error, please contact the administrator.", reason)
}

// asRefusal finds the refusal in err; anything uncoded stays inside.
func asRefusal(err error) *refusal {
	var r *refusal
	if errors.As(err, &r) {
		return r
	}
	return errInternal("internal error")
}
