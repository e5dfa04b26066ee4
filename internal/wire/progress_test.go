package wire

import (
	"bytes"
	"encoding/hex"
	"testing"
)

func sampleProgress() Progress {
	return Progress{Floor: 3, Done: 2, Total: 1 << 40, Looked: 77, Refused: 1, Compromised: 5, Keys: 12, Secrets: 3, APIKeys: 4, Tenants: 2}
}

func TestProgress(t *testing.T) {
	const want = "01" + "00000003" + "00000002" + "0000010000000000" + "000000000000004d" + "0000000000000001" +
		"00000005" + "000000000000000c" + "0000000000000003" + "0000000000000004" + "0000000000000002"
	p := sampleProgress()
	b := p.Append(nil)
	if got := hex.EncodeToString(b); got != want {
		t.Errorf("Append: got %s, want %s", got, want)
	}
	if got, err := DecodeProgress(b); err != nil || got != p {
		t.Errorf("DecodeProgress: got %+v, %v, want %+v", got, err, p)
	}
	for name, bad := range map[string][]byte{"empty": nil, "short": b[:len(b)-1], "long": append(bytes.Clone(b), 0), "format": append([]byte{2}, b[1:]...)} {
		if got, err := DecodeProgress(bad); err == nil {
			t.Errorf("%s: got %+v, want an error", name, got)
		}
	}
}

func FuzzDecodeProgress(f *testing.F) {
	f.Add(sampleProgress().Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if p, err := DecodeProgress(b); err == nil && !bytes.Equal(p.Append(nil), b) {
			t.Errorf("%+v has another encoding", p)
		}
	})
}
