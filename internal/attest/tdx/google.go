package tdx

import (
	"crypto/x509"
	"errors"

	"github.com/google/go-tdx-guest/abi"
	google "github.com/google/go-tdx-guest/verify"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// noNetwork is what go-tdx-guest would fetch with if it fetched anything.
type noNetwork struct{}

func (noNetwork) Get(string) (map[string][]string, []byte, error) {
	return nil, nil, errors.New("nothing is fetched while a quote is verified")
}

// secondOpinion asks go-tdx-guest about a quote of version 4: certificate chain,
// report of the quoting enclave, signature of the quote. Collateral is not given
// to it: it compares the FMSPC of TCB info as text, in lower case, and so refuses
// what Intel serves in upper case, and it knows no status but UpToDate.
func secondOpinion(q *Quote, o verify.Options) error {
	if q.Version != version4 {
		return nil
	}
	roots := x509.NewCertPool()
	for _, root := range o.Roots {
		roots.AddCert(root)
	}
	parsed, err := abi.QuoteToProto(q.unpadded)
	if err != nil {
		return err
	}
	return google.TdxQuote(parsed, &google.Options{Getter: noNetwork{}, Now: o.Now, TrustedRoots: roots})
}
