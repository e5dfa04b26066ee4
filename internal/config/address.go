package config

import (
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
)

// ErrAddress is wrapped by the errors for addresses of the stream between
// manager and core.
var ErrAddress = errors.New("not a stream address")

// ParseAddress splits the address of a stream between manager and core into
// what package net wants: "unix:/run/ehsm/core.sock" or "tcp:127.0.0.1:9001".
// Paths are absolute. Of TCP only loopback addresses are accepted, as numbers:
// the stream is not encrypted, and a name could be pointed elsewhere.
func ParseAddress(s string) (network, address string, err error) {
	network, address, _ = strings.Cut(s, ":")
	switch network {
	case "unix":
		if !filepath.IsAbs(address) {
			return "", "", fmt.Errorf("%w: path of %q is not absolute", ErrAddress, s)
		}
		return network, address, nil
	case "tcp":
		a, err := netip.ParseAddrPort(address)
		if err != nil {
			return "", "", fmt.Errorf("%w: %q: %w", ErrAddress, s, err)
		}
		if !a.Addr().Unmap().IsLoopback() {
			return "", "", fmt.Errorf("%w: %q is not on loopback", ErrAddress, s)
		}
		return network, address, nil
	}
	return "", "", fmt.Errorf("%w: %q is neither unix:/PATH nor tcp:127.0.0.1:PORT", ErrAddress, s)
}
