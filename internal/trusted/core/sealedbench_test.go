package core

import (
	"context"
	"fmt"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// benchmarkSealed measures BenchmarkEncrypt32 of sealed requests. Each of the clients
// encapsulates once, or for each request.
func benchmarkSealed(b *testing.B, each bool) {
	h, _ := newHost(b)
	c := h.enroll()
	id := c.createKey()
	fields := map[string]any{"keyid": id, "plaintext": plain32}
	version := c.keyRecord(id)
	version.Type, version.Version = wire.KeyVersion, 1
	s := c.seals(0)
	s.ask(0, s.seal("Encrypt", c.body(fields)))
	records := []wire.Ref{h.ref(appID(c.id()), false), h.ref(c.keyRecord(id), false), h.ref(version, false)}
	bodies := make([][]byte, b.N)
	for i := range bodies {
		if each {
			s = c.seals(0)
		}
		bodies[i] = s.seal("Encrypt", c.sign(fields, h.now, fmt.Sprintf("%019d", i))).body
	}
	b.ReportAllocs()
	b.ResetTimer()
	began := processorTime(b)
	defer func() { b.ReportMetric(float64(processorTime(b)-began)/float64(b.N), "cpu-ns/op") }()
	for _, body := range bodies {
		a, err := h.cores[0].Call(context.Background(), &wire.Call{RequestID: "0123456789abcdef", Action: "Encrypt", Body: body, Records: records})
		if err != nil || a.Code != codeOK {
			b.Fatalf("%+v, %v", a, err)
		}
	}
}

func BenchmarkSealedEncrypt32(b *testing.B)            { benchmarkSealed(b, false) }
func BenchmarkSealedEncrypt32EachAnother(b *testing.B) { benchmarkSealed(b, true) }
