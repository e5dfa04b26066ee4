package verify

import (
	"crypto/x509"
	_ "embed" // the root certificate
	"fmt"
)

//go:embed intel_root.der
var intelRoot string

// IntelRoot returns the certificate of Intel's SGX root CA, as Intel publishes it at
// https://certificates.trustedservices.intel.com/Intel_SGX_Provisioning_Certification_RootCA.cer.
// SHA-256: 44a0196b2b99f889b8e149e95b807a350e7424964399e885a7cbb8ccfab674d3. Valid
// until the end of 2049.
func IntelRoot() *x509.Certificate {
	root, err := x509.ParseCertificate([]byte(intelRoot))
	if err != nil {
		panic(fmt.Sprintf("the built-in Intel root certificate: %v", err))
	}
	return root
}
