package core

import (
	"encoding/base64"
	"errors"
	"fmt"
	"runtime"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/fair"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// batchActions are those on many items with one key, and ReEncrypt. All must be named
// under the signature: the payload of BatchReEncrypt fits BatchDecrypt, and that of
// ReEncrypt Decrypt, whose replies the host reads. And all are strict: a member named
// "uaad=QQ==&ukeyid" renders as two do, so that they could be taken out.
func batchActions() []*action {
	keyid, ukeyid := keyIDMember("keyid"), keyIDMember("ukeyid").opt()
	aad, uaad := base64Member("aad", maxBase64).opt(), base64Member("uaad", maxBase64).opt()
	aads, uaads := sparseMember("aads", maxBase64), sparseMember("uaads", maxBase64)
	messages, ciphertexts := base64sMember("messages", maxBase64), base64sMember("ciphertexts", maxCiphertextText)
	padding := member{name: "padding_mode", kind: kindName, names: paddingNames(), optional: true}
	messageType := member{name: "message_type", kind: kindName, names: messageTypeNames(), optional: true}
	digest := member{name: "digest_mode", kind: kindName, names: digestNames(), optional: true}
	version := versionMember().opt()
	return []*action{
		{name: api.ReEncrypt, cryptographic: true, named: true, strict: true, run: (*request).reEncrypt, members: []member{
			keyid, base64Member("ciphertext", maxCiphertextText), aad, ukeyid, uaad}},
		{name: api.BatchReEncrypt, cryptographic: true, named: true, strict: true, run: (*request).batchReEncrypt, members: []member{
			keyid, ciphertexts, aad, aads, ukeyid, uaad, uaads}},
		{name: api.BatchEncrypt, cryptographic: true, named: true, strict: true, run: (*request).batchEncrypt, members: []member{
			keyid, base64sMember("plaintexts", maxBase64), aad, aads, padding, version}},
		{name: api.BatchDecrypt, cryptographic: true, named: true, strict: true, run: (*request).batchDecrypt, members: []member{
			keyid, ciphertexts, aad, aads, padding, version}},
		{name: api.BatchSign, cryptographic: true, named: true, strict: true, run: (*request).batchSign, members: []member{
			keyid, messages, messageType, digest, padding, version}},
		{name: api.BatchVerify, cryptographic: true, named: true, strict: true, run: (*request).batchVerify, members: []member{
			keyid, messages, messageType, digest, padding, base64sMember("signatures", maxBase64), version}},
	}
}

// newBatchTurns bounds how many processors asymmetric items of batches take: each item
// is a turn of its own, and tenants get turns one after the other, so that a thousand
// private-key operations keep neither other batches waiting nor all processors from other
// requests.
func newBatchTurns() *fair.Gate[wire.UUID] {
	const waiting = 1 << 16 // more than calls can be under way
	n := max(1, runtime.GOMAXPROCS(0)/2)
	return fair.New[wire.UUID](fair.Limits{Places: n, Each: n, Waiting: waiting, Queue: waiting})
}

// A batch collects what becomes of the items of a request.
type batch struct {
	x        *request
	values   object // an array of JSON values, one for each item
	failures object // an array of objects, one for each item that failed
	items    int
	failed   int
	reason   string // why the first of these failed
}

// newBatch begins a batch of items whose values take about size bytes, all together.
// The values are the result's member of that name.
func (x *request) newBatch(name string, size int) *batch {
	b := &batch{x: x, values: make(object, 0, size+len(`{"":[],"failures":[]}`)+len(name))}
	b.values = append(b.values.key(name), '[')
	return b
}

// item adds an item. Work appends its JSON value, or nothing and says why: the item has
// failed if the error is a refusal, and the batch if it is another.
func (b *batch) item(work func(dst []byte) ([]byte, error)) error {
	if b.items > 0 {
		b.values = append(b.values, ',')
	}
	at := len(b.values)
	values, err := work(b.values)
	if err == nil {
		b.values = values
	} else {
		var r *refusal
		if !errors.As(err, &r) {
			return err
		}
		b.values = append(b.values[:at], "null"...)
		b.fail(r)
	}
	b.items++
	return nil
}

func (b *batch) fail(r *refusal) {
	if b.failed++; b.failed == 1 {
		b.reason = r.reason
	} else {
		b.failures = append(b.failures, ',')
	}
	one := object{}.integer("index", int64(b.items)).integer("code", int64(r.code)).text("message", r.message)
	b.failures = append(b.failures, one.end()...)
}

// end returns the result, and has the audit entry say how many items there were.
func (b *batch) end() (result, error) {
	b.x.remark += fmt.Sprintf(", %d items", b.items)
	if b.failed > 0 {
		b.x.remark += fmt.Sprintf(", %d failed: %s", b.failed, b.reason)
	}
	b.values = append(b.values, ']')
	o := append(b.values.key("failures"), '[')
	o = append(append(o, b.failures...), ']')
	return result{textSuccess, o.end()}, nil
}

// appendBase64 appends b as a JSON string in standard base64.
func appendBase64(dst, b []byte) []byte {
	dst = base64.StdEncoding.AppendEncode(append(dst, '"'), b)
	return append(dst, '"')
}

// texts are the items of a batch in base64.
type texts struct{ value canon.Value }

func (x *request) texts(name string) texts { return texts{x.payload.get(name)} }

func (t texts) len() int { return t.value.Len() }

// decode appends the bytes of item i, none if it has none.
func (t texts) decode(dst []byte, i int) []byte {
	dst, _ = base64.StdEncoding.AppendDecode(dst, []byte(t.value.Elem(i).Text())) // validated
	return dst
}

// size returns how many bytes the longest item and all items together have at most.
func (t texts) size() (longest, total int) {
	for i := range t.len() {
		n := base64.StdEncoding.DecodedLen(len(t.value.Elem(i).Text()))
		longest, total = max(longest, n), total+n
	}
	return longest, total
}

// encodedSize is about how long n values of total bytes are as base64 in an array.
func encodedSize(n, total int) int { return total/3*4 + n*len(`"====",`) }

// additional is the additional data of the items of a batch: the same for all, or each
// its own.
type additional struct {
	one  []byte
	each texts
	n    int
	room []byte
}

// additional reads the members for additional data. Some of it for no item is refused,
// and so are both members at once.
func (x *request) additionalOf(one, each string, items int) (additional, error) {
	a := additional{one: x.payload.bytes(one), each: x.texts(each)}
	a.n = a.each.len()
	switch {
	case a.n > items:
		return a, bad("Parameter invalid, The "+each+" length error.", "more additional data than items")
	case a.n > 0 && a.one != nil:
		return a, bad("Parameter invalid, The "+each+" type is incorrect.", "additional data twice")
	}
	return a, nil
}

// none reports whether no item has any.
func (a *additional) none() bool { return a.one == nil && a.n == 0 }

// of returns that of item i, nil if it has none, until the next call.
func (a *additional) of(i int) []byte {
	if a.n == 0 {
		return a.one
	}
	if i >= a.n {
		return nil
	}
	a.room = a.each.decode(a.room[:0], i)
	return a.room
}

// sameLength refuses arrays that belong together and differ in length.
func sameLength(a, b texts, name string) error {
	if a.len() != b.len() {
		return bad("Parameter invalid, The "+name+" length error.", "number of "+name)
	}
	return nil
}
