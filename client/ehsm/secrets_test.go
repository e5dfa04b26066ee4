package ehsm

import (
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
)

func TestSecretActions(t *testing.T) {
	value := NewSecretValue("s3\n\"<")
	testActions(t, []actionTest{
		{api.CreateSecret, `{"secretData":"s3\n\"\u003c","secretName":"n"}`, `{}`,
			func(c *Client) (any, error) {
				return nil, c.CreateSecret(t.Context(), "n", value, SecretOptions{})
			}, "<nil>"},
		{api.CreateSecret, `{"description":"d","encryptionKeyId":"k","rotationInterval":"7d","secretData":"s3\n\"\u003c","secretName":"n"}`, `{}`,
			func(c *Client) (any, error) {
				return nil, c.CreateSecret(t.Context(), "n", value, SecretOptions{"k", "d", "7d"})
			}, "<nil>"},
		{api.PutSecretValue, `{"secretData":"s3\n\"\u003c","secretName":"n"}`, `{}`,
			func(c *Client) (any, error) { return nil, c.PutSecretValue(t.Context(), "n", value) }, "<nil>"},
		{api.UpdateSecretDesc, `{"description":"d","secretName":"n"}`, `{}`,
			func(c *Client) (any, error) { return nil, c.UpdateSecretDescription(t.Context(), "n", "d") }, "<nil>"},
		{api.UpdateSecretDesc, `{"secretName":"n"}`, `{}`,
			func(c *Client) (any, error) { return nil, c.UpdateSecretDescription(t.Context(), "n", "") }, "<nil>"},
		{api.DeleteSecret, `{"secretName":"n"}`, `{}`,
			func(c *Client) (any, error) { return nil, c.DeleteSecret(t.Context(), "n", 0) }, "<nil>"},
		{api.DeleteSecret, `{"recoveryPeriod":7,"secretName":"n"}`, `{}`,
			func(c *Client) (any, error) { return nil, c.DeleteSecret(t.Context(), "n", 7) }, "<nil>"},
		{api.DeleteSecret, `{"forceDelete":true,"secretName":"n"}`, `{}`,
			func(c *Client) (any, error) { return nil, c.DeleteSecretNow(t.Context(), "n") }, "<nil>"},
		{api.RestoreSecret, `{"secretName":"n"}`, `{}`,
			func(c *Client) (any, error) { return nil, c.RestoreSecret(t.Context(), "n") }, "<nil>"},
		{api.GetSecretValue, `{"secretName":"n"}`, `{"secretName":"n","secretData":"s3","versionId":2,"createTime":1700000000000}`,
			func(c *Client) (any, error) {
				s, err := c.GetSecretValue(t.Context(), "n", 0)
				return fmt.Sprintln(s.Name, s.Version, s.Created.UnixMilli(), s.Value, s.Value.Expose()), err
			}, "n 2 1700000000000 secret s3\n"},
		{api.GetSecretValue, `{"secretName":"n","versionId":1}`, `{"secretName":"n","secretData":"s3","versionId":1,"createTime":5}`,
			func(c *Client) (any, error) {
				s, err := c.GetSecretValue(t.Context(), "n", 1)
				return s.Version, err
			}, "1"},
		{api.ListSecrets, `{}`, `{"totalCount":1,"secretList":[{"secretName":"n","description":"d","createTime":5,"plannedDeleteTime":6}]}`,
			func(c *Client) (any, error) { return c.ListSecrets(t.Context()) }, "[{n d 5 6}]"},
		{api.ListSecrets, `{}`, `{"totalCount":0,"secretList":[]}`,
			func(c *Client) (any, error) { return c.ListSecrets(t.Context()) }, "[]"},
		{api.ListSecretVersionIds, `{"secretName":"n"}`, `{"secretName":"n","totalCount":1,"versionIds":[{"versionId":1,"createTime":5}]}`,
			func(c *Client) (any, error) { return c.ListSecretVersions(t.Context(), "n") }, "[{1 5}]"},
		{api.DescribeSecret, `{"secretName":"n"}`, `{"secretName":"n","description":"d","createTime":1,"plannedDeleteTime":2,"rotationInterval":"7d","rationalInterval":"7d","lastRotationDate":3,"nextRotationDate":4}`,
			func(c *Client) (any, error) { return c.DescribeSecret(t.Context(), "n") }, "{n d 1 2 7d 7d 3 4}"},
	})
}

func TestSecretResults(t *testing.T) {
	get := func(c *Client) error { _, err := c.GetSecretValue(t.Context(), "n", 0); return err }
	testResults(t, []resultTest{
		{"no value", `{"secretName":"n","versionId":1,"createTime":5}`, get},
		{"no version", `{"secretName":"n","secretData":"x","createTime":5}`, get},
		{"value of another", `{"secretName":"m","secretData":"x","versionId":1,"createTime":5}`, get},
		{"another version", `{"secretName":"n","secretData":"x","versionId":1,"createTime":5}`,
			func(c *Client) error { _, err := c.GetSecretValue(t.Context(), "n", 2); return err }},
		{"no list", `{}`, func(c *Client) error { _, err := c.ListSecrets(t.Context()); return err }},
	})
}

