package ehsm

import (
	"bytes"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
)

// ErrNoCredentials is returned for calls that need an app id and an API key.
var ErrNoCredentials = errors.New("no credentials: enroll first")

// A signed request is usable once; signing again draws a new nonce.
type signed struct {
	body []byte
	mac  [32]byte // of a key pair's, SHA-256 of what is signed
}

// Sign returns the body of a POST request for the action: payload, a JSON object
// or nothing, with a member action added unless it has one, inside the signed
// envelope. The body is usable once and for a few minutes.
//
// Members that are null, "", 0, false or empty arrays are not covered by the
// signature and have no effect at the service; leave them out.
func (c *Client) Sign(action string, payload []byte) ([]byte, error) {
	s, err := c.sign(action, payload, false)
	return s.body, err
}

func (c *Client) sign(action string, payload []byte, sealed bool) (s signed, err error) {
	if c.apiKey.IsZero() && c.pair == nil {
		return s, ErrNoCredentials
	}
	if payload, err = addMembers(action, payload, sealed); err != nil {
		return s, err
	}
	req := api.Request{
		AppID:     c.appID,
		Nonce:     rand.Text(), // at least 128 bits
		Payload:   payload,
		Timestamp: strconv.FormatInt(c.now().UnixMilli(), 10),
	}
	if c.pair != nil {
		req.Credential = c.pair.ID
	}
	body, err := json.Marshal(req)
	if err != nil {
		return s, fmt.Errorf("encode request: %w", err)
	}
	// The signature is computed from the bytes that are sent, not from what they
	// were made of. The empty sign member is the last one and not covered.
	tree, err := canon.Parse(body)
	if err != nil {
		return s, fmt.Errorf("read payload: %w", err)
	}
	signature, err := c.signRequest(&s, tree.AppendCanonical(nil, canon.Skipping))
	if err != nil {
		return s, fmt.Errorf("sign request: %w", err)
	}
	s.body = append(body[:len(body)-len(`"}`)], base64.StdEncoding.EncodeToString(signature)+`"}`...)
	return s, nil
}

// signRequest signs a canonical string, and notes in s what its reply will be about.
func (c *Client) signRequest(s *signed, message []byte) ([]byte, error) {
	if c.pair != nil {
		s.mac = sha256.Sum256(message)
		return c.pair.sign(message)
	}
	mac := hmac.New(sha256.New, c.apiKey.get().text)
	mac.Write(message)
	mac.Sum(s.mac[:0])
	return s.mac[:], nil
}

// addMembers puts the action into the payload, before its members, and that the request
// is to be sealed, if it is. Those that the payload has already stay as they are.
func addMembers(action string, payload []byte, sealed bool) ([]byte, error) {
	if payload = bytes.TrimSpace(payload); len(payload) == 0 {
		payload = []byte("{}")
	}
	tree, err := canon.Parse(payload)
	if err != nil {
		return nil, fmt.Errorf("read payload: %w", err)
	}
	members := map[string]string{}
	if tree.Get(api.ActionMember).Kind() == canon.Absent {
		members[api.ActionMember] = action
	}
	if sealed && tree.Get(api.SealedMember).Kind() == canon.Absent {
		members[api.SealedMember] = api.SealedYes
	}
	if len(members) == 0 {
		return payload, nil
	}
	first, err := json.Marshal(members)
	if err != nil {
		return nil, fmt.Errorf("encode action: %w", err)
	}
	if tree.Len() == 0 {
		return first, nil
	}
	return bytes.Join([][]byte{first[:len(first)-1], payload[1:]}, []byte(",")), nil
}
