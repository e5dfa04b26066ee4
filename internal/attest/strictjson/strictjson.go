// Package strictjson reads JSON that decides about trust: signed collateral and
// policies. Member names are compared exactly, and a name that occurs twice in
// an object is an error, as two readers may otherwise see two documents.
//
// It holds no secrets.
package strictjson

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"unicode/utf8"
)

// Errors of Parse and of the methods of Node, wrapped with the place.
var (
	ErrTooLong   = errors.New("JSON document is too long")
	ErrSyntax    = errors.New("not one JSON value in UTF-8")
	ErrDepth     = errors.New("JSON is nested too deeply")
	ErrMembers   = errors.New("JSON object has too many members")
	ErrDuplicate = errors.New("member occurs twice")
	ErrMissing   = errors.New("member is missing")
	ErrUnknown   = errors.New("member is unknown")
	ErrType      = errors.New("value has the wrong type")
	ErrValue     = errors.New("value is out of range or malformed")
)

const (
	maxDepth   = 16 // Intel's documents have 5
	maxMembers = 64 // of one object; Intel's have 13
)

// A Document is a parsed value with the first error met while it was read.
type Document struct {
	raw []byte
	err error
}

// Err returns the first error of the methods of the document's nodes. Nothing
// read from the document may be used before Err has returned nil.
func (d *Document) Err() error { return d.err }

// A Node is a value in a Document. After an error in the document its methods
// return zero values.
type Node struct {
	doc        *Document
	parent     *Node
	name       string // in parent; empty for the values of an array
	index      int    // in parent
	value      any    // object, array, string, json.Number, bool, or nil
	start, end int    // in doc.raw
}

// path says where in the document the node is, such as ".tcbLevels[3].tcb".
func (n *Node) path() string {
	switch {
	case n.parent == nil:
		return ""
	case n.name == "":
		return fmt.Sprintf("%s[%d]", n.parent.path(), n.index)
	}
	return n.parent.path() + "." + n.name
}

// object has the members in the order of the text. They are few, so that a
// search is short.
type object []*Node

func (o object) find(name string) *Node {
	for _, n := range o {
		if n.name == name {
			return n
		}
	}
	return nil
}

type array []*Node

// Parse reads one value of at most limit bytes. The document shares memory with
// b. Errors: ErrTooLong, ErrSyntax, ErrDepth, ErrMembers,
// ErrDuplicate.
func Parse(b []byte, limit int) (*Document, *Node, error) {
	if len(b) > limit {
		return nil, nil, fmt.Errorf("%w: %d bytes, limit %d", ErrTooLong, len(b), limit)
	}
	// Decoder.Token alone takes some texts that are not JSON, and turns bytes
	// that are not UTF-8 into U+FFFD.
	if !utf8.Valid(b) || !json.Valid(b) {
		return nil, nil, ErrSyntax
	}
	p := parser{dec: json.NewDecoder(bytes.NewReader(b)), doc: &Document{raw: b}}
	p.dec.UseNumber()
	root := &Node{doc: p.doc}
	if err := p.value(root, 0); err != nil {
		return nil, nil, err
	}
	return p.doc, root, nil
}

type parser struct {
	dec *json.Decoder
	doc *Document
}

func (p *parser) value(n *Node, depth int) error {
	if depth > maxDepth {
		return fmt.Errorf("%w: more than %d levels", ErrDepth, maxDepth)
	}
	t, err := p.dec.Token()
	if err != nil {
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	delim, nested := t.(json.Delim)
	if !nested {
		n.value = t
		return nil
	}
	n.start = int(p.dec.InputOffset()) - 1
	if delim == '{' {
		err = p.object(n, depth)
	} else {
		err = p.array(n, depth)
	}
	if err != nil {
		return err
	}
	if _, err := p.dec.Token(); err != nil { // the closing delimiter
		return fmt.Errorf("%w: %w", ErrSyntax, err)
	}
	n.end = int(p.dec.InputOffset())
	return nil
}

func (p *parser) object(parent *Node, depth int) error {
	var o object
	for p.dec.More() {
		t, err := p.dec.Token()
		name, ok := t.(string)
		if err != nil || !ok {
			return fmt.Errorf("%w: member name in %q: %v", ErrSyntax, parent.path(), err)
		}
		n := &Node{doc: p.doc, parent: parent, name: name}
		switch {
		case len(o) == maxMembers:
			return fmt.Errorf("%w: more than %d", ErrMembers, maxMembers)
		case o.find(name) != nil:
			return fmt.Errorf("%w: %s", ErrDuplicate, n.path())
		}
		if err := p.value(n, depth+1); err != nil {
			return err
		}
		o = append(o, n)
	}
	parent.value = o
	return nil
}

func (p *parser) array(parent *Node, depth int) error {
	var a array
	for p.dec.More() {
		n := &Node{doc: p.doc, parent: parent, index: len(a)}
		if err := p.value(n, depth+1); err != nil {
			return err
		}
		a = append(a, n)
	}
	parent.value = a
	return nil
}
