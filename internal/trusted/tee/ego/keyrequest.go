package ego

import (
	"encoding/binary"
	"fmt"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// Values of KEYREQUEST. Source: Intel SDM volume 3D, section 39.17; the masks are
// those of Open Enclave, include/openenclave/bits/sgx/sgxtypes.h.
const (
	keyRequestSize = 512 // bytes
	keyNameSeal    = 4
	policyEnclave  = 1
	policySigner   = 2

	// Bits of ATTRIBUTES that the key is bound to: INIT, DEBUG, the
	// reserved bit 3 and bits 56 to 63.
	flagsMask uint64 = 0xff0000000000000b
	miscMask  uint32 = 0xf0000000
)

// keyRequest is what varies of a KEYREQUEST.
type keyRequest struct {
	policy uint16
	isvSVN uint16
	cpuSVN [16]byte
	keyID  [32]byte
}

// sgxPolicy returns KEYPOLICY of a policy. Errors: tee.ErrKeyRequest.
func sgxPolicy(p tee.Policy) (uint16, error) {
	switch p {
	case tee.BindSigner:
		return policySigner, nil
	case tee.BindMeasured:
		return policyEnclave, nil
	}
	return 0, fmt.Errorf("%w: policy %d is unknown", tee.ErrKeyRequest, p)
}

// encode returns the bytes that EGETKEY takes, little endian.
func (r keyRequest) encode() []byte {
	le := binary.LittleEndian
	b := make([]byte, 0, keyRequestSize)
	b = le.AppendUint16(b, keyNameSeal)
	b = le.AppendUint16(b, r.policy)
	b = le.AppendUint16(b, r.isvSVN)
	b = le.AppendUint16(b, 0)
	b = append(b, r.cpuSVN[:]...)
	b = le.AppendUint64(b, flagsMask)
	b = le.AppendUint64(b, 0) // XFRM
	b = append(b, r.keyID[:]...)
	b = le.AppendUint32(b, miscMask)
	return b[:keyRequestSize]
}

// decodeKeyRequest reads what encode wrote, and refuses every other request.
// Errors: tee.ErrKeyRequest.
func decodeKeyRequest(b []byte) (keyRequest, error) {
	if len(b) != keyRequestSize {
		return keyRequest{}, fmt.Errorf("%w: key request of %d bytes, want %d", tee.ErrKeyRequest, len(b), keyRequestSize)
	}
	le := binary.LittleEndian
	r := keyRequest{policy: le.Uint16(b[2:]), isvSVN: le.Uint16(b[4:]), cpuSVN: [16]byte(b[8:]), keyID: [32]byte(b[40:])}
	if string(r.encode()) != string(b) {
		return keyRequest{}, fmt.Errorf("%w: EGo's key request has other masks than this program knows", tee.ErrKeyRequest)
	}
	return r, nil
}
