package sealed

import (
	"bytes"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"slices"

	"github.com/ehsm-kms/ehsm/api/canon"
)

// An Outer is the part of a sealed request that the manager reads. It is
// authenticated with the request and must say the same.
type Outer struct {
	Action string // as in the URL
	AppID  string // UUID
	KeyID  string // KeyID of the key that the request is sealed to
	Names  []Name // of the records that the manager is to fetch
}

// A Name is the member of a payload that names a record, and the record's UUID.
type Name struct{ Member, ID string }

// Members that name records, in the order in which they are bound. That of a secret
// is its record's ID in place of secretName.
var nameMembers = [...]string{"encryptionKeyId", "keyid", "policyId", memberSecret, "ukeyid"}

const (
	memberSecret = "secretId"
	secretLabel  = "ehsm/secret-name/v1\x00"
	uuidSize     = 36
)

// ErrRequest says that a body is no sealed request.
var ErrRequest = errors.New("not a sealed request")

// NewOuter returns the outer part of a signed request, which has an appid that is a
// lower-case UUID. What names no record is left out, such as a key id that is none:
// the core refuses it with a better text. Errors wrap ErrRequest.
func NewOuter(action, keyID string, request canon.Value) (*Outer, error) {
	o := &Outer{Action: action, AppID: request.Get("appid").Text(), KeyID: keyID}
	if _, ok := uuid(o.AppID); !ok {
		return nil, fmt.Errorf("%w: appid is no lower-case UUID", ErrRequest)
	}
	o.Names = namesOf(o.AppID, request.Get("payload"))
	return o, nil
}

// Matches reports whether the outer part says what the signed request says.
func (o *Outer) Matches(request canon.Value) bool {
	return request.Get("appid").Text() == o.AppID && slices.Equal(o.Names, namesOf(o.AppID, request.Get("payload")))
}

// namesOf reads the names out of a payload.
func namesOf(appID string, payload canon.Value) (names []Name) {
	for _, member := range nameMembers {
		id := payload.Get(member).Text()
		if member == memberSecret {
			if id = ""; payload.Get("secretName").Text() != "" {
				id = secretID(appID, payload.Get("secretName").Text())
			}
		}
		if _, ok := uuid(id); ok {
			names = append(names, Name{member, id})
		}
	}
	return names
}

// secretID is the ID of the record of a tenant's secret, so that its name stays
// hidden as far as it cannot be guessed.
func secretID(appID, name string) string {
	tenant, _ := uuid(appID)
	h := sha256.New()
	h.Write([]byte(secretLabel))
	h.Write(tenant)
	h.Write([]byte(name))
	s := h.Sum(nil)
	return fmt.Sprintf("%x-%x-%x-%x-%x", s[:4], s[4:6], s[6:8], s[8:10], s[10:16])
}

// uuid reads a lower-case UUID.
func uuid(s string) ([]byte, bool) {
	if len(s) != uuidSize || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return nil, false
	}
	digits := s[:8] + s[9:13] + s[14:18] + s[19:23] + s[24:]
	return lowerHex(digits, 16)
}

// lowerHex reads n bytes in lower-case hex.
func lowerHex(s string, n int) ([]byte, bool) {
	b, err := hex.DecodeString(s)
	return b, err == nil && len(b) == n && hex.EncodeToString(b) == s
}

// bound is the additional data of the request.
func (o *Outer) bound() []byte {
	b := []byte(outerLabel)
	add := func(s string) {
		b = binary.BigEndian.AppendUint32(b, uint32(len(s)))
		b = append(b, s...)
	}
	add(o.Action)
	add(o.AppID)
	add(o.KeyID)
	for _, n := range o.Names {
		add(n.Member)
		add(n.ID)
	}
	return b
}

// KeyMember is the member of a body that has the key's id, and of the result of the
// refusal api.MessageSealedKey the one that has that of the instance's key.
const KeyMember = "sealedKey"

const prefix = `{"sealed":"`

// Is reports whether the body of a request is to be read as a sealed one: it begins
// with the member "sealed". Every other body is a request in clear.
func Is(body []byte) bool { return bytes.HasPrefix(body, []byte(prefix)) }

// AppendBody appends the body of the HTTP request with a message of SealRequest. It
// has the names where a request in clear has them.
func (o *Outer) AppendBody(dst, message []byte) []byte {
	dst = append(dst, prefix...)
	dst = base64.StdEncoding.AppendEncode(dst, message)
	dst = fmt.Appendf(dst, `","%s":"%s","appid":"%s"`, KeyMember, o.KeyID, o.AppID)
	for i, n := range o.Names {
		if i == 0 {
			dst = append(dst, `,"payload":{`...)
		} else {
			dst = append(dst, ',')
		}
		dst = fmt.Appendf(dst, `"%s":"%s"`, n.Member, n.ID)
	}
	if len(o.Names) > 0 {
		dst = append(dst, '}')
	}
	return append(dst, '}')
}

// ParseBody reads what AppendBody makes. It has no other members, and names that are
// UUIDs. Errors: ErrRequest.
func ParseBody(action string, body []byte) (o *Outer, message []byte, err error) {
	v, err := canon.Parse(body)
	if err != nil || !Is(body) {
		return nil, nil, ErrRequest
	}
	o = &Outer{Action: action, AppID: v.Get("appid").Text(), KeyID: v.Get(KeyMember).Text()}
	payload := v.Get("payload")
	members := 3
	for _, member := range nameMembers {
		if id := payload.Get(member).Text(); id != "" {
			if _, ok := uuid(id); !ok {
				return nil, nil, ErrRequest
			}
			o.Names = append(o.Names, Name{member, id})
		}
	}
	if len(o.Names) > 0 {
		members++
	}
	_, named := uuid(o.AppID)
	_, keyed := lowerHex(o.KeyID, 16)
	if !named || !keyed || v.Len() != members || payload.Len() != len(o.Names) {
		return nil, nil, ErrRequest
	}
	text := v.Get("sealed").Text()
	message, err = base64.StdEncoding.Strict().DecodeString(text)
	if err != nil || len(message) == 0 || base64.StdEncoding.EncodedLen(len(message)) != len(text) { // base64 skips line ends
		return nil, nil, ErrRequest
	}
	return o, message, nil
}

// ReplyBody is the body of the HTTP reply with a message of SealReply.
func ReplyBody(message []byte) []byte {
	b := []byte(`{"code":200,"message":"sealed","result":{"sealed":"`)
	b = base64.StdEncoding.AppendEncode(b, message)
	return append(b, `"}}`...)
}

// ParseReply returns the message of a sealed reply, nil if the body is none.
func ParseReply(body []byte) []byte {
	var r struct {
		Code   int `json:"code"`
		Result struct {
			Sealed []byte `json:"sealed"`
		} `json:"result"`
	}
	if json.Unmarshal(body, &r) != nil || r.Code != 200 || len(r.Result.Sealed) == 0 {
		return nil
	}
	return r.Result.Sealed
}
