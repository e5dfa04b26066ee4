package protocol

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

var requests = map[string]struct {
	request Request
	hex     string
}{
	"hello": {Request{Op: OpHello, Product: 1, SVN: 0x203}, "01" + "01" + "0001" + "0203"},
	"prove": {Request{Op: OpProve, Nonce: [32]byte{9}}, "02" + "09" + strings.Repeat("00", 31)},
	"seal key": {
		Request{Op: OpSealKey, Key: tee.KeyRequest{Policy: tee.BindMeasured, SVN: 5, KeyID: [32]byte{7}, Info: []byte{8}}},
		"03" + "02" + "0005" + "07" + strings.Repeat("00", 31) + "00000001" + "08",
	},
	"evidence": {Request{Op: OpEvidence, Data: [64]byte{1}}, "04" + "01" + strings.Repeat("00", 63)},
	"target":   {Request{Op: OpTarget}, "05"},
	"report":   {Request{Op: OpReport, Data: [64]byte{1}, Body: []byte{2, 3}}, "06" + "01" + strings.Repeat("00", 63) + "00000002" + "0203"},
	"verify":   {Request{Op: OpVerify, Body: []byte{4}}, "07" + "00000001" + "04"},
}

func TestRequestKnownAnswers(t *testing.T) {
	for name, row := range requests {
		if got := hex.EncodeToString(row.request.Append(nil)); got != row.hex {
			t.Errorf("%s: got %s, want %s", name, got, row.hex)
		}
		b, err := hex.DecodeString(row.hex)
		if err != nil {
			t.Fatal(err)
		}
		got, err := DecodeRequest(b)
		if err != nil || fmt.Sprint(got) != fmt.Sprint(row.request) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
		for n := range b {
			if _, err := DecodeRequest(b[:n]); !errors.Is(err, pack.ErrMalformed) {
				t.Errorf("%s cut to %d bytes: got %v, want ErrMalformed", name, n, err)
			}
		}
		if _, err := DecodeRequest(append(b, 0)); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("%s and a byte: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestRequestRefused(t *testing.T) {
	for name, text := range map[string]string{
		"nothing":          "",
		"request 0":        "00",
		"request 8":        "08",
		"version 2":        "01" + "02" + "0001" + "0001",
		"long information": "03" + "02" + "0005" + strings.Repeat("00", 32) + "00000401" + strings.Repeat("00", 1025),
		"long target":      "06" + strings.Repeat("00", 64) + "00000201" + strings.Repeat("00", 513),
		"long report":      "07" + "000001b1" + strings.Repeat("00", 433),
	} {
		b, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := DecodeRequest(b); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

func TestReplies(t *testing.T) {
	if body, err := DecodeReply(AppendReply(nil, []byte("body"), nil)); err != nil || string(body) != "body" {
		t.Errorf("got %q, %v", body, err)
	}
	for name, row := range map[string]struct{ err, want error }{
		"plain":    {io.ErrUnexpectedEOF, ErrRefused},
		"key":      {fmt.Errorf("%w: x", tee.ErrKeyRequest), tee.ErrKeyRequest},
		"evidence": {fmt.Errorf("%w: x", tee.ErrEvidence), tee.ErrEvidence},
		"identity": {fmt.Errorf("%w: x", tee.ErrIdentity), tee.ErrIdentity},
		"no seal":  {fmt.Errorf("%w: x", tee.ErrNoSealKey), tee.ErrNoSealKey},
	} {
		body, err := DecodeReply(AppendReply(nil, []byte("body"), row.err))
		if !errors.Is(err, row.want) || body != nil || !strings.Contains(err.Error(), row.err.Error()) {
			t.Errorf("%s: got %q, %v, want %v", name, body, err, row.want)
		}
	}
	long := AppendReply(nil, nil, errors.New(strings.Repeat("x", maxText+1)))
	if _, err := DecodeReply(long); !errors.Is(err, ErrRefused) || len(long) != 1+maxText {
		t.Errorf("a long text: got %d bytes", len(long))
	}
	for name, bad := range map[string][]byte{"nothing": nil, "status 6": {6}, "text too long": append(long, 'x')} {
		if _, err := DecodeReply(bad); !errors.Is(err, pack.ErrMalformed) {
			t.Errorf("%s: got %v, want ErrMalformed", name, err)
		}
	}
}

var id = tee.Identity{Measurement: [32]byte{1}, Signer: [32]byte{2}, Product: 3, SVN: 4, Debug: true}

func TestIdentities(t *testing.T) {
	l := Loaded{Identity: id, Development: true, Environment: map[string]string{"B": "", "A": "1"}}
	want := "01" + strings.Repeat("00", 31) + "02" + strings.Repeat("00", 31) + "0003" + "0004" + "01" + "01" +
		"00000002" + "000141" + "0000000131" + "000142" + "00000000"
	b := l.Append(nil)
	if hex.EncodeToString(b) != want {
		t.Errorf("got %x, want %s", b, want)
	}
	if got, err := DecodeLoaded(b); err != nil || fmt.Sprint(got) != fmt.Sprint(l) {
		t.Errorf("got %+v, %v", got, err)
	}
	v := AppendVerified(nil, id, [64]byte{5})
	if got, data, err := DecodeVerified(v); err != nil || got != id || data != [64]byte{5} {
		t.Errorf("got %+v, %x, %v", got, data, err)
	}
	swapped := strings.Replace(want, "000141"+"0000000131"+"000142"+"00000000", "000142"+"00000000"+"000141"+"0000000131", 1)
	twice := strings.Replace(want, "000142", "000141", 1)
	for name, text := range map[string]string{
		"variables swapped": swapped, "variable twice": twice, "trailing byte": want + "00", "cut": want[:len(want)-2],
		"boolean 2": strings.Replace(want, "0101"+"00000002", "0102"+"00000002", 1), "count too large": strings.Replace(want, "0101"+"00000002", "0101"+"00ffffff", 1),
	} {
		bad, err := hex.DecodeString(text)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := DecodeLoaded(bad); !errors.Is(err, pack.ErrMalformed) || got.Identity != (tee.Identity{}) {
			t.Errorf("%s: got %+v, %v, want ErrMalformed", name, got, err)
		}
	}
	if _, _, err := DecodeVerified(v[:len(v)-1]); !errors.Is(err, pack.ErrMalformed) {
		t.Errorf("verified, cut: got %v, want ErrMalformed", err)
	}
}

func TestFrames(t *testing.T) {
	var b bytes.Buffer
	for _, text := range []string{"one", ""} {
		if err := WriteFrame(&b, []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	for _, want := range []string{"one", ""} {
		if got, err := ReadFrame(&b, 3); err != nil || string(got) != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	if _, err := ReadFrame(&b, 3); err != io.EOF {
		t.Errorf("at the end: got %v, want EOF", err)
	}
	for name, text := range map[string]string{
		"over the limit": "\x00\x00\x00\x04abcd", "4 GiB": "\xff\xff\xff\xff", "cut": "\x00\x00\x00\x03ab", "only a length": "\x00\x00\x00\x03", "half a length": "\x00\x00",
	} {
		if _, err := ReadFrame(strings.NewReader(text), 3); !errors.Is(err, ErrFrame) || err == io.EOF {
			t.Errorf("%s: got %v, want ErrFrame", name, err)
		}
	}
}

func FuzzDecodeRequest(f *testing.F) {
	for _, row := range requests {
		f.Add(row.request.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRequest(b)
		if err == nil && !bytes.Equal(r.Append(nil), b) {
			t.Error("the request does not re-encode to the bytes it came from")
		}
	})
}

func FuzzDecodeReply(f *testing.F) {
	f.Add(AppendReply(nil, Loaded{Identity: id, Environment: map[string]string{"A": "1"}}.Append(nil), nil))
	f.Add(AppendReply(nil, AppendVerified(nil, id, [64]byte{}), nil))
	f.Add(AppendReply(nil, nil, tee.ErrEvidence))
	f.Fuzz(func(t *testing.T, b []byte) {
		body, err := DecodeReply(b)
		if err != nil {
			return
		}
		if l, err := DecodeLoaded(body); err == nil && !bytes.Equal(l.Append(nil), body) {
			t.Error("the identity does not re-encode to the bytes it came from")
		}
		if id, data, err := DecodeVerified(body); err == nil && !bytes.Equal(AppendVerified(nil, id, data), body) {
			t.Error("the reporter does not re-encode to the bytes it came from")
		}
	})
}
