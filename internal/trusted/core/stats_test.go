package core

import (
	"encoding/base64"
	"testing"
)

func TestStats(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	key := c.createKey()
	before, err := h.cores[0].Stats(t.Context())
	if err != nil || before.Apps != 1 || before.Keys == 0 || before.Replays == 0 || before.HeapBytes == 0 {
		t.Errorf("got %+v, %v, want what is in memory", before, err)
	}
	good := c.body(encrypts(key))
	bad := withSign(c.request(`{"keyid":"`+key+`","plaintext":"AAAA"}`), base64.StdEncoding.EncodeToString(make([]byte, 32)))
	for _, body := range [][]byte{good, good, bad} {
		c.send(0, "Encrypt", body)
	}
	after, err := h.cores[0].Stats(t.Context())
	if err != nil || after.Answered != before.Answered+3 || after.Replayed != before.Replayed+1 ||
		after.Unauthenticated != before.Unauthenticated+1 || after.Internal != before.Internal {
		t.Errorf("got %+v, %v after %+v, want a replay and a wrong signature more", after, err, before)
	}
}
