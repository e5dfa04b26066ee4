package core

import (
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

func TestQuotePolicies(t *testing.T) {
	h, d, _ := newQuoteHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	c, other := h.enroll(), h.enroll()
	enclave, signer := strings.Repeat("aB", 32), strings.Repeat("0f", 32)
	r := c.do(0, "UploadQuotePolicy", map[string]any{"mr_enclave": enclave, "mr_signer": signer})
	want(t, "UploadQuotePolicy", r, 200, "Upload quote policy success.")
	id := r.text("policyId")
	if _, err := wire.ParseUUID(id); err != nil || len(r.Result) != 1 {
		t.Fatalf("UploadQuotePolicy: got %v", r.Result)
	}
	for core := range h.cores { // the second one has to open the record
		r = c.do(core, "GetQuotePolicy", map[string]any{"policyId": id})
		want(t, "GetQuotePolicy", r, 200, "Query quote policy success.")
		if r.text("policyId") != id || r.text("mr_enclave") != strings.ToLower(enclave) || r.text("mr_signer") != signer ||
			r.Result["createTime"] != float64(h.now.UnixMilli()) || len(r.Result) != 4 {
			t.Errorf("GetQuotePolicy: got %v", r.Result)
		}
	}
	again := c.mustDo("UploadQuotePolicy", map[string]any{"mr_enclave": enclave, "mr_signer": signer}).text("policyId")
	if again == id {
		t.Error("two policies have one id")
	}
	for name, row := range map[string]struct {
		c  *tenant
		id string
	}{
		"unknown": {c, wire.NewUUID().String()}, "another tenant's": {other, id}, "no UUID": {c, "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz"},
	} {
		r := row.c.do(0, "GetQuotePolicy", map[string]any{"policyId": row.id})
		want(t, name, r, 200, "Query quote policy success.")
		if r.text("policyId") != row.id || len(r.Result) != 1 {
			t.Errorf("%s: got %v", name, r.Result)
		}
	}
}

func TestQuotePolicyTexts(t *testing.T) {
	h, _, _ := newQuoteHost(t)
	c := h.enroll()
	good := strings.Repeat("ab", 32)
	for name, row := range map[string]struct {
		action  string
		payload map[string]any
		want    string
	}{
		"nothing":        {"UploadQuotePolicy", nil, "Missing required parameters, The mr_enclave cannot be empty."},
		"no signer":      {"UploadQuotePolicy", map[string]any{"mr_enclave": good}, "Missing required parameters, The mr_signer cannot be empty."},
		"short":          {"UploadQuotePolicy", map[string]any{"mr_enclave": good[:63], "mr_signer": good}, "Parameter invalid, The mr_enclave length error."},
		"long":           {"UploadQuotePolicy", map[string]any{"mr_enclave": good, "mr_signer": good + "a"}, "Parameter invalid, The mr_signer length error."},
		"no hex":         {"UploadQuotePolicy", map[string]any{"mr_enclave": good[:62] + "0g", "mr_signer": good}, "Parameter invalid, The mr_enclave format wrong."},
		"inside":         {"UploadQuotePolicy", map[string]any{"mr_enclave": good[:30] + " " + good[:33], "mr_signer": good}, "Parameter invalid, The mr_enclave format wrong."},
		"number":         {"UploadQuotePolicy", map[string]any{"mr_enclave": 5, "mr_signer": good}, "Parameter invalid, The mr_enclave must be of string type."},
		"unknown member": {"UploadQuotePolicy", map[string]any{"mr_enclave": good, "mr_signer": good, "isvsvn": 1}, "Parameter invalid, The isvsvn type is incorrect."},
		"no id":          {"GetQuotePolicy", nil, "Missing required parameters, The policyId cannot be empty."},
		"short id":       {"GetQuotePolicy", map[string]any{"policyId": "abc"}, "Parameter invalid, The policyId length error."},
		"id in capitals": {"GetQuotePolicy", map[string]any{"policyId": "AAC3E45A-D3DC-4791-89B6-4ADA0E38E6EF"}, "Parameter invalid, The policyId format wrong."},
	} {
		want(t, name, c.do(0, row.action, row.payload), 400, row.want)
	}
}
