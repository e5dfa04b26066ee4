package provision

// Newest is the newest version of the DomainKey that a member has, as it said
// itself or somebody nearer to it; 0: nobody has any.
func (a *Members) Newest() uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	newest := uint32(0)
	for _, m := range a.known {
		newest = max(newest, m.DomainKey)
	}
	return newest
}
