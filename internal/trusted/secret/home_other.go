//go:build !linux

package secret

import "errors"

// mapRegion fails: only Linux is supported.
func mapRegion(Memory, int) (region, error) { return region{}, errors.ErrUnsupported }

func unmapRegion(region) error { return nil }
