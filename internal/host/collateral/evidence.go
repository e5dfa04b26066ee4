package collateral

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/attest"
)

// ErrEvidence says that an answer of GetEvidence is none.
var ErrEvidence = errors.New("core has given no evidence")

// QuoteIn returns the SGX quote in the body of an answer of GetEvidence, for
// NewOwn. It verifies nothing. Errors wrap ErrNoEvidence for evidence of another
// kind of TEE, else ErrEvidence.
func QuoteIn(body []byte) ([]byte, error) {
	var answer struct {
		Code    int
		Message string
		Result  api.GetEvidenceResult
	}
	if err := json.Unmarshal(body, &answer); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	if answer.Code != 200 {
		return nil, fmt.Errorf("%w: code %d, %q", ErrEvidence, answer.Code, answer.Message)
	}
	e, err := attest.DecodeEvidenceOf(answer.Result.Evidence, attest.SGXQuote3, attest.TDXQuote4, attest.TDXQuote5, attest.SNPReport)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrEvidence, err)
	}
	if e.Kind != attest.SGXQuote3 {
		return nil, fmt.Errorf("%w: its evidence is a %v", ErrNoEvidence, e.Kind)
	}
	return e.Quote, nil
}
