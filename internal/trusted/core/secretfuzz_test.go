package core

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/ehsm-kms/ehsm/api/canon"
)

// FuzzSecret takes names, values and descriptions through the whole path.
func FuzzSecret(f *testing.F) {
	d := newDomain(f)
	for _, seed := range []string{"n", " ", "\n\t\v\f\r", `"\`, "a&b=c%41+", "\x00\x7f", "é\u2028\U0001f511", "\ufffd", strings.Repeat("n", 65), strings.Repeat("\U0001f511", 33), ""} {
		f.Add(seed, seed, seed)
	}
	f.Fuzz(func(t *testing.T, name, value, description string) {
		if !utf8.ValidString(name) || !utf8.ValidString(value) || !utf8.ValidString(description) {
			return // JSON cannot carry it
		}
		h := d.host(t, Limits{})
		c := h.enroll()
		p := secretOf(name, "secretData", value, "description", description)
		if text := refusedText(name, value, description); text != "" {
			want(t, "create", c.do(0, "CreateSecret", p), 400, text)
			return
		}
		described := m{
			"secretName": name, "description": description, "createTime": at(h.now), "plannedDeleteTime": 0,
			"rotationInterval": "", "rationalInterval": "", "lastRotationDate": 0, "nextRotationDate": 0,
		}
		item := m{"secretName": name, "createTime": at(h.now)}
		if description != "" {
			item["description"] = description
		}
		c.play(t, []step{
			{"CreateSecret", p, 200, "The " + name + " create success.", m{}},
			{"GetSecretValue", secretOf(name), 200, "successful", m{"secretName": name, "secretData": value, "versionId": 1, "createTime": at(h.now)}},
			{"DescribeSecret", secretOf(name), 200, "Describe secrets success.", described},
			{"ListSecrets", nil, 200, "List secrets success.", m{"totalCount": 1, "secretList": []any{item}}},
			{"PutSecretValue", secretOf(name, "secretData", value), 200, "The " + name + " new version put success.", m{}},
			{"DeleteSecret", secretOf(name), 200, "The " + name + " will be deleted after 30 days.", m{}},
			{"GetSecretValue", secretOf(name), 400, "Can't find the " + name + "'s value.", nil},
			{"RestoreSecret", secretOf(name), 200, "The " + name + " restore success.", m{}},
			{"DeleteSecret", secretOf(name, "forceDelete", true), 200, "The " + name + " delete success", m{}},
			{"ListSecrets", nil, 200, "List secrets success.", m{"totalCount": 0, "secretList": []any{}}},
		})
		if n := h.versions(c); n != 0 {
			t.Errorf("%d versions are left", n)
		}
	})
}

// refusedText is why a secret cannot be created, "" if it can.
func refusedText(name, value, description string) string {
	switch {
	case name == "":
		return "Missing required parameters, The secretName cannot be empty."
	case canon.UTF16Len(name) > 64:
		return "Parameter invalid, The secretName length error."
	case value == "":
		return "Missing required parameters, The secretData cannot be empty."
	case canon.UTF16Len(value) > 4096:
		return "Parameter invalid, The secretData length error."
	case canon.UTF16Len(description) > 4096:
		return "Parameter invalid, The description length error."
	}
	return ""
}
