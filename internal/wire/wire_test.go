package wire

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"reflect"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

func sampleCall() *Call {
	id := RecordID{Key, UUID{1}, UUID{2}, 0}
	return &Call{
		RequestID: "r-1", Action: "Encrypt", Get: true, Body: []byte(`{"appid":"x"}`), Fresh: true, Listed: true,
		Records:  []Ref{{ID: id, Revision: 3, Tag: Tag{9}, Sealed: []byte("sealed")}, {ID: id}},
		Listing:  []Ref{{ID: id, Revision: 1, Sealed: []byte("more")}},
		Collated: true, Collateral: []byte("collateral"), Floor: 6, Again: 3,
	}
}

func sampleAnswer() *Answer {
	return &Answer{
		Kind: Pending, Code: 200, Reply: []byte("{}"), Sign: "c2ln", Release: -5, Handle: 77,
		Writes: []Write{
			{ID: RecordID{App, UUID{1}, UUID{1}, 0}, Expected: 1, Revision: 2, Hidden: true, Primary: 4, Sweep: true, Due: -9, Sealed: bytes.Repeat([]byte{7}, 40)},
			{ID: RecordID{SecretVersion, UUID{1}, UUID{3}, 0}, Remove: true},
			{ID: RecordID{Key, UUID{1}, UUID{4}, 0}, Expected: 3, Revision: 3, Rewrapped: true, Sealed: bytes.Repeat([]byte{8}, 40)},
		},
		Replay:         &Replay{UUID{1}, Tag{2}, 1234},
		NeedRecords:    []RecordID{{KeyVersion, UUID{1}, UUID{2}, 9}},
		NeedList:       &Query{Type: SecretVersion, Tenant: UUID{1}, ID: UUID{2}, After: 5, Limit: 10},
		NeedCollateral: &CollateralQuery{[6]byte{1, 2}, PlatformCA},
		NeedVersion:    9,
		Audit:          Audit{First: 8, Count: 2, Durable: true, Frames: []byte("frames")},
	}
}

func TestMessagesRoundTrip(t *testing.T) {
	call := sampleCall()
	if got, err := DecodeCall(call.Append(nil)); err != nil || !reflect.DeepEqual(got, call) {
		t.Errorf("call: got %+v, %v", got, err)
	}
	answer := sampleAnswer()
	if got, err := DecodeAnswer(answer.Append(nil)); err != nil || !reflect.DeepEqual(got, answer) {
		t.Errorf("answer: got %+v, %v", got, err)
	}
	sweep := &Sweep{RequestID: "s", App: call.Records[0], Keys: call.Listing, Secret: call.Listing[0], Floor: 2}
	if got, err := DecodeSweep(sweep.Append(nil)); err != nil || !reflect.DeepEqual(got, sweep) {
		t.Errorf("sweep: got %+v, %v", got, err)
	}
	rewrap := &Rewrap{RequestID: "w", Version: 2, Records: call.Records}
	if got, err := DecodeRewrap(rewrap.Append(nil)); err != nil || !reflect.DeepEqual(got, rewrap) {
		t.Errorf("rewrap: got %+v, %v", got, err)
	}
	res := Resolve{5, Replayed}
	if got, err := DecodeResolve(res.Append(nil)); err != nil || got != res {
		t.Errorf("resolve: got %+v, %v", got, err)
	}
	info := Info{"1", "abc", "sim", [32]byte{1}, UUID{2}, [32]byte{3}, true, true, [HPKEKeySize]byte{1215: 9}, 7, 3, 2}
	if got, err := DecodeInfo(info.Append(nil)); err != nil || got != info {
		t.Errorf("info: got %+v, %v", got, err)
	}
}

