// Package protocol is what a program and the daemon of the simulated platform
// say to each other over a unix socket. The program asks, one request at a time;
// the daemon answers each.
//
// It trusts neither side's bytes. What it carries includes seal keys in the
// clear: the socket is as secret as the machine's files.
// Layout: docs/formats.md#daemon-of-the-simulated-platform.
package protocol

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire/pack"
)

// Limits of a frame after its length, in bytes.
const (
	MaxRequest = 2 << 10
	MaxReply   = 128 << 10 // the measured configuration has at most half
)

// ErrFrame is wrapped by the errors for frames that break the rules.
var ErrFrame = errors.New("bad frame")

// WriteFrame writes a length of four bytes and b.
func WriteFrame(w io.Writer, b []byte) error {
	_, err := w.Write(pack.AppendBytes(nil, b)) // one write, so that it has one sender
	return err
}

// ReadFrame reads a frame of at most limit bytes. It returns io.EOF where the
// peer ended between two frames. Errors: ErrFrame, those of r.
func ReadFrame(r io.Reader, limit int) ([]byte, error) {
	var length [4]byte
	if _, err := io.ReadFull(r, length[:]); errors.Is(err, io.EOF) {
		return nil, io.EOF
	} else if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	n := binary.BigEndian.Uint32(length[:])
	if int64(n) > int64(limit) {
		return nil, fmt.Errorf("%w: %d bytes, limit %d", ErrFrame, n, limit)
	}
	b := make([]byte, n) // at most MaxReply
	if _, err := io.ReadFull(r, b); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrFrame, err)
	}
	return b, nil
}

// Op is what a request asks for. Numbers are transmitted and never change.
type Op uint8

const (
	_          Op = iota
	OpHello       // product and SVN the program was built as; answer: a nonce, 32 bytes
	OpProve       // the nonce; answer: Loaded
	OpSealKey     // a key request; answer: the key, 32 bytes
	OpEvidence    // REPORTDATA; answer: evidence of package attest
	OpTarget      // nothing; answer: the target
	OpReport      // REPORTDATA and a target; answer: a local report
	OpVerify      // a local report; answer: Verified
)

// Limits of parts of requests, in bytes.
const (
	MaxTarget = 512
	MaxReport = 432
)

const version = 1

// A Request is one request. Only the fields of its Op are transmitted.
type Request struct {
	Op           Op
	Product, SVN uint16         // OpHello
	Nonce        [32]byte       // OpProve
	Key          tee.KeyRequest // OpSealKey
	Data         [64]byte       // OpEvidence, OpReport
	Body         []byte         // OpReport: target; OpVerify: report
}

// Append appends the encoding of r.
func (r Request) Append(dst []byte) []byte {
	dst = append(dst, byte(r.Op))
	switch r.Op {
	case OpHello:
		dst = append(dst, version)
		dst = binary.BigEndian.AppendUint16(dst, r.Product)
		dst = binary.BigEndian.AppendUint16(dst, r.SVN)
	case OpProve:
		dst = append(dst, r.Nonce[:]...)
	case OpSealKey:
		dst = append(dst, byte(r.Key.Policy))
		dst = binary.BigEndian.AppendUint16(dst, r.Key.SVN)
		dst = append(dst, r.Key.KeyID[:]...)
		dst = pack.AppendBytes(dst, r.Key.Info)
	case OpEvidence:
		dst = append(dst, r.Data[:]...)
	case OpReport:
		dst = append(dst, r.Data[:]...)
		dst = pack.AppendBytes(dst, r.Body)
	case OpVerify:
		dst = pack.AppendBytes(dst, r.Body)
	}
	return dst
}

// DecodeRequest reads what Append wrote, and nothing else. The request shares
// memory with b. Errors: pack.ErrMalformed.
func DecodeRequest(b []byte) (Request, error) {
	in := pack.NewReader(b)
	r := Request{Op: Op(in.Uint8())}
	switch r.Op {
	case OpHello:
		if v := in.Uint8(); in.Err() == nil && v != version {
			in.Fail("version %d is unknown", v)
		}
		r.Product, r.SVN = in.Uint16(), in.Uint16()
	case OpProve:
		in.Array(r.Nonce[:])
	case OpSealKey:
		r.Key.Policy, r.Key.SVN = tee.Policy(in.Uint8()), in.Uint16()
		in.Array(r.Key.KeyID[:])
		r.Key.Info = in.Bytes(tee.MaxKeyInfo)
	case OpEvidence:
		in.Array(r.Data[:])
	case OpTarget:
	case OpReport:
		in.Array(r.Data[:])
		r.Body = in.Bytes(MaxTarget)
	case OpVerify:
		r.Body = in.Bytes(MaxReport)
	default:
		in.Fail("request %d is unknown", r.Op)
	}
	if err := in.Close(); err != nil {
		return Request{}, fmt.Errorf("decode request: %w", err)
	}
	return r, nil
}
