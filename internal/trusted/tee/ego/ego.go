//go:build ego

package ego

import (
	"github.com/edgelesssys/ego/enclave"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// Detect refuses everything but a hardware enclave under EGo: outside one and in
// EGo's simulation the run-time gives keys of zeros and no error.
// Errors: tee.ErrNoPlatform, with what to do.
func Detect() error {
	_, err := detect(runtime{})
	return err
}

// Open opens the platform for the program of a product and version, which the
// enclave must be signed as. It tests report, keys and randomness once.
// Errors: tee.ErrNoPlatform, tee.ErrIdentity, tee.ErrKeyRequest, tee.ErrEntropy.
func Open(product, svn uint16) (*Enclave, error) {
	return open(runtime{}, product, svn, tee.CheckEntropy)
}

// runtime is EGo's. Its functions panic where a pointer to nothing would be
// taken; arrays and encoded requests are never empty.
type runtime struct{}

func (runtime) remoteReport(data [64]byte) ([]byte, error) { return enclave.GetRemoteReport(data[:]) }

func (runtime) localReport(data [64]byte, target []byte) ([]byte, error) {
	return enclave.GetLocalReport(data[:], target)
}

func (runtime) verifyLocal(report []byte) error {
	_, err := enclave.VerifyLocalReport(report)
	return err
}

func (runtime) newKey(p tee.Policy) (key, request []byte, err error) {
	if p == tee.BindMeasured {
		return enclave.GetRandomUniqueSealKey()
	}
	return enclave.GetRandomProductSealKey()
}

func (runtime) key(request []byte) ([]byte, error) { return enclave.GetSealKey(request) }