func TestMessagesCutShortOrPadded(t *testing.T) {
	for name, m := range map[string]struct {
		b      []byte
		decode func([]byte) error
	}{
		"call":    {sampleCall().Append(nil), func(b []byte) error { _, err := DecodeCall(b); return err }},
		"answer":  {sampleAnswer().Append(nil), func(b []byte) error { _, err := DecodeAnswer(b); return err }},
		"resolve": {Resolve{1, Stored}.Append(nil), func(b []byte) error { _, err := DecodeResolve(b); return err }},
		"info":    {Info{}.Append(nil), func(b []byte) error { _, err := DecodeInfo(b); return err }},
		"rewrap":  {(&Rewrap{}).Append(nil), func(b []byte) error { _, err := DecodeRewrap(b); return err }},
		"sweep":   {(&Sweep{}).Append(nil), func(b []byte) error { _, err := DecodeSweep(b); return err }},
	} {
		for n := range m.b {
			if err := m.decode(m.b[:n]); !errors.Is(err, pack.ErrMalformed) {
				t.Errorf("%s cut to %d bytes: got %v, want malformed", name, n, err)
			}
		}
		if err := m.decode(append(bytes.Clone(m.b), 0)); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("%s with a trailing byte: got %v, want malformed", name, err)
		}
		m.b[0] = 2
		if err := m.decode(m.b); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("%s of format 2: got %v, want malformed", name, err)
		}
	}
	if _, err := DecodeResolve(Resolve{1, 9}.Append(nil)); !errors.Is(err, pack.ErrMalformed) {
		t.Errorf("unknown outcome: got %v", err)
	}
	if _, err := DecodeAnswer((&Answer{Kind: 9}).Append(nil)); !errors.Is(err, pack.ErrMalformed) {
		t.Errorf("unknown kind: got %v", err)
	}
	for _, ca := range []string{"", "Processor", "root", "processor\x00"} {
		a := Answer{Kind: Need, NeedCollateral: &CollateralQuery{CA: ca}}
		if _, err := DecodeAnswer(a.Append(nil)); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("collateral of CA %q: got %v, want malformed", ca, err)
		}
	}
	many := Rewrap{Records: make([]Ref, RewrapStep+1)}
	if _, err := DecodeRewrap(many.Append(nil)); !errors.Is(err, pack.ErrMalformed) {
		t.Errorf("rewrap of too many records: got %v, want malformed", err)
	}
	long := Call{Collated: true, Collateral: make([]byte, MaxCollateral+1)}
	if _, err := DecodeCall(long.Append(nil)); !errors.Is(err, pack.ErrMalformed) {
		t.Errorf("collateral over the limit: got %v, want malformed", err)
	}
}

func TestFrames(t *testing.T) {
	big := bytes.Repeat([]byte("x"), 300<<10)
	b := AppendFrame(nil, OpCall, 7, func(d []byte) []byte { return append(d, big...) })
	b = AppendFrame(b, OpInfo, 8, nil)
	r := bufio.NewReader(bytes.NewReader(b))
	f, err := ReadFrame(r)
	if err != nil || f.Op != OpCall || f.Number != 7 || !bytes.Equal(f.Payload, big) {
		t.Errorf("first frame: op %d number %d len %d, %v", f.Op, f.Number, len(f.Payload), err)
	}
	if f, err = ReadFrame(r); err != nil || f.Op != OpInfo || f.Number != 8 || len(f.Payload) != 0 {
		t.Errorf("second frame: %+v, %v", f, err)
	}
	if _, err = ReadFrame(r); err != io.EOF {
		t.Errorf("end: got %v, want io.EOF", err)
	}
}

func TestFramesRefused(t *testing.T) {
	for name, b := range map[string][]byte{
		"cut header":        {0, 0, 0},
		"length below head": {0, 0, 0, 8, byte(OpCall), 0, 0, 0, 0, 0, 0, 0, 0},
		"over the limit":    {0xff, 0, 0, 0, byte(OpCall), 0, 0, 0, 0, 0, 0, 0, 0},
		"operation 0":       {0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 0, 0},
		"unknown operation": {0, 0, 0, 9, 99, 0, 0, 0, 0, 0, 0, 0, 0},
		"cut payload":       {0, 0, 0, 19, byte(OpCall), 0, 0, 0, 0, 0, 0, 0, 0, 1, 2},
	} {
		if _, err := ReadFrame(bufio.NewReader(bytes.NewReader(b))); !errors.Is(err, ErrFrame) {
			t.Errorf("%s: got %v, want ErrFrame", name, err)
		}
	}
}

