package main

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/client/ehsm"
)

// A rewrapLine is one line of a file with ciphertexts.
type rewrapLine struct {
	text       []byte // with its end
	start, end int    // of the base64 in text
	ciphertext []byte // nil: the line is empty
	keyID      string // that ciphertext names
	rewrapped  []byte // what it is encrypted anew
	err        error  // why it is not
}

// parseRewrapLine finds the ciphertext in a line: the whole of it, or a member of a JSON
// object. It must be of the key, unless that is "".
func parseRewrapLine(text []byte, field, key string) rewrapLine {
	l := rewrapLine{text: text}
	content := bytes.TrimRight(text, "\r\n")
	if len(bytes.TrimSpace(content)) == 0 {
		return l
	}
	l.start, l.end = 0, len(content)
	if field != "" {
		if l.start, l.end, l.err = findMember(content, field); l.err != nil {
			return l
		}
	}
	ciphertext, err := base64.StdEncoding.Strict().DecodeString(string(content[l.start:l.end]))
	if err != nil {
		l.err = errors.New("no base64")
		return l
	}
	keyID, ok := ehsm.CiphertextKeyID(ciphertext)
	switch {
	case !ok:
		l.err = errors.New("no ciphertext that names its key")
	case key != "" && keyID != key:
		l.err = fmt.Errorf("ciphertext is for another key than asked for: %s", keyID)
	}
	l.ciphertext, l.keyID = ciphertext, keyID
	return l
}

// joins reports whether a line can be encrypted anew together with others: one request is
// about one key.
func (l *rewrapLine) joins(others []rewrapLine) bool {
	if l.err != nil || l.ciphertext == nil {
		return true
	}
	for i := len(others) - 1; i >= 0; i-- {
		if o := &others[i]; o.err == nil && o.ciphertext != nil {
			return o.keyID == l.keyID
		}
	}
	return true
}

// result is the line with the new ciphertext, or as it was if there is none.
func (l *rewrapLine) result() []byte {
	if l.rewrapped == nil || l.err != nil {
		return l.text
	}
	b := bytes.Clone(l.text[:l.start])
	b = base64.StdEncoding.AppendEncode(b, l.rewrapped)
	return append(b, l.text[l.end:]...)
}

// findMember returns where the text of a member of a JSON object is, between its quotes.
// There must be one of the name, at the top, and its text must not need escapes.
func findMember(object []byte, name string) (start, end int, err error) {
	if !json.Valid(object) {
		return 0, 0, errors.New("no JSON")
	}
	d := json.NewDecoder(bytes.NewReader(object))
	if t, _ := d.Token(); t != json.Delim('{') {
		return 0, 0, errors.New("no JSON object")
	}
	found := false
	for d.More() {
		member, _ := d.Token()
		var value json.RawMessage
		if err := d.Decode(&value); err != nil {
			return 0, 0, err
		}
		if member != name {
			continue
		}
		if found {
			return 0, 0, fmt.Errorf("two members %q", name)
		}
		found = true
		end = int(d.InputOffset()) - 1
		start = end - len(value) + 2
		if value[0] != '"' || bytes.IndexByte(value, '\\') >= 0 {
			return 0, 0, fmt.Errorf("member %q is no text in base64", name)
		}
	}
	if !found {
		return 0, 0, fmt.Errorf("no member %q", name)
	}
	return start, end, nil
}
