package ehsm

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
)

// asked serves one answer at the paths below a prefix, and notes what was asked.
func asked(t *testing.T, status int, body string) (*Client, *[]string) {
	t.Helper()
	urls := new([]string)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		*urls = append(*urls, r.Method+" "+r.URL.String())
		if status == http.StatusFound {
			w.Header().Set("Location", "/elsewhere")
		}
		w.WriteHeader(status)
		w.Write([]byte(body))
	}))
	t.Cleanup(server.Close)
	c, err := New(Config{URL: server.URL + "/kms/ehsm", Insecure: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c, urls
}

func TestEvidence(t *testing.T) {
	challenge := [api.EvidenceChallenge]byte{0xfb, 0xff, 31: 1}
	c, urls := asked(t, http.StatusOK, `{"code":200,"message":"success!","result":{"challenge":"x","evidence":"AQE=","role":"core"}}`)
	res, err := c.Evidence(t.Context(), challenge)
	if err != nil || res.Role != "core" || !bytes.Equal(res.Evidence, []byte{1, 1}) {
		t.Fatalf("got %+v, %v", res, err)
	}
	if want := "GET /kms/ehsm?Action=GetEvidence&challenge=-_8AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"; fmt.Sprint(*urls) != "["+want+"]" {
		t.Errorf("asked %q, want %q", *urls, want)
	}
	for name, row := range map[string]struct {
		status int
		body   string
		want   error
	}{
		"no JSON":     {200, `<html>`, ErrReply},
		"no code":     {200, `{}`, ErrReply},
		"wrong types": {200, `{"code":200,"message":"","result":{"evidence":7}}`, ErrReply},
		"HTTP 503":    {503, `{}`, ErrReply},
		"redirect":    {302, ``, ErrReply},
		"too long":    {200, strings.Repeat(" ", maxReply+1), ErrReply},
	} {
		c, urls := asked(t, row.status, row.body)
		if _, err := c.Evidence(t.Context(), challenge); !errors.Is(err, row.want) || len(*urls) != 1 {
			t.Errorf("%s: got %v after %d requests", name, err, len(*urls))
		}
	}
	var refusal *api.Error
	c, _ = asked(t, http.StatusOK, refuse(api.CodeOverloaded, "Too many requests."))
	if _, err := c.Evidence(t.Context(), challenge); !errors.As(err, &refusal) || !IsOverloaded(err) || !IsUnauthenticated(err) {
		t.Errorf("refusal: got %v", err)
	}
}

func TestCollateral(t *testing.T) {
	c, urls := asked(t, http.StatusOK, `{"tcb_info":"{}"}`)
	if b, err := c.Collateral(t.Context()); err != nil || string(b) != `{"tcb_info":"{}"}` || (*urls)[0] != "GET /kms/attestation/collateral" {
		t.Errorf("got %s, %v from %q", b, err, *urls)
	}
	for name, row := range map[string]struct {
		status int
		body   string
		want   error
		text   string
	}{
		"no source": {404, `{"error":"no source"}`, ErrNoCollateral, `no source`},
		"not yet":   {503, "wait\n\x1b", ErrNoCollateral, `"wait\n\x1b"`},
		"redirect":  {302, ``, ErrNoCollateral, "302"},
		"too long":  {200, strings.Repeat("x", maxCollateral+1), ErrReply, "longer"},
		"a novel":   {500, strings.Repeat("n", maxCollateral), ErrNoCollateral, "500"},
	} {
		c, _ := asked(t, row.status, row.body)
		if _, err := c.Collateral(t.Context()); !errors.Is(err, row.want) || !strings.Contains(err.Error(), row.text) || len(err.Error()) > 2*maxReason {
			t.Errorf("%s: got %.200v", name, err)
		}
	}
}
