package core

import (
	"context"
	"encoding/base64"
	"fmt"
	"syscall"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// benchmarkCalls measures calls on records that the core holds opened: the
// signature, the replay cache, the operation, the reply with its signature, and
// the audit entry. Requests are signed before the clock starts.
func benchmarkCalls(b *testing.B, action string, payload func(c *tenant, id string) map[string]any) {
	benchmarkUnder(b, nil, action, payload)
}

// benchmarkUnder is benchmarkCalls of a user under a policy about many keys, if there
// is one.
func benchmarkUnder(b *testing.B, policy map[string]any, action string, payload func(c *tenant, id string) map[string]any) {
	h, _ := newHost(b)
	c := h.enroll()
	id := c.createKey()
	fields := payload(c, id)
	var rule []wire.Ref
	if policy != nil {
		keys := []string{id}
		for len(keys) < record.MaxPolicyKeys {
			keys = append(keys, wire.NewUUID().String())
		}
		policy["keys"] = keys
		p := c.policy(b, policy)
		c, _ = c.under(b, p)
		rule = []wire.Ref{h.ref(c.policyRecord(b, p), false)}
	}
	c.mustDo(action, fields)
	records := []wire.Ref{h.ref(appID(c.id()), false), h.ref(c.keyRecord(id), false)}
	version := c.keyRecord(id)
	version.Type, version.Version = wire.KeyVersion, 1
	records = append(append(records, h.ref(version, false)), rule...)
	bodies := make([][]byte, b.N)
	for i := range bodies {
		bodies[i] = c.sign(fields, h.now, fmt.Sprintf("%019d", i))
	}
	b.ReportAllocs()
	b.ResetTimer()
	began := processorTime(b)
	defer func() { b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op") }()
	for _, body := range bodies {
		a, err := h.cores[0].Call(context.Background(), &wire.Call{RequestID: "0123456789abcdef", Action: action, Body: body, Records: records})
		if err != nil || a.Code != codeOK {
			b.Fatalf("%s: %+v, %v", action, a, err)
		}
	}
}

// processorTime is what the process has used of the processors, in nanoseconds:
// unlike the time on the wall it does not grow with what else the machine does.
func processorTime(b *testing.B) int64 {
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

var plain32 = base64.StdEncoding.EncodeToString(make([]byte, 32))

func BenchmarkEncrypt32(b *testing.B) {
	benchmarkCalls(b, "Encrypt", func(_ *tenant, id string) map[string]any {
		return map[string]any{"keyid": id, "plaintext": plain32}
	})
}

// A policy with as many keys as it may have.
func BenchmarkEncrypt32UnderPolicy(b *testing.B) {
	benchmarkUnder(b, map[string]any{"preset": api.PresetEncryptOnly}, "Encrypt", func(_ *tenant, id string) map[string]any {
		return map[string]any{"keyid": id, "plaintext": plain32}
	})
}

func BenchmarkDecrypt32(b *testing.B) {
	benchmarkCalls(b, "Decrypt", func(c *tenant, id string) map[string]any {
		ct := c.mustDo("Encrypt", map[string]any{"keyid": id, "plaintext": plain32}).text("ciphertext")
		return map[string]any{"keyid": id, "ciphertext": ct}
	})
}

func BenchmarkGenerateDataKey16(b *testing.B) {
	benchmarkCalls(b, "GenerateDataKey", func(_ *tenant, id string) map[string]any {
		return map[string]any{"keyid": id, "keylen": 16}
	})
}

// The replay cache alone, at 100 requests per millisecond.
func BenchmarkReplayAdmission(b *testing.B) {
	r := newReplays(1<<21, 1<<21, 10*minutes)
	tags := make([]wire.Tag, 1<<20)
	for i := range tags {
		tags[i] = tagOf(i)
	}
	b.ReportAllocs()
	i := 0
	for b.Loop() {
		r.admit(wire.UUID{byte(i >> 20)}, tags[i%len(tags)], noon+int64(i/100), noon+int64(i/100))
		i++
	}
}

// BenchmarkVerifyQuote has a quote of an Intel machine judged, from the signed
// request to the signed verdict, with the collateral in the message.
func BenchmarkVerifyQuote(b *testing.B) {
	d := newDomainAt(b, time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC))
	d.settings.Accept = accepts("SWHardeningNeeded", "INTEL-SA-00615")
	h := d.hostAt(b, Limits{}, time.Date(2025, 8, 20, 0, 0, 0, 0, time.UTC))
	c := h.enroll()
	fields := verifying(dcapVector(b, "automata/quotev3.hex"))
	stated := automata(b)
	collateral, records := stated.Append(nil), []wire.Ref{h.ref(appID(c.id()), true)}
	bodies := make([][]byte, b.N)
	for i := range bodies {
		bodies[i] = c.sign(fields, h.now, fmt.Sprintf("%019d", i))
	}
	b.ReportAllocs()
	b.ResetTimer()
	began := processorTime(b)
	defer func() { b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op") }()
	for _, body := range bodies {
		a, err := h.cores[0].Call(context.Background(), &wire.Call{
			RequestID: "r", Action: "VerifyQuote", Body: body, Records: records, Collated: true, Collateral: collateral,
		})
		if err != nil || a.Code != codeOK {
			b.Fatalf("VerifyQuote: %+v, %v", a, err)
		}
	}
}
