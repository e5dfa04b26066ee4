package core

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"strconv"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

const (
	maxNonce    = 64 // UTF-16 units
	stampDigits = 13
)

// envelope is the part of a request that is checked before its payload.
type envelope struct {
	body  canon.Value
	appID string
	// credential is the id of the key pair that signed, "" for an API key. The
	// signature does not cover it: it says which key must verify.
	credential string
	login      *openCredential // that credential, if it is the token of a workload and holds
	sign       string
	timestamp  int64 // Unix milliseconds
	hasNonce   bool
}

// parseEnvelope checks what can be checked without a key, in the contract's
// order.
func (x *request) parseEnvelope() (e envelope, err error) {
	if len(x.call.Body) == 0 {
		return e, errMissing()
	}
	if e.body, err = canon.Parse(x.call.Body); err != nil {
		return e, errJSON()
	}
	appid, stamp, sign := e.body.Get("appid"), e.body.Get("timestamp"), e.body.Get("sign")
	nonce, payload := e.body.Get("nonce"), e.body.Get("payload")
	noPayload := payload.Kind() == canon.Absent || payload.Kind() == canon.Null
	credential := e.body.Get(api.CredentialMember)
	named := credential.Kind() != canon.Absent && credential.Kind() != canon.Null
	noNonce := nonce.Kind() == canon.Absent || nonce.Kind() == canon.Null
	switch {
	case empty(appid) || empty(stamp) || empty(sign):
		return e, errMissing()
	case noPayload && x.action != nil && x.action.cryptographic:
		return e, errMissing()
	case appid.Kind() != canon.String || stamp.Kind() != canon.String || sign.Kind() != canon.String:
		return e, errType()
	case named && credential.Kind() != canon.String:
		return e, errType()
	case !noNonce && nonce.Kind() != canon.String || !noPayload && payload.Kind() != canon.Object:
		return e, errType()
	case canon.UTF16Len(nonce.Text()) > maxNonce:
		return e, errNonce()
	case canon.UTF16Len(stamp.Text()) != stampDigits:
		return e, errStampLength()
	}
	e.appID, e.sign, e.hasNonce = appid.Text(), sign.Text(), nonce.Text() != ""
	e.credential = credential.Text()
	t, err := strconv.ParseUint(stamp.Text(), 10, 63)
	if err != nil {
		return e, errStamp()
	}
	e.timestamp = int64(t)
	window := x.core.terms.Load().window
	if d := x.millis() - e.timestamp; d >= window || -d >= window { // check: window
		return e, errStamp()
	}
	return e, nil
}

// authenticate decides who sent the request. Afterwards x has the tenant, and
// the returned payload holds only what the signature covers.
func (x *request) authenticate() (canon.Value, error) {
	e, err := x.parseEnvelope()
	if err != nil {
		return canon.Value{}, err
	}
	app := x.core.stranger
	var entry *cached[*openApp]
	tenant, idErr := wire.ParseUUID(e.appID)
	if idErr == nil {
		if entry, err = x.loadTenant(tenant); err != nil {
			return canon.Value{}, err
		}
		if entry != nil {
			app = entry.value
		}
	}
	if strings.HasPrefix(e.credential, api.LoginTokenPrefix) {
		if e.login, err = x.loggedIn(tenant, app, e.credential); err != nil {
			return canon.Value{}, err
		}
	}
	credential, form := x.verify(app, &e)
	if credential == nil && entry != nil && !x.call.Fresh && app.lookAgain(x.millis()) {
		return canon.Value{}, x.need(entry.id)
	}
	if credential == nil { // check: signature
		return canon.Value{}, errSign()
	}
	if entry == nil { // check+: stranger: nobody has the key of the stand-in
		return canon.Value{}, errSign()
	}
	if app.State != record.Active { // check: app-state
		return canon.Value{}, errSign()
	}
	x.timestamp, x.hasNonce, x.sent = e.timestamp, e.hasNonce, e.body.Get("payload")
	payload := e.body.Covered(form).Get("payload")
	named := payload.Get(memberAction)
	if named.Kind() != canon.Absent && named.Text() != x.call.Action { // check: action
		return canon.Value{}, errSign()
	}
	if credential.RequireAction && named.Kind() == canon.Absent { // check: action-required
		return canon.Value{}, errSign()
	}
	if err := x.promise(payload); err != nil {
		return canon.Value{}, err
	}
	x.tenant, x.app, x.credential, x.authenticated = tenant, entry, credential, true
	if !credential.login { // those come and go
		x.core.uses.note(tenant, credential, x.millis())
	}
	return payload, x.admit()
}

// verify returns the credential of the app that the request is signed with and the
// form that its signature covers, or nil. It tries as many API keys as an app may
// have, whatever this one has, so that what is refused takes the same time.
func (x *request) verify(app *openApp, e *envelope) (*openCredential, canon.Form) {
	if e.credential != "" {
		return x.verifyPair(app, e)
	}
	sent, wellFormed := decodeSign(e.sign)
	buf, _ := x.core.buffers.Get().(*[]byte)
	if buf == nil {
		buf = new([]byte)
	}
	defer x.core.buffers.Put(buf)
	none := x.core.stranger.apiKeys[0]
	for i := range record.MaxAPIKeys {
		c := none
		if i < len(app.apiKeys) {
			c = app.apiKeys[i]
		}
		if c.Ended(x.millis()) { // check: credential-expired
			c = none
		}
		form, ok := x.verifyMAC(c, e, &sent, buf)
		if !ok {
			continue
		}
		if !wellFormed { // check: sign-encoding
			return nil, 0
		}
		return c, form
	}
	return nil, 0
}

// decodeSign decodes as much of a signature as a MAC has.
func decodeSign(text string) (mac [sha256.Size]byte, wellFormed bool) {
	var b [sha256.Size + 1]byte
	size := base64.StdEncoding.EncodedLen(sha256.Size)
	n, err := base64.StdEncoding.Strict().Decode(b[:], []byte(cut(text, size)))
	return [sha256.Size]byte(b[:]), err == nil && n == sha256.Size && len(text) == size
}

// verifyMAC checks the MAC of one API key under all accepted forms and returns the
// one that matches.
func (x *request) verifyMAC(c *openCredential, e *envelope, sent *[sha256.Size]byte, buf *[]byte) (canon.Form, bool) {
	for form := range e.body.Forms() {
		*buf = e.body.AppendCanonical((*buf)[:0], form)
		x.mac = c.requests.sum(*buf)
		if hmac.Equal(x.mac[:], sent[:]) {
			return form, true
		}
	}
	return 0, false
}

func cut(s string, n int) string { return s[:min(len(s), n)] }

// admit lets each signed content through once.
func (x *request) admit() error {
	switch x.core.replays.admit(x.tenant, x.tag(), x.timestamp, x.millis()) {
	case admitted:
		x.admitted = true
		return nil
	case replayed:
		return errReplay()
	case tooOld:
		return errStamp()
	default:
		return errTooMany()
	}
}
