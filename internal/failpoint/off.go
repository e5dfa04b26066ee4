//go:build !failpoints

package failpoint

// Hit does nothing and returns nil.
func Hit(point, detail string) error { return nil }
