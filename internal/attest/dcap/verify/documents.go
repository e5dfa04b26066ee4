package verify

import (
	"crypto/ecdsa"
	"fmt"
	"math"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

// Limits of signed documents. Intel's have less than 40 levels and 20 advisories.
const (
	maxLevels     = 256
	maxAdvisories = 256
	maxAdvisory   = 64 // characters
)

// Members that this reader does not know are passed over in both documents, as
// Intel's library does: they are signed, and Intel adds some without a new
// version. Members that change the meaning of the others come with one.

// header is what TCB info and QE identity have in common.
type header struct {
	issued, next time.Time
	evaluation   uint32 // tcbEvaluationDataNumber: grows with each TCB recovery
}

// A levelStatus is what a document says of a TCB level.
type levelStatus struct {
	date       time.Time
	status     Status
	advisories []string
}

// authentic checks the signer of a document and its signature, over the bytes
// as they were served. Only then is the document parsed.
func (v *verification) authentic(document []byte, signature *[64]byte, chain []byte) error {
	if len(document) == 0 {
		return ErrDocumentMissing
	}
	if len(document) > MaxDocument {
		return fmt.Errorf("%w: %d bytes, limit %d", strictjson.ErrTooLong, len(document), MaxDocument)
	}
	signer, err := v.signerChain(chain)
	if err != nil {
		return err
	}
	if !verifiesRaw(signer.PublicKey.(*ecdsa.PublicKey), document, signature) { // the type: checkCertificate
		return ErrSignatureMismatch
	}
	return nil
}

// current holds a document to its dates and to the least evaluation number.
func (v *verification) current(h header) error {
	if err := v.fresh(h.issued, h.next, ErrDocumentNotYetValid, ErrDocumentExpired); err != nil {
		return err
	}
	if h.evaluation < v.o.MinTCBEvaluation {
		return fmt.Errorf("%w: %d, want at least %d", ErrEvaluationNumber, h.evaluation, v.o.MinTCBEvaluation)
	}
	return nil
}

// readHeader reads the common members and checks id and version.
func readHeader(n *strictjson.Node, id string, version uint64) (h header, err error) {
	gotVersion := n.Member("version").Uint(math.MaxUint32) // first, as versions differ in their members
	if n.Err() == nil && gotVersion != version {
		return h, fmt.Errorf("%w: %d, want %d", ErrDocumentVersion, gotVersion, version)
	}
	gotID := n.Member("id").Text()
	if n.Err() == nil && gotID != id {
		return h, fmt.Errorf("%w: %q, want %q", ErrDocumentID, gotID, id)
	}
	h = header{
		issued:     n.Member("issueDate").Time(),
		next:       n.Member("nextUpdate").Time(),
		evaluation: uint32(n.Member("tcbEvaluationDataNumber").Uint(math.MaxUint32)),
	}
	return h, n.Err()
}

func readLevelStatus(n *strictjson.Node) (l levelStatus, err error) {
	l.date = n.Member("tcbDate").Time()
	word := n.Member("tcbStatus").Text()
	if n.Has("advisoryIDs") {
		for _, a := range n.Member("advisoryIDs").Items(maxAdvisories) {
			id := a.Text()
			if len(id) > maxAdvisory {
				return l, fmt.Errorf("%w: advisory of %d characters", strictjson.ErrTooLong, len(id))
			}
			l.advisories = append(l.advisories, id)
		}
	}
	if n.Err() != nil {
		return l, n.Err()
	}
	l.status, err = ParseStatus(word)
	return l, err
}
