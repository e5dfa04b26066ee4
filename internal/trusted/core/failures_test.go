package core

import (
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// TestPKCS1Failures is the limit on what PKCS#1 v1.5 tells of a key.
func TestPKCS1Failures(t *testing.T) {
	h, _ := rsaHost(t)
	h.now = h.now.Truncate(time.Minute)
	c := h.enroll()
	id, second := c.mustCreate("EH_RSA_2048", forCrypt), c.mustCreate("EH_RSA_2048", forCrypt)
	public := parsePKCS1(t, c.publicKey(id))
	decrypt := func(padding string, good bool) m {
		p := importing{public: public}.payload(t, padding, []byte("hello"))
		ct := p["key_material"].(string)
		if !good {
			ct = b64(make([]byte, 256))
		}
		return m{"keyid": id, "ciphertext": ct, "padding_mode": padding}
	}
	good, bad, other := decrypt(pkcs1, true), decrypt(pkcs1, false), decrypt(oaep, true)
	try := func(what string, p m, code int, message string) {
		t.Helper()
		want(t, what, c.do(0, "AsymmetricDecrypt", p), code, message)
	}
	for range 150 { // of another padding
		c.do(0, "AsymmetricDecrypt", decrypt(oaep, false))
	}
	for i := range maxPKCS1Failures {
		if i%10 == 0 {
			try(fmt.Sprintf("success after %d failures", i), good, 200, "success!")
		}
		try(fmt.Sprintf("failure %d", i+1), bad, 400, textDecryption)
	}
	try("one more failure", bad, 429, "Too many requests.")
	try("a success", good, 429, "Too many requests.")
	try("with the documented spelling", with(good, m{"padding_mode": "EH_PAD_RSA_PKCS1"}), 429, "Too many requests.")
	try("another padding", other, 200, "success!")
	try("another key", with(good, m{"keyid": second}), 200, "success!")
	want(t, "encryption", c.do(0, "AsymmetricEncrypt", m{"keyid": id, "plaintext": hello, "padding_mode": pkcs1}), 200, "success!")
	h.now = h.now.Add(59 * time.Second)
	try("at the end of the minute", good, 429, "Too many requests.")
	h.now = h.now.Add(time.Second)
	try("in the next minute", good, 200, "success!")
	try("a failure in the next minute", bad, 400, textDecryption)
	h.now = h.now.Add(-time.Minute)
	try("with the clock turned back", good, 200, "success!")

	rows := reasons(t, h)
	for reason, n := range map[string]int{
		"AsymmetricDecrypt 400 PKCS#1 v1.5 decryption failed": maxPKCS1Failures + 1, "AsymmetricDecrypt 400 decryption failed": 150,
		"AsymmetricDecrypt 429 too many PKCS#1 v1.5 failures": 4,
	} {
		got := 0
		for _, row := range rows {
			if row == reason {
				got++
			}
		}
		if got != n {
			t.Errorf("trail: %q stands there %d times, want %d", reason, got, n)
		}
	}
	if !slices.Contains(rows, "AsymmetricDecrypt 200 ok") {
		t.Error("trail: no success")
	}
}

// TestFailuresInFlight has requests that were admitted below the limit and end
// above it: none of them is told.
func TestFailuresInFlight(t *testing.T) {
	f, key := newFailures(10), wire.RecordID{Type: wire.Key, ID: wire.UUID{1}}
	if !f.settle(key, 0, false) {
		t.Fatal("the first request is refused")
	}
	for i := range maxPKCS1Failures {
		if !f.settle(key, 0, true) {
			t.Fatalf("failure %d is not told", i+1)
		}
	}
	for _, failed := range []bool{false, true, false} {
		if f.settle(key, 0, failed) {
			t.Errorf("above the limit an outcome is told, failed: %v", failed)
		}
	}
	if !f.settle(key, minuteMicros, true) {
		t.Error("the next minute has no failures of its own")
	}
	if !f.settle(key, 0, true) || f.counts[key] != 2 {
		t.Errorf("a request from the last minute counts in none: %v", f.counts)
	}
}

func TestFailuresBound(t *testing.T) {
	f := newFailures(2)
	key := func(n byte) wire.RecordID { return wire.RecordID{Type: wire.Key, ID: wire.UUID{n}} }
	for n := range byte(5) { // successes take no room
		if !f.settle(key(n), 0, false) {
			t.Errorf("success with key %d is refused", n)
		}
	}
	f.settle(key(1), 0, true)
	f.settle(key(2), 0, true)
	for _, failed := range []bool{true, false} {
		if f.settle(key(3), 0, failed) {
			t.Errorf("a key without room is told, failed: %v", failed)
		}
	}
	if !f.settle(key(1), 0, true) || len(f.counts) != 2 {
		t.Errorf("counts: %v", f.counts)
	}
	if !f.settle(key(3), minuteMicros, true) {
		t.Error("the next minute has no room")
	}
}

// TestPKCS1FailuresInParallel has more failures under way at once than are told.
func TestPKCS1FailuresInParallel(t *testing.T) {
	h, _ := rsaHost(t)
	h.now = h.now.Truncate(time.Minute)
	c := h.enroll()
	id := c.mustCreate("EH_RSA_2048", forCrypt)
	bodies := make(chan []byte, maxPKCS1Failures+20)
	for range cap(bodies) {
		bodies <- c.body(m{"keyid": id, "ciphertext": b64(make([]byte, 256)), "padding_mode": pkcs1})
	}
	close(bodies)
	var told, refused atomic.Int64
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for body := range bodies {
				switch r := c.send(0, "AsymmetricDecrypt", body); r.Code {
				case 400:
					told.Add(1)
				case 429:
					refused.Add(1)
				default:
					t.Errorf("got %d %s", r.Code, r.Message)
				}
			}
		})
	}
	wg.Wait()
	if told.Load() != maxPKCS1Failures || refused.Load() != 20 {
		t.Errorf("%d failures were told and %d not, want %d and 20", told.Load(), refused.Load(), maxPKCS1Failures)
	}
}
