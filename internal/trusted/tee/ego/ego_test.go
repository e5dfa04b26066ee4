//go:build ego

package ego

import (
	"bytes"
	"errors"
	"testing"

	"github.com/edgelesssys/ego/enclave"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/teetest"
)

// TestHardware runs in an enclave; docs/hardware.md says how.
func TestHardware(t *testing.T) {
	if err := Detect(); err != nil {
		t.Skip("needs TEE hardware, under ego run: ", err)
	}
	teetest.Run(t, func() (tee.Platform, error) { return Open(tee.ProductCore, 1) })
}

// TestRealRuntimeOutside has EGo's own code, outside an enclave.
func TestRealRuntimeOutside(t *testing.T) {
	if err := Detect(); err == nil {
		t.Skip("this is TEE hardware")
	}
	request := keyRequest{policy: policySigner}.encode()
	if k, err := enclave.GetSealKey(request); err != nil || !bytes.Equal(k, make([]byte, 16)) {
		t.Errorf("GetSealKey outside an enclave: got %x, %v; the trap of zero keys and no error is gone", k, err)
	}
	if e, err := Open(tee.ProductCore, 1); e != nil || !errors.Is(err, tee.ErrNoPlatform) {
		t.Errorf("Open: got %v, want ErrNoPlatform", err)
	}
	if _, err := (runtime{}).remoteReport([64]byte{}); err == nil {
		t.Error("remoteReport gives a quote outside an enclave")
	}
	if err := (runtime{}).verifyLocal(withHeader(1, make([]byte, reportSize))); err == nil {
		t.Error("verifyLocal accepts a report outside an enclave")
	}
}