// What is not there has one name, however the service says it.
func TestSecretErrors(t *testing.T) {
	is := map[string]func(error) bool{
		"not found": IsSecretNotFound, "exists": IsSecretExists, "deleted": IsSecretDeleted,
		"no version":     func(err error) bool { return errors.Is(err, ErrNoSecretVersion) },
		"no key":         IsKeyNotFound,
		"export":         IsExportFailed,
		"import token":   IsImportToken,
		"import":         IsImportFailed,
		"not our error":  func(err error) bool { return false },
		"key is disable": IsKeyDisabled,
	}
	get := func(c *Client) error { _, err := c.GetSecretValue(t.Context(), "n", 9); return err }
	restore := func(c *Client) error { return c.RestoreSecret(t.Context(), "n") }
	tests := []struct {
		reply string
		call  func(*Client) error
		want  string
	}{
		{refuse(400, "Can't find the n's value."), get, "not found"},
		{refuse(400, "Can't find the 's value.'s value."), get, "not found"},
		{refuse(400, "Cannot find secretName"), restore, "not found"},
		{refuse(400, "Can not find secretName"), restore, "not found"},
		{refuse(400, "Delete error, Can not find the secretName"), restore, "not found"},
		{refuse(400, "Can not restore secret, the secretName not find."), restore, "not found"},
		{succeed(`{}`), func(c *Client) error { _, err := c.DescribeSecret(t.Context(), "n"); return err }, "not found"},
		{succeed(`{"secretName":"n","totalCount":0,"versionIds":[]}`), func(c *Client) error { _, err := c.ListSecretVersions(t.Context(), "n"); return err }, "not found"},
		{succeed(`{}`), get, "no version"},
		{refuse(400, "Secret name already exists, cannot use the same secret name"), restore, "exists"},
		{refuse(400, "Can not modify a deleted secret."), restore, "deleted"},
		{refuse(400, "Can not put value for a deleted secret."), restore, "deleted"},
		{refuse(400, "Cannot find cmk by keyid."), restore, "no key"},
		{refuse(400, "Failed, Please confirm that your parameters are correct."), restore, "export"},
		{refuse(500, "ImportToken failed."), restore, "import token"},
		{refuse(500, `Token validity time is 24 hours. Try to send "GetParametersForImport" request again.`), restore, "import token"},
		{refuse(500, "Import key failed."), restore, "import"},
		{refuse(400, "keyid is disabled"), restore, "key is disable"},
	}
	for _, tt := range tests {
		s := &fakeServer{answer: func(string, map[string]any) string { return tt.reply }}
		err := tt.call(s.start(t))
		if err == nil {
			t.Errorf("%s: got no error", tt.reply)
		}
		for name, f := range is {
			if f(err) != (name == tt.want) {
				t.Errorf("%s: %v, %q is %v", tt.reply, err, name, f(err))
			}
		}
	}
}

// JSON would replace what is no UTF-8, and another value would be stored.
func TestSecretsAreText(t *testing.T) {
	const bad = "\xff"
	good := NewSecretValue("v")
	tests := []struct {
		name string
		call func(*Client) error
	}{
		{"name", func(c *Client) error { return c.CreateSecret(t.Context(), bad, good, SecretOptions{}) }},
		{"value", func(c *Client) error { return c.CreateSecret(t.Context(), "n", NewSecretValue(bad), SecretOptions{}) }},
		{"description", func(c *Client) error {
			return c.CreateSecret(t.Context(), "n", good, SecretOptions{Description: bad})
		}},
		{"put", func(c *Client) error { return c.PutSecretValue(t.Context(), "n", NewSecretValue(bad)) }},
		{"describe", func(c *Client) error { return c.UpdateSecretDescription(t.Context(), "n", bad) }},
		{"delete", func(c *Client) error { return c.DeleteSecretNow(t.Context(), bad) }},
		{"get", func(c *Client) error { _, err := c.GetSecretValue(t.Context(), bad, 0); return err }},
		{"description of", func(c *Client) error { _, err := c.DescribeSecret(t.Context(), bad); return err }},
		{"versions", func(c *Client) error { _, err := c.ListSecretVersions(t.Context(), bad); return err }},
	}
	for _, tt := range tests {
		s := &fakeServer{}
		if err := tt.call(s.start(t)); !errors.Is(err, ErrNotText) || s.seen != 0 {
			t.Errorf("%s: got %v after %d requests", tt.name, err, s.seen)
		}
	}
	if err := (&fakeServer{}).start(t).DeleteSecret(t.Context(), "n", -1); err == nil {
		t.Error("DeleteSecret in -1 days: got no error")
	}
}

func TestSecretValueDoesNotPrint(t *testing.T) {
	v := NewSecretValue("hunter2")
	nested := struct{ s Secret }{Secret{Name: "n", Value: v}}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		for _, x := range []any{v, &v, nested, []SecretValue{v}, map[string]SecretValue{"k": v}} {
			if got := fmt.Sprintf(verb, x); strings.Contains(got, "hunter2") || strings.Contains(got, fmt.Sprintf("%x", "hunter2")) {
				t.Errorf("%s of %T: got %s", verb, x, got)
			}
		}
	}
	if b, err := json.Marshal(Secret{Value: v}); err == nil {
		t.Errorf("JSON: got %s", b)
	}
	if b, err := xml.Marshal(v); err == nil {
		t.Errorf("XML: got %s", b)
	}
	if got := (SecretValue{}).Expose(); got != "" {
		t.Errorf("zero value: got %q", got)
	}
}