func TestParseUUID(t *testing.T) {
	const text = "aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"
	u, err := ParseUUID(text)
	if err != nil || u.String() != text {
		t.Errorf("got %s, %v", u, err)
	}
	for name, s := range map[string]string{
		"empty": "", "upper case": "AAC3e45a-d3dc-4791-89b6-4ada0e38e6ef", "short": text[1:], "long": text + "0",
		"dash moved": "aac3e45ad-3dc-4791-89b6-4ada0e38e6ef", "letter": "gac3e45a-d3dc-4791-89b6-4ada0e38e6ef",
		"extra dash": "aac3e45a-d3dc-4791-89b6-4ada0e38e6e-",
	} {
		if _, err := ParseUUID(s); !errors.Is(err, ErrUUID) {
			t.Errorf("%s: got %v, want ErrUUID", name, err)
		}
	}
	if v := NewUUID(); v[6]>>4 != 4 || v[8]>>6 != 2 || v == NewUUID() {
		t.Errorf("NewUUID gives %s", v)
	}
}

// TestSecretID has known answers made with the sha256sum of coreutils.
func TestSecretID(t *testing.T) {
	tenant := UUID{15: 1}
	seen := map[UUID]string{}
	for _, row := range []struct{ name, want string }{
		{"a", "59b5d2cf-ad84-6ec0-dbd1-07bb641dead5"},
		{"", "16c34236-e44a-b4a4-9ecf-f6446286773d"},
		{"a\x00", "af0699ce-e9aa-fb09-05f7-ceb81136cc15"},
		{"päss\nwort \U0001f511", "92b9ef5b-5fb9-010b-f00b-b0e4d7de1f47"},
	} {
		got := SecretID(tenant, row.name)
		if got.String() != row.want {
			t.Errorf("SecretID(%q): got %s, want %s", row.name, got, row.want)
		}
		if other, ok := seen[got]; ok {
			t.Errorf("%q and %q have one id", row.name, other)
		}
		seen[got] = row.name
	}
	if SecretID(UUID{15: 2}, "a") == SecretID(tenant, "a") {
		t.Error("one name has one id in two tenants")
	}
}

func FuzzDecodeSweep(f *testing.F) {
	f.Add((&Sweep{RequestID: "s", App: sampleCall().Records[0], Keys: sampleCall().Listing, Secret: sampleCall().Listing[0]}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if s, err := DecodeSweep(b); err == nil && !bytes.Equal(s.Append(nil), b) {
			t.Error("a sweep does not re-encode to the bytes it came from")
		}
	})
}

func FuzzDecodeRewrap(f *testing.F) {
	f.Add((&Rewrap{RequestID: "w", Version: 2, Records: sampleCall().Listing}).Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if w, err := DecodeRewrap(b); err == nil && !bytes.Equal(w.Append(nil), b) {
			t.Error("a rewrap does not re-encode to the bytes it came from")
		}
	})
}

func FuzzDecodeCall(f *testing.F) {
	f.Add(sampleCall().Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if c, err := DecodeCall(b); err == nil && !bytes.Equal(c.Append(nil), b) {
			t.Error("a call does not re-encode to the bytes it came from")
		}
	})
}

func FuzzDecodeAnswer(f *testing.F) {
	f.Add(sampleAnswer().Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := DecodeAnswer(b); err == nil && !bytes.Equal(a.Append(nil), b) {
			t.Error("an answer does not re-encode to the bytes it came from")
		}
	})
}

func FuzzReadFrame(f *testing.F) {
	f.Add(AppendFrame(nil, OpCall, 1, func(d []byte) []byte { return append(d, "payload"...) }))
	f.Fuzz(func(t *testing.T, b []byte) {
		fr, err := ReadFrame(bufio.NewReader(bytes.NewReader(b)))
		if err != nil {
			return
		}
		again := AppendFrame(nil, fr.Op, fr.Number, func(d []byte) []byte { return append(d, fr.Payload...) })
		if !bytes.HasPrefix(b, again) {
			t.Error("a frame does not re-encode to the bytes it came from")
		}
	})
}

// TestRecordTypes pins the numbers, which are persisted.
func TestRecordTypes(t *testing.T) {
	for typ, want := range map[RecordType]string{
		0: "record type 0", 1: "app", 2: "key", 3: "key version", 4: "import session", 5: "secret", 6: "secret version",
		7: "quote policy", 8: "enrollment token", 9: "policy", 10: "record type 10", 12: "tenant settings", 255: "record type 255",
	} {
		if got := typ.String(); got != want {
			t.Errorf("RecordType(%d): got %q, want %q", typ, got, want)
		}
	}
	id := RecordID{ImportSession, UUID{1}, UUID{2}, 0}
	if got, want := id.String(), "import session 02000000-0000-0000-0000-000000000000"; got != want {
		t.Errorf("RecordID: got %q, want %q", got, want)
	}
}
