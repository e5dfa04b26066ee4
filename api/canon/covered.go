package canon

// Covered returns the request v reduced to what a signature over its form f
// protects: of the outermost object only appid, nonce, payload and timestamp,
// and at any depth only members that the form shows. An element that an array
// does not show is Null if others follow it and is cut off at the end, so every
// other element keeps its index. A container with nothing left stays, empty,
// because its name is shown.
//
// It is Absent if v is no Object.
func (v Value) Covered(f Form) Value {
	if v.kind != Object {
		return Value{}
	}
	kids := make([]member, 0, 4)
	for _, m := range v.kids {
		if covers(m.name) && !f.skips(m.value) {
			kids = append(kids, member{m.name, f.prune(m.value)})
		}
	}
	return Value{kind: Object, kids: kids}
}

// prune returns v without what the form does not show inside it. It is v itself
// if all is shown.
func (f Form) prune(v Value) Value {
	if f.showsAll(v) {
		return v
	}
	kids := make([]member, 0, len(v.kids))
	shown := 0 // length of kids up to the last one that is shown
	for _, m := range v.kids {
		switch {
		case !f.skips(m.value):
			kids = append(kids, member{m.name, f.prune(m.value)})
			shown = len(kids)
		case v.kind == Array:
			kids = append(kids, member{value: Value{kind: Null, text: "null"}})
		}
	}
	return Value{kind: v.kind, kids: kids[:shown]}
}

// showsAll reports whether the form skips nothing inside v. Nesting is bounded,
// so asking again at each level is cheaper than building what is not needed.
func (f Form) showsAll(v Value) bool {
	for _, m := range v.kids {
		if f.skips(m.value) || !f.showsAll(m.value) {
			return false
		}
	}
	return true
}
