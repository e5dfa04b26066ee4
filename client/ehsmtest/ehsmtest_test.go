package ehsmtest_test

import (
	"bytes"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsmtest"
)

func TestNew(t *testing.T) {
	kms := ehsmtest.New(t)
	id, err := kms.Client.CreateKey(t.Context(), api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
	if err != nil {
		t.Fatal(err)
	}
	ct, err := kms.Client.Encrypt(t.Context(), id, []byte("hello"), []byte("aad"))
	if err != nil {
		t.Fatal(err)
	}
	if pt, err := kms.Client.Decrypt(t.Context(), id, ct, []byte("aad")); err != nil || !bytes.Equal(pt, []byte("hello")) {
		t.Errorf("Decrypt: %q, %v", pt, err)
	}
	if _, err := kms.Enroll(t).Decrypt(t.Context(), id, ct, []byte("aad")); !ehsm.IsKeyNotFound(err) {
		t.Errorf("another tenant: got %v, want key not found", err)
	}
}
