package strictjson

// Names returns the names of an object's members, in the order of the text.
func (n *Node) Names() []string {
	if n.doc.err != nil {
		return nil
	}
	o := n.object()
	names := make([]string, 0, len(o))
	for _, member := range o {
		names = append(names, member.name)
	}
	return names
}

// IsArray reports whether the value is an array.
func (n *Node) IsArray() bool {
	_, ok := n.value.(array)
	return ok && n.doc.err == nil
}
