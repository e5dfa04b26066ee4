package ehsm

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/api"
)

const (
	maxReply  = 16 << 20 // bytes; a sealed batch of the largest items is eleven million
	attempts  = 3        // of a request that may be sent again
	firstWait = 50 * time.Millisecond
)

// Do calls an action that has no method of its own, or one with a payload of its
// own: payload is nil or encodes as a JSON object, result is a pointer that the
// result member is decoded into, or nil. It is never sent twice unless no byte
// of it was sent.
func (c *Client) Do(ctx context.Context, action string, payload, result any) error {
	if result == nil {
		result = &api.Empty{}
	}
	return c.call(ctx, action, false, payload, result)
}

// Raw signs and sends payload, a JSON object or nothing, and returns the exact
// body of the reply, also of a refusal; err then is what Do would return. A body
// that comes with an error other than *api.Error is not to be trusted.
func (c *Client) Raw(ctx context.Context, action string, payload []byte) (body []byte, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	body, err = c.retry(ctx, action, false, payload)
	if err == nil {
		err = decode(body, &json.RawMessage{})
	}
	return body, c.explain(action, err)
}

// call is Do. Read says that the action changes nothing, so that it may be sent
// again, with a new signature, after a failure of the connection.
func (c *Client) call(ctx context.Context, action string, read bool, payload, result any) error {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	var text []byte
	if payload != nil {
		var err error
		if text, err = json.Marshal(payload); err != nil {
			return fmt.Errorf("encode payload of %s: %w", action, err)
		}
	}
	body, err := c.retry(ctx, action, read, text)
	defer clear(body) // it may hold a plaintext
	if err == nil {
		err = decode(body, result)
	}
	return c.explain(action, err)
}

func (c *Client) explain(action string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", action, err)
}

// decode reads the result of a success.
func decode(body []byte, result any) error {
	reply := api.Reply[any]{Result: result}
	if err := json.Unmarshal(body, &reply); err != nil {
		return fmt.Errorf("%w: %w", ErrReply, err)
	}
	return nil
}

// retry sends a request until it is answered, or may not be sent again.
func (c *Client) retry(ctx context.Context, action string, read bool, payload []byte) ([]byte, error) {
	wait := firstWait
	for n := 1; ; n++ {
		body, err := c.attempt(ctx, action, payload)
		if err == nil || n == attempts || !again(err, read) {
			return body, outcome(err, read)
		}
		timer := time.NewTimer(wait/2 + rand.N(wait/2))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return body, outcome(err, read)
		}
		wait *= 4
	}
}

// attempt signs, sends and authenticates once.
func (c *Client) attempt(ctx context.Context, action string, payload []byte) ([]byte, error) {
	if action == api.Enroll || action == api.GetVersion {
		body, _, err := c.exchange(ctx, http.MethodGet, action, nil)
		if err != nil {
			return body, err
		}
		return body, refusal(body, true)
	}
	if c.session != nil {
		return c.attemptLoggedIn(ctx, action, payload)
	}
	req, err := c.sign(action, payload, c.sealer != nil)
	if err != nil {
		return nil, err
	}
	d, err := c.deliver(ctx, action, req.body)
	if err != nil {
		return d.body, err
	}
	if d.signature == "" {
		if err := refusal(d.body, !d.byCore); err != nil {
			return d.body, err
		}
		return d.body, fmt.Errorf("%w: no header %s", ErrReplySignature, api.ReplySignatureHeader)
	}
	if err := c.verifyReply(ctx, &req, action, d.body, d.signature); err != nil {
		return d.body, err
	}
	return d.body, refusal(d.body, false)
}

// verifyReply checks the core's signature of a reply.
func (c *Client) verifyReply(ctx context.Context, req *signed, action string, body []byte, header string) error {
	if c.pair != nil {
		return c.pair.verify(ctx, &req.mac, action, body, header)
	}
	if !api.VerifyReplySignature(&c.apiKey.get().reply, &req.mac, action, body, header) {
		return ErrReplySignature
	}
	return nil
}

// refusal returns the error of an envelope, nil if it is a success.
func refusal(body []byte, unsigned bool) error {
	var reply struct { // without the result, of which no copy is needed
		Code    int    `json:"code"`
		Message string `json:"message"`
	}
	if err := json.Unmarshal(body, &reply); err != nil {
		return fmt.Errorf("%w: %w", ErrReply, err)
	}
	switch {
	case reply.Code == api.CodeOK:
		return nil
	case reply.Code == 0:
		return fmt.Errorf("%w: no code", ErrReply)
	case unsigned:
		return unauthenticated{&api.Error{Code: reply.Code, Message: reply.Message}}
	}
	return &api.Error{Code: reply.Code, Message: reply.Message}
}

// exchange sends one HTTP request and returns the body of the reply and the
// value of its signature header.
func (c *Client) exchange(ctx context.Context, method, action string, body []byte) ([]byte, string, error) {
	var sent atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		GotConn: func(httptrace.GotConnInfo) { sent.Store(true) },
	})
	req, err := http.NewRequestWithContext(ctx, method, c.URL(action), bytes.NewReader(body))
	if err != nil {
		return nil, "", err
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, "", connError{err, sent.Load()}
	}
	defer resp.Body.Close()
	reply, err := readReply(resp)
	if err != nil {
		return nil, "", err
	}
	return reply, resp.Header.Get(api.ReplySignatureHeader), nil
}

// readReply reads a bounded body, into one allocation if its length is known, so
// that clearing it leaves no other copy here.
func readReply(resp *http.Response) ([]byte, error) {
	if resp.StatusCode != http.StatusOK {
		err := fmt.Errorf("%w: HTTP status %d", ErrReply, resp.StatusCode)
		if resp.StatusCode >= http.StatusInternalServerError {
			return nil, connError{err, true} // of a proxy: the service always answers 200
		}
		return nil, err
	}
	var body []byte
	var err error
	if n := resp.ContentLength; n >= 0 && n <= maxReply {
		body = make([]byte, n)
		_, err = io.ReadFull(resp.Body, body)
	} else {
		body, err = io.ReadAll(io.LimitReader(resp.Body, maxReply+1))
	}
	switch {
	case err != nil:
		return nil, connError{fmt.Errorf("read reply: %w", err), true}
	case len(body) > maxReply:
		return nil, fmt.Errorf("%w: more than %d bytes", ErrReply, maxReply)
	}
	return body, nil
}

// A connError is a failure below the API. Sent says that bytes of the request
// may have left.
type connError struct {
	err  error
	sent bool
}

func (e connError) Error() string { return e.err.Error() }
func (e connError) Unwrap() error { return e.err }

// again reports whether the request may be sent once more after err.
func again(err error, read bool) bool {
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return false
	}
	var failed connError
	if !errors.As(err, &failed) {
		return read && IsOverloaded(err)
	}
	if failed.sent {
		return read
	}
	// Nothing was sent. Only a refused or failed dial can go away by itself; a
	// certificate does not get better.
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}

// outcome adds to a failure that the request may have been executed, if that
// matters.
func outcome(err error, read bool) error {
	var failed connError
	if !read && errors.As(err, &failed) && failed.sent {
		return fmt.Errorf("%w: %w", ErrOutcomeUnknown, err)
	}
	return err
}
