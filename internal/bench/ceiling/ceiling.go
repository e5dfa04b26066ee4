// Package ceiling is the yardstick of `ehsm bench`: the least that a service on
// Go's HTTP stack can do and still be called a key management service. One
// request is HTTP/1.1 through net/http, with or without TLS 1.3, an HMAC-SHA-256
// check over the body, encoding/json into a struct, a key from a map, one
// AES-256-GCM of the standard library, encoding/json out of a struct, and
// nothing else: no records, no authorization beyond the MAC, no replay check, no
// audit, no limits on time.
//
// This source is frozen. Figures of different dates are compared through it, so
// it is neither improved nor repaired; a wish for another yardstick is met by a
// second package.
//
// It trusts whoever holds its one secret, and is for loopback addresses only.
package ceiling

import (
	"context"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
)

// MACHeader is the HTTP header with the standard base64 of HMAC-SHA-256 over the
// body under the server's secret.
const MACHeader = "Mac"

// maxBody is the longest body of a request, in bytes.
const maxBody = 1 << 20

// Request is the body of a POST request. Plaintext travels as base64.
type Request struct {
	KeyID     string `json:"keyid"`
	Plaintext []byte `json:"plaintext"`
}

// Reply is the body of a success, whose HTTP status is 200.
type Reply struct {
	Ciphertext []byte `json:"ciphertext"` // nonce (12 bytes), ciphertext, tag (16 bytes)
}

// Handler answers requests that are signed under secret with the plaintext
// encrypted under the key that they name. A wrong MAC gets HTTP status 403, a
// malformed body 400, an unknown key 404, all without a body. Each AEAD must
// take nonces of length 0, as those of cipher.NewGCMWithRandomNonce do. Neither
// argument is copied.
func Handler(secret []byte, keys map[string]cipher.AEAD) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.ContentLength < 0 || r.ContentLength > maxBody {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		body := make([]byte, r.ContentLength)
		if _, err := io.ReadFull(r.Body, body); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		mac := hmac.New(sha256.New, secret)
		mac.Write(body)
		sent, err := base64.StdEncoding.DecodeString(r.Header.Get(MACHeader))
		if err != nil || !hmac.Equal(sent, mac.Sum(nil)) {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		var req Request
		if err := json.Unmarshal(body, &req); err != nil {
			w.WriteHeader(http.StatusBadRequest)
			return
		}
		aead, ok := keys[req.KeyID]
		if !ok {
			w.WriteHeader(http.StatusNotFound)
			return
		}
		out, err := json.Marshal(Reply{aead.Seal(nil, nil, req.Plaintext, nil)})
		if err != nil {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(out)))
		w.Write(out)
	})
}

// Serve serves h on ln over HTTP/1.1 until ctx ends, and then closes ln and all
// connections. With a certificate it speaks TLS 1.3, without one plain HTTP.
func Serve(ctx context.Context, ln net.Listener, cert *tls.Certificate, h http.Handler) error {
	if cert != nil {
		ln = tls.NewListener(ln, &tls.Config{Certificates: []tls.Certificate{*cert}, MinVersion: tls.VersionTLS13})
	}
	server := &http.Server{Handler: h}
	stop := context.AfterFunc(ctx, func() { server.Close() })
	defer stop()
	if err := server.Serve(ln); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
