package overview

import "testing"

// BenchmarkLargestStatus reads a status with as many members as it may have.
func BenchmarkLargestStatus(b *testing.B) {
	s := sample()
	for len(s.Members) < MaxMembers {
		m := s.Members[1]
		m.Instance[8], m.Instance[9] = byte(len(s.Members)>>8), byte(len(s.Members))
		s.Members = append(s.Members, m)
	}
	text, err := s.Encode()
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		got, err := ParseStatus(text)
		if err != nil || len(got.Warnings()) == 0 {
			b.Fatal(err)
		}
	}
}
