package primitive

// SpecNames returns the native names of all specs, in the order of their
// numbers.
func SpecNames() []string {
	var names []string
	for _, s := range specs {
		if s.name != "" {
			names = append(names, s.name)
		}
	}
	return names
}
