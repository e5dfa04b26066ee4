package core

import (
	"encoding/base64"
	"encoding/json"
	"slices"
	"strconv"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// result is what an action that went well says.
type result struct {
	message string
	body    []byte // JSON object, nil for {}
}

// release makes the answer with the reply to a request.
func (x *request) release(res result, err error) *wire.Answer {
	code := codeOK
	if err != nil {
		r := asRefusal(err)
		code, res = r.code, result{r.message, r.result}
	}
	a := &wire.Answer{Kind: wire.Final, Code: code, Reply: appendEnvelope(nil, code, res)}
	if x.authenticated {
		a.Sign = x.sign(a.Reply)
		a.Release = x.hold()
	}
	if x.sealed != nil { // check: sealed-reply
		x.sealed.close(a, x.authenticated)
	}
	return a
}

// appendEnvelope appends the reply body.
func appendEnvelope(dst []byte, code int, res result) []byte {
	if res.body == nil {
		res.body = []byte("{}")
	}
	if cap(dst) == 0 {
		dst = make([]byte, 0, 64+len(res.message)+len(res.body))
	}
	dst = append(dst, `{"code":`...)
	dst = strconv.AppendInt(dst, int64(code), 10)
	dst = append(dst, `,"message":`...)
	dst = appendJSON(dst, res.message)
	dst = append(dst, `,"result":`...)
	dst = append(dst, res.body...)
	return append(dst, '}')
}

// sign returns the reply signature.
func (x *request) sign(body []byte) string {
	if x.credential.Kind != record.APIKey {
		return x.signPair(body)
	}
	return api.ReplySignature((*[32]byte)(x.credential.replies.Expose()), &x.mac, x.call.Action, body)
}

// Two identical requests of a client that sends no nonce differ only in their
// millisecond. So that it can send them one after the other, the reply to the
// first is held until its millisecond has passed, at most this long.
const maxHold = 2_000 // microseconds

func (x *request) hold() int64 {
	if x.hasNonce {
		return 0
	}
	until := (x.timestamp + 1) * 1000
	if until <= x.now {
		return 0
	}
	return min(until, x.now+maxHold)
}

// object builds a JSON object by hand: the hot replies have two members.
type object []byte

func (o object) key(name string) object {
	if len(o) == 0 {
		o = append(o, '{')
	} else {
		o = append(o, ',')
	}
	o = append(o, '"')
	o = append(o, name...)
	return append(o, '"', ':')
}

// base64 adds a member whose value is b in standard base64.
func (o object) base64(name string, b []byte) object {
	o = slices.Grow(o, len(`,"":""}`)+len(name)+base64.StdEncoding.EncodedLen(len(b)))
	o = append(o.key(name), '"')
	o = base64.StdEncoding.AppendEncode(o, b)
	return append(o, '"')
}

func (o object) text(name, s string) object { return appendJSON(o.key(name), s) }

// list adds an array of texts.
func (o object) list(name string, texts []string) object {
	o = append(o.key(name), '[')
	for i, s := range texts {
		if i > 0 {
			o = append(o, ',')
		}
		o = appendJSON(o, s)
	}
	return append(o, ']')
}

func (o object) integer(name string, n int64) object {
	return strconv.AppendInt(o.key(name), n, 10)
}

func (o object) boolean(name string, v bool) object {
	return strconv.AppendBool(o.key(name), v)
}

// raw adds a member whose value is JSON already.
func (o object) raw(name string, value []byte) object { return append(o.key(name), value...) }

func (o object) end() []byte {
	if len(o) == 0 {
		return []byte("{}")
	}
	return append(o, '}')
}

// appendJSON appends s as a JSON string.
func appendJSON(dst []byte, s string) []byte {
	for i := range len(s) {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' || c == '<' || c == '>' || c == '&' {
			b, _ := json.Marshal(s) // a string always encodes
			return append(dst, b...)
		}
	}
	dst = append(dst, '"')
	dst = append(dst, s...)
	return append(dst, '"')
}
