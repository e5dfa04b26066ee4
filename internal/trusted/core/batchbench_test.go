package core

import (
	"slices"
	"testing"
)

// The batches of a hundred items of 32 bytes, by item and not by request: see the
// metric item-ns.

func benchmarkBatch(b *testing.B, action string, fields func(c *tenant, id string) map[string]any) {
	benchmarkCalls(b, action, func(c *tenant, id string) map[string]any {
		return with(fields(c, id), m{"action": action})
	})
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/100, "item-ns")
}

func BenchmarkBatchEncrypt32(b *testing.B) {
	benchmarkBatch(b, "BatchEncrypt", func(_ *tenant, id string) map[string]any {
		return m{"keyid": id, "plaintexts": slices.Repeat([]string{plain32}, 100)}
	})
}

func BenchmarkBatchDecrypt32(b *testing.B) {
	benchmarkBatch(b, "BatchDecrypt", func(c *tenant, id string) map[string]any {
		ct := c.mustDo("Encrypt", m{"keyid": id, "plaintext": plain32}).text("ciphertext")
		return m{"keyid": id, "ciphertexts": slices.Repeat([]string{ct}, 100)}
	})
}

func BenchmarkBatchReEncrypt32(b *testing.B) {
	benchmarkBatch(b, "BatchReEncrypt", func(c *tenant, id string) map[string]any {
		ct := c.mustDo("Encrypt", m{"keyid": id, "plaintext": plain32}).text("ciphertext")
		return m{"keyid": id, "ciphertexts": slices.Repeat([]string{ct}, 100)}
	})
}
