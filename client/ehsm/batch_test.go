package ehsm

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
)

// shown prints the outcomes of a batch.
func shown[T any](items []BatchItem[T], err error) (string, error) {
	var all []string
	for _, item := range items {
		if item.Err != nil {
			all = append(all, "!"+item.Err.Error())
		} else {
			all = append(all, fmt.Sprintf("%s", any(item.Value)))
		}
	}
	return strings.Join(all, ", "), err
}

// answering is a client of a service that answers everything with a result.
func answering(t *testing.T, result string) *Client {
	return (&fakeServer{answer: func(string, map[string]any) string { return succeed(result) }}).start(t)
}

func byteses(texts ...string) (all [][]byte) {
	for _, s := range texts {
		all = append(all, []byte(s))
	}
	return all
}

func TestBatches(t *testing.T) {
	two, none := `["`+b64("a")+`","`+b64("b")+`"]`, `,"failures":[]}`
	testActions(t, []actionTest{
		{api.BatchEncrypt, `{"keyid":"k","padding_mode":"EH_RSA_PKCS1_OAEP","plaintexts":` + two + `}`, `{"ciphertexts":` + two + none,
			func(c *Client) (any, error) {
				return shown(c.BatchEncrypt(t.Context(), "k", byteses("a", "b"), BatchAAD{}))
			}, "a, b"},
		{api.BatchEncrypt, `{"aads":[null,"` + b64("x") + `"],"keyid":"k","padding_mode":"EH_RSA_PKCS1_OAEP","plaintexts":` + two + `}`,
			`{"ciphertexts":[null,"` + b64("b") + `"],"failures":[{"index":0,"code":500,"message":"no"}]}`,
			func(c *Client) (any, error) {
				return shown(c.BatchEncrypt(t.Context(), "k", byteses("a", "b"), BatchAAD{Each: [][]byte{nil, []byte("x")}}))
			}, "!BatchEncrypt: item 0: no (code 500), b"},
		{api.BatchDecrypt, `{"aad":"` + b64("x") + `","ciphertexts":` + two + `,"keyid":"k","padding_mode":"EH_RSA_PKCS1"}`, `{"plaintexts":` + two + none,
			func(c *Client) (any, error) {
				return shown(c.BatchDecrypt(t.Context(), "k", byteses("a", "b"), BatchAAD{All: []byte("x")}, api.PKCS1))
			}, "a, b"},
		{api.ReEncrypt, `{"aad":"` + b64("x") + `","ciphertext":"` + b64("a") + `","keyid":"k","uaad":"` + b64("y") + `","ukeyid":"l"}`, `{"ciphertext":"` + b64("z") + `"}`,
			func(c *Client) (any, error) {
				b, err := c.ReEncrypt(t.Context(), ReEncryption{From: "k", To: "l", AAD: BatchAAD{All: []byte("x")}, NewAAD: BatchAAD{All: []byte("y")}}, []byte("a"))
				return string(b), err
			}, "z"},
		{api.BatchReEncrypt, `{"ciphertexts":` + two + `,"keyid":"k","uaads":["` + b64("y") + `"],"ukeyid":"l"}`, `{"ciphertexts":` + two + none,
			func(c *Client) (any, error) {
				return shown(c.BatchReEncrypt(t.Context(), ReEncryption{From: "k", To: "l", NewAAD: BatchAAD{Each: byteses("y")}}, byteses("a", "b")))
			}, "a, b"},
		{api.BatchSign, `{"keyid":"k","message_type":"EH_RAW","messages":` + two + `,"padding_mode":"EH_RSA_PKCS1_PSS"}`, `{"signatures":` + two + none,
			func(c *Client) (any, error) {
				return shown(c.BatchSign(t.Context(), "k", byteses("a", "b"), api.RawMessage, SignatureOptions{}))
			}, "a, b"},
		{api.BatchVerify, `{"digest_mode":"EH_SM3","keyid":"k","message_type":"EH_RAW","messages":` + two + `,"padding_mode":"EH_RSA_PKCS1_PSS","signatures":` + two + `}`,
			`{"results":[true,false]` + none,
			func(c *Client) (any, error) {
				items, err := c.BatchVerify(t.Context(), "k", byteses("a", "b"), byteses("a", "b"), api.RawMessage, SignatureOptions{Digest: api.SM3})
				return fmt.Sprint(items), err
			}, "[{true <nil>} {false <nil>}]"},
	})
}

// TestBatchReplies refuses what has not one outcome for each item.
func TestBatchReplies(t *testing.T) {
	failure := func(i int) string {
		return fmt.Sprintf(`{"index":%d,"code":400,"message":"%s"}`, i, api.MessageDecryptionFailed)
	}
	one := `"` + b64("a") + `"`
	for name, row := range map[string]struct {
		values, failures string
		good             bool
	}{
		"two values":            {one + "," + one, "", true},
		"a value and a failure": {one + ",null", failure(1), true},
		"two failures":          {"null,null", failure(1) + "," + failure(0), true},
		"one value":             {one, "", false},
		"three values":          {one + "," + one + "," + one, "", false},
		"no value, no failure":  {one + ",null", "", false},
		"an empty value":        {one + `,""`, "", false},
		"both of an item":       {one + "," + one, failure(1), false},
		"a failure twice":       {one + ",null", failure(1) + "," + failure(1), false},
		"a failure of no item":  {one + "," + one, failure(2), false},
		"a failure before":      {one + "," + one, failure(-1), false},
	} {
		s := answering(t, `{"plaintexts":[`+row.values+`],"failures":[`+row.failures+`]}`)
		items, err := s.BatchDecrypt(t.Context(), "k", byteses("a", "b"), BatchAAD{}, "")
		if (err == nil) != row.good || err != nil && !errors.Is(err, ErrReply) {
			t.Errorf("%s: %v", name, err)
		}
		for _, item := range items {
			if item.Err != nil && !IsDecryptionFailed(item.Err) {
				t.Errorf("%s: item: %v", name, item.Err)
			}
		}
	}
}

// TestBatchesNotSent has what the service would refuse, or not see, refused here.
func TestBatchesNotSent(t *testing.T) {
	c := answering(t, `{}`)
	many := make([][]byte, api.MaxBatch+1)
	for i := range many {
		many[i] = []byte("a")
	}
	for name, items := range map[string][][]byte{"no items": nil, "too many": many, "an empty one": byteses("a", ""), "none": {nil}} {
		for action, err := range map[string]error{
			api.BatchEncrypt:   second(c.BatchEncrypt(t.Context(), "k", items, BatchAAD{})),
			api.BatchDecrypt:   second(c.BatchDecrypt(t.Context(), "k", items, BatchAAD{}, "")),
			api.BatchReEncrypt: second(c.BatchReEncrypt(t.Context(), ReEncryption{From: "k"}, items)),
			api.BatchSign:      second(c.BatchSign(t.Context(), "k", items, api.RawMessage, SignatureOptions{})),
			api.BatchVerify:    second(c.BatchVerify(t.Context(), "k", items, items, api.RawMessage, SignatureOptions{})),
		} {
			if err == nil || errors.Is(err, ErrReply) {
				t.Errorf("%s of %s: got %v, want an error before it is sent", action, name, err)
			}
		}
	}
	if _, err := c.BatchVerify(t.Context(), "k", byteses("a", "b"), byteses("a"), api.RawMessage, SignatureOptions{}); err == nil {
		t.Error("a signature is missing: no error")
	}
}

func second[T any](_ []BatchItem[T], err error) error { return err }
