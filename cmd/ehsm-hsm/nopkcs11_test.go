//go:build !pkcs11

package main

import (
	"strings"
	"testing"
)

// notHere is what is said of an HSM that cannot be used.
const notHere = "go build -tags pkcs11 ./cmd/ehsm-hsm"

func TestServeWithoutTag(t *testing.T) {
	if code, _, stderr := call(t, complete(), "serve"); code != 1 || !strings.Contains(stderr, notHere) {
		t.Errorf("got %d, %q", code, stderr)
	}
}
