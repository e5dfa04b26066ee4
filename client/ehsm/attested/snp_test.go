package attested

import (
	"encoding/pem"
	"strings"
	"testing"
)

func snpCollateral(t testing.TB) []byte {
	vcek := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: read(t, "snp/testdata/vcek.testcer")})
	return append(vcek, read(t, "snp/testdata/milan.testcer")...)
}

func snpPolicy(t testing.TB) *Policy {
	t.Helper()
	p, err := ParsePolicy([]byte(`{"format":"ehsm-snp-policy/v1","any_chip":true,"without_crl":true,
		"min_tcb":{"bootloader":2,"tee":0,"snp":5,"microcode":68},
		"guests":[{"name":"guest","measurement":"` + strings.Repeat("ab", 48) + `"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	return p
}
