package core

import (
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// BenchmarkGetSecretValue reads a value of 32 bytes that the core holds, and
// decrypts as much with the same key for comparison.
func BenchmarkGetSecretValue(b *testing.B) {
	h, _ := newHost(b)
	c := h.enroll()
	key := c.createKey()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "0123456789abcdef0123456789abcdef", "encryptionKeyId", key))
	const plaintext = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY="
	ct := c.mustDo("Encrypt", m{"keyid": key, "plaintext": plaintext}).text("ciphertext")
	ids := []wire.RecordID{appID(c.id())}
	for id := range h.rows {
		if id.ID == c.keyRecord(key).ID {
			ids = append(ids, id)
		}
	}
	given := append([]wire.RecordID{c.secretRecord("n")}, ids...)
	for id := range h.rows {
		if id.Type == wire.SecretVersion {
			given = append(given, id)
		}
	}
	b.Run("GetSecretValue", func(b *testing.B) { c.measure(b, "GetSecretValue", secretOf("n"), given) })
	b.Run("Decrypt", func(b *testing.B) { c.measure(b, "Decrypt", m{"keyid": key, "ciphertext": ct}, ids) })
}

// measure calls the core with requests that name their action, so that nothing
// has to be stored.
func (c *tenant) measure(b *testing.B, action string, payload m, ids []wire.RecordID) {
	payload["action"] = action
	bodies := make([][]byte, b.N)
	for i := range bodies {
		bodies[i] = c.body(payload)
	}
	c.mustDo(action, payload)
	var refs []wire.Ref
	for _, id := range ids {
		refs = append(refs, c.h.ref(id, false))
	}
	b.ReportAllocs()
	b.ResetTimer()
	for _, body := range bodies {
		a, err := c.h.cores[0].Call(b.Context(), &wire.Call{RequestID: "r", Action: action, Body: body, Records: refs})
		if err != nil || a.Kind != wire.Final || a.Code != 200 {
			b.Fatalf("%s: got %+v, %v", action, a, err)
		}
	}
}
