package primitive

import (
	"testing"
)

func BenchmarkSign(b *testing.B) {
	for _, spec := range privateSpecs() {
		b.Run(spec.String(), func(b *testing.B) {
			key := testPrivate(b, spec)
			mt, d, p := defaults(spec)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := key.Sign([]byte("message"), mt, d, p); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkVerify(b *testing.B) {
	for _, spec := range privateSpecs() {
		b.Run(spec.String(), func(b *testing.B) {
			key := testPrivate(b, spec)
			mt, d, p := defaults(spec)
			signature, err := key.Sign([]byte("message"), mt, d, p)
			if err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			for b.Loop() {
				if ok, err := key.Verify([]byte("message"), signature, mt, d, p); err != nil || !ok {
					b.Fatal(ok, err)
				}
			}
		})
	}
}

// encrypting are the specs with encryption, and a padding for each.
var encrypting = []struct {
	spec    Spec
	padding Padding
}{{RSA2048, PaddingPKCS1}, {RSA2048, PaddingOAEP}, {RSA3072, PaddingOAEP}, {RSA4096, PaddingOAEP}, {SM2, PaddingNone}}

func BenchmarkAsymmetricEncrypt(b *testing.B) {
	for _, e := range encrypting {
		b.Run(e.spec.String()+"/"+e.padding.String(), func(b *testing.B) {
			key := testPrivate(b, e.spec)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := key.Encrypt(make([]byte, 32), e.padding); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// The rows "refused" and "malformed" should cost what the others cost.
func BenchmarkAsymmetricDecrypt(b *testing.B) {
	for _, e := range encrypting {
		key := testPrivate(b, e.spec)
		good, err := key.Encrypt(make([]byte, 32), e.padding)
		if err != nil {
			b.Fatal(err)
		}
		refused := append([]byte(nil), good...)
		refused[len(refused)-1] ^= 1
		for name, c := range map[string][]byte{"good": good, "refused": refused, "malformed": good[:10]} {
			b.Run(e.spec.String()+"/"+e.padding.String()+"/"+name, func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if _, err := key.Decrypt(c, e.padding); (err == nil) != (name == "good") {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

func BenchmarkOpenPrivate(b *testing.B) {
	for _, spec := range privateSpecs() {
		b.Run(spec.String(), func(b *testing.B) {
			material := testMaterial(b, spec)
			b.ReportAllocs()
			for b.Loop() {
				if _, err := OpenPrivate(spec, material); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkNewMaterial(b *testing.B) {
	for _, spec := range []Spec{AESGCM256, RSA2048, ECP256, ECP256K, ECP384, ECP521, SM2} {
		b.Run(spec.String(), func(b *testing.B) {
			for b.Loop() {
				if _, err := NewMaterial(spec); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
