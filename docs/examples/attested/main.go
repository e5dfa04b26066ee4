// Command attested verifies a service, and only then sends it anything: that its
// core runs in a genuine TEE, is the program that a policy names, and holds the
// keys of the expected domain.
package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
)

func main() {
	log.SetFlags(0)
	if err := run(context.Background()); err != nil {
		log.Fatalf("attested: %v", err)
	}
}

func run(ctx context.Context) error {
	file, err := os.ReadFile(os.Getenv("EHSM_POLICY"))
	if err != nil {
		return err
	}
	policy, err := attested.ParsePolicy(file)
	if err != nil {
		return err
	}
	for _, w := range policy.Warnings() {
		log.Printf("attested: policy: %s", w)
	}
	domain, err := attested.ParseDomain(os.Getenv("EHSM_DOMAIN"))
	if err != nil {
		return err
	}
	client, err := ehsm.New(ehsm.Config{URL: os.Getenv("EHSM_ADDR"), Fingerprint: os.Getenv("EHSM_FINGERPRINT")})
	if err != nil {
		return err
	}
	defer client.Close()

	v := attested.Verifier{Policy: policy, Domain: domain}
	report, err := v.Verify(ctx, client)
	switch {
	case errors.Is(err, attested.ErrStale):
		return fmt.Errorf("newer collateral is needed, or a clock is wrong: %w", err)
	case err != nil:
		return err // never go on with a service that was not verified
	}
	fmt.Print(report)
	return nil
}
