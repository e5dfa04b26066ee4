package provision

// Newest is the newest version of the DomainKey that somebody has: a peer, as its
// heartbeats say, which come before the manifests that it brings, or another member;
// 0: nobody has any.
func (a *Members) Newest() uint32 {
	a.mu.Lock()
	defer a.mu.Unlock()
	newest := a.newest
	for _, m := range a.known {
		newest = max(newest, m.DomainKey)
	}
	return newest
}
