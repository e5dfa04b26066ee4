// Package ehsmtest is a whole simulated eHSM-KMS for tests of programs that use
// one: New starts it on a loopback port, with a tenant of its own.
//
//	func TestSeal(t *testing.T) {
//		kms := ehsmtest.New(t)
//		keyID, err := kms.Client.CreateKey(t.Context(), api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
//		...
//	}
//
// It is the real service, core and all, on a simulated TEE; its data is gone
// when the test ends.
package ehsmtest

import (
	"context"
	"testing"

	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/host/dev"
)

// A KMS is a running service.
type KMS struct {
	// Client is authenticated as a fresh tenant.
	Client *ehsm.Client
	// URL and Fingerprint are what other clients need to reach the service.
	URL, Fingerprint string

	anonymous *ehsm.Client
}

// New starts a service that ends with the test.
func New(t testing.TB) *KMS {
	t.Helper()
	s, err := dev.Start(context.Background(), dev.Options{Dir: t.TempDir(), Listen: "127.0.0.1:0"})
	if err != nil {
		t.Fatalf("start a KMS: %v", err)
	}
	k := &KMS{URL: s.URL(), Fingerprint: s.Fingerprint()}
	k.anonymous, err = ehsm.New(ehsm.Config{URL: k.URL, Fingerprint: k.Fingerprint})
	if err != nil {
		t.Fatalf("make a client: %v", err)
	}
	t.Cleanup(func() {
		k.anonymous.Close()
		if err := s.Close(); err != nil {
			t.Errorf("stop the KMS: %v", err)
		}
	})
	k.Client = k.Enroll(t)
	return k
}

// Enroll returns a client of one more tenant.
func (k *KMS) Enroll(t testing.TB) *ehsm.Client {
	t.Helper()
	cred, err := k.anonymous.Enroll(context.Background())
	if err != nil {
		t.Fatalf("enroll: %v", err)
	}
	return k.anonymous.With(cred)
}
