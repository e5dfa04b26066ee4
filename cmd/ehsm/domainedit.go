package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// edits are the flags of ehsm domain manifest edit.
type edits struct {
	from             string
	set, add, remove []string
}

// tree is an object of JSON.
type tree = map[string]any

// apply returns changed terms. A member that there is not is an error.
func (e *edits) apply(terms *manifest.Terms) (*manifest.Terms, error) {
	root, err := toTree(terms)
	if err != nil {
		return nil, err
	}
	if e.from != "" {
		if err := mergeFile(root, e.from); err != nil {
			return nil, err
		}
	}
	for _, step := range []struct {
		texts []string
		do    func(at tree, member, value string) error
	}{{e.remove, removeEntry}, {e.add, addEntry}, {e.set, setMember}} {
		for _, text := range step.texts {
			if err := atPath(root, text, step.do); err != nil {
				return nil, usageError{err}
			}
		}
	}
	return fromTree(root)
}

func toTree(v any) (tree, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	var root tree
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	return root, d.Decode(&root)
}

// fromTree reads terms, and refuses members that they do not have: encoding/json
// takes a name in another case for the same, and the last of two.
func fromTree(root tree) (*manifest.Terms, error) {
	b, err := json.Marshal(root)
	if err != nil {
		return nil, err
	}
	if name := strange(root, memberNames(reflect.TypeFor[manifest.Terms]())); name != "" {
		return nil, usagef("no manifest has a member %s", name)
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	terms := new(manifest.Terms)
	if err := d.Decode(terms); err != nil {
		return nil, usageError{fmt.Errorf("the result is no manifest: %w", err)}
	}
	return terms, nil
}

// memberNames lists the names of JSON members at any depth of a type.
func memberNames(t reflect.Type) (names []string) {
	switch t.Kind() {
	case reflect.Pointer, reflect.Slice:
		return memberNames(t.Elem())
	case reflect.Struct:
		for i := range t.NumField() {
			name, _, _ := strings.Cut(t.Field(i).Tag.Get("json"), ",")
			names = append(append(names, name), memberNames(t.Field(i).Type)...)
		}
	}
	return names
}

// strange returns a name in a tree that is not one of known, "" if there is none.
func strange(v any, known []string) string {
	switch v := v.(type) {
	case tree:
		for _, name := range slices.Sorted(maps.Keys(v)) {
			if !slices.Contains(known, name) {
				return name
			}
			if name := strange(v[name], known); name != "" {
				return name
			}
		}
	case []any:
		for _, entry := range v {
			if name := strange(entry, known); name != "" {
				return name
			}
		}
	}
	return ""
}

// atPath does something at the member that "PATH=VALUE" names.
func atPath(root tree, text string, do func(at tree, member, value string) error) error {
	path, value, ok := strings.Cut(text, "=")
	if !ok || path == "" {
		return fmt.Errorf("%q is not of the form path=value", text)
	}
	at, names := root, strings.Split(path, ".")
	for _, name := range names[:len(names)-1] {
		if at[name] == nil {
			at[name] = tree{} // custodians, say, where there were none
		}
		next, ok := at[name].(tree)
		if !ok {
			return fmt.Errorf("%s: %s is no object", path, name)
		}
		at = next
	}
	if err := do(at, names[len(names)-1], value); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// parseValue reads JSON; what is none is a text.
func parseValue(text string) any {
	var v any
	d := json.NewDecoder(strings.NewReader(text))
	d.UseNumber()
	if err := d.Decode(&v); err != nil || d.More() {
		return text
	}
	return v
}

func setMember(at tree, member, value string) error {
	at[member] = parseValue(value)
	return nil
}

func addEntry(at tree, member, value string) error {
	list, ok := at[member].([]any)
	if !ok && at[member] != nil {
		return errors.New("it is no list")
	}
	v := parseValue(value)
	if path, ok := strings.CutPrefix(value, "@"); ok {
		p, _, err := readPerson(path) // its size tells what it cannot be for
		if err != nil {
			return err
		}
		v = tree{"name": p.Name, "key": p.Key}
	}
	at[member] = append(list, v)
	return nil
}

// removeEntry takes one entry out of a list.
func removeEntry(at tree, member, value string) error {
	list, ok := at[member].([]any)
	if !ok {
		return errors.New("it is no list")
	}
	left := slices.DeleteFunc(slices.Clone(list), func(entry any) bool { return isNamed(entry, value) })
	switch len(list) - len(left) {
	case 0:
		return fmt.Errorf("no entry is named %q", value)
	case 1:
		at[member] = left
		return nil
	}
	return fmt.Errorf("%d entries are named %q; use --from with the whole list", len(list)-len(left), value)
}

// isNamed reports whether an entry of a list is a text, or an object that has it
// in a member by which people know it.
func isNamed(entry any, name string) bool {
	if o, ok := entry.(tree); ok {
		for _, member := range []string{"name", "role", "advisory"} {
			if o[member] == name {
				return true
			}
		}
		return false
	}
	return entry == name
}

// mergeFile applies a JSON merge patch, RFC 7396.
func mergeFile(root tree, path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var patch tree
	if err := d.Decode(&patch); err != nil {
		return fmt.Errorf("read %s: want one JSON object: %w", path, err)
	}
	if d.More() {
		return fmt.Errorf("read %s: want one JSON object", path)
	}
	merge(root, patch)
	return nil
}

func merge(root, patch tree) {
	for name, v := range patch {
		sub, isTree := v.(tree)
		at, ok := root[name].(tree)
		switch {
		case v == nil:
			delete(root, name)
		case isTree && ok:
			merge(at, sub)
		default:
			root[name] = v
		}
	}
}
