package bench

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"hash"
	"net/url"
	"strconv"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/bench/ceiling"
)

// A source makes the requests of one connection.
type source interface {
	// next returns the bytes of the next HTTP request, valid until the call
	// after.
	next(now time.Time) []byte
}

const timestampLen = len("1700000000000") // Unix milliseconds until the year 2286

// nativeSource signs requests of the native API with one payload. Each is new:
// nonce, timestamp and signature are written into the bytes of the one before.
type nativeSource struct {
	request   []byte // head and body
	canonical []byte // what is signed
	mac       hash.Hash
	sum       [sha256.Size]byte
	count     uint64

	// The changing parts of request and canonical.
	nonces     [2][]byte
	timestamps [2][]byte
	sign       []byte
}

// newNativeSource returns a source of requests for an action. The payload is a
// JSON object; the client's credentials are cred.
func newNativeSource(host string, client *ehsm.Client, cred ehsm.Credentials, action string, payload []byte) (*nativeSource, error) {
	body, err := client.Sign(action, payload)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", action, err)
	}
	tree, err := canon.Parse(body)
	if err != nil {
		return nil, fmt.Errorf("read signed %s: %w", action, err)
	}
	s := &nativeSource{
		request:   appendPost(nil, host, api.Path+"?"+api.ActionParam+"="+url.QueryEscape(action), "", body),
		canonical: tree.AppendCanonical(nil, canon.Skipping),
		mac:       hmac.New(sha256.New, []byte(cred.APIKey.Expose())),
	}
	nonce, sign := tree.Get("nonce").Text(), tree.Get("sign").Text()
	signed := s.request[len(s.request)-len(body):]
	s.nonces = [2][]byte{after(signed, `"nonce":"`, len(nonce)), after(s.canonical, "&nonce=", len(nonce))}
	s.timestamps = [2][]byte{afterLast(signed, `"timestamp":"`, timestampLen), afterLast(s.canonical, "&timestamp=", timestampLen)}
	s.sign = afterLast(signed, `"sign":"`, len(sign))
	// With nothing replaced yet the signature must be the client's own.
	if s.writeSign(); string(s.sign) != sign {
		return nil, errors.New("signed request is not laid out as expected")
	}
	return s, nil
}

// after returns the n bytes that follow text in b.
func after(b []byte, text string, n int) []byte {
	return window(b, bytes.Index(b, []byte(text)), len(text), n)
}

func afterLast(b []byte, text string, n int) []byte {
	return window(b, bytes.LastIndex(b, []byte(text)), len(text), n)
}

func window(b []byte, at, skip, n int) []byte {
	if at < 0 || len(b) < at+skip+n {
		return nil
	}
	return b[at+skip:][:n:n]
}

// next counts up in the last ten characters of the nonce, whose others are
// random for each source.
func (s *nativeSource) next(now time.Time) []byte {
	s.count++
	for _, nonce := range s.nonces {
		writeDigits(nonce[len(nonce)-10:], s.count)
	}
	millis := uint64(now.UnixMilli())
	for _, timestamp := range s.timestamps {
		writeDigits(timestamp, millis)
	}
	s.writeSign()
	return s.request
}

func (s *nativeSource) writeSign() {
	s.mac.Reset()
	s.mac.Write(s.canonical)
	if sum := s.mac.Sum(s.sum[:0]); len(s.sign) == base64.StdEncoding.EncodedLen(len(sum)) {
		base64.StdEncoding.Encode(s.sign, sum)
	}
}

// writeDigits fills dst with the last decimal digits of n.
func writeDigits(dst []byte, n uint64) {
	for i := len(dst) - 1; i >= 0; i-- {
		dst[i] = byte('0' + n%10)
		n /= 10
	}
}

// checkNative reports the refusal in an envelope.
func checkNative(body []byte) error {
	if bytes.HasPrefix(body, []byte(`{"code":200,`)) {
		return nil
	}
	var reply api.Error
	if err := json.Unmarshal(body, &reply); err != nil {
		return fmt.Errorf("read reply: %w", err)
	}
	if reply.Code != api.CodeOK {
		return &reply
	}
	return nil
}

// ceilingSource sends the same request to the ceiling server every time.
type ceilingSource []byte

func newCeilingSource(host string, plaintext []byte) (ceilingSource, error) {
	body, err := json.Marshal(ceiling.Request{KeyID: ceilingKeyID, Plaintext: plaintext})
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, []byte(ceilingSecret))
	mac.Write(body)
	field := ceiling.MACHeader + ": " + base64.StdEncoding.EncodeToString(mac.Sum(nil)) + "\r\n"
	return appendPost(nil, host, "/encrypt", field, body), nil
}

func (s ceilingSource) next(time.Time) []byte { return s }

// appendPost appends an HTTP request. Fields are further header lines.
func appendPost(dst []byte, host, target, fields string, body []byte) []byte {
	dst = append(dst, "POST "+target+" HTTP/1.1\r\nHost: "+host+"\r\nContent-Type: application/json\r\n"+fields+"Content-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(body)), 10)
	return append(append(dst, "\r\n\r\n"...), body...)
}
