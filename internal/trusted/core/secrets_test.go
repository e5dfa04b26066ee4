package core

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// secretOf is a payload of the members given as name and value in turn, after the
// name of a secret.
func secretOf(name string, more ...any) m {
	p := m{"secretName": name}
	for i := 0; i < len(more); i += 2 {
		p[more[i].(string)] = more[i+1]
	}
	return p
}

// A step is one request and what its reply must be. want is the result, nil if
// it does not matter.
type step struct {
	action  string
	payload m
	code    int
	message string
	want    m
}

func (c *tenant) play(t testing.TB, steps []step) {
	t.Helper()
	for i, s := range steps {
		r := c.do(0, s.action, s.payload)
		want(t, fmt.Sprintf("step %d, %s %v", i, s.action, s.payload), r, s.code, s.message)
		if s.want != nil && fmt.Sprint(r.Result) != fmt.Sprint(s.want) {
			t.Errorf("step %d, %s: got %v, want %v", i, s.action, r.Result, s.want)
		}
	}
}

const (
	taken   = "Secret name already exists, cannot use the same secret name"
	noCMK   = "Cannot find cmk by keyid."
	hours   = "The rotation time is less than 6 hours or more than 8760 hours"
	noValue = "Can't find the n's value."
	noPut   = "Can not find secretName"
	noName  = "Delete error, Can not find the secretName"
	badKind = "The forceDelete must be true or false"
)

// at is a time in the JSON of a reply.
func at(t time.Time) float64 { return float64(t.UnixMilli()) }

func TestSecretLifeCycle(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	first := h.now
	c.play(t, []step{
		{"GetSecretValue", secretOf("n"), 400, noValue, nil},
		{"PutSecretValue", secretOf("n", "secretData", "x"), 400, noPut, nil},
		{"UpdateSecretDesc", secretOf("n"), 400, "Cannot find secretName", nil},
		{"DeleteSecret", secretOf("n"), 400, noName, nil},
		{"DeleteSecret", secretOf("n", "forceDelete", "true"), 400, noName, nil},
		{"RestoreSecret", secretOf("n"), 400, "Can not restore secret, the secretName not find.", nil},
		{"ListSecretVersionIds", secretOf("n"), 200, "List secret versionIds success.", m{"secretName": "n", "totalCount": 0, "versionIds": []any{}}},
		{"DescribeSecret", secretOf("n"), 200, "Describe secrets success.", m{}},
		{"ListSecrets", secretOf("n"), 200, "List secrets success.", m{"totalCount": 0, "secretList": []any{}}},
		{"ListSecrets", nil, 200, "List secrets success.", m{"totalCount": 0, "secretList": []any{}}},
		{"CreateSecret", secretOf("n", "secretData", "one", "description", "d", "rotationInterval", "7d"), 200, "The n create success.", m{}},
		{"CreateSecret", secretOf("n", "secretData", "two"), 400, taken, nil},
		{"GetSecretValue", secretOf("n"), 200, "successful", m{"secretName": "n", "secretData": "one", "versionId": 1, "createTime": at(first)}},
		{"DescribeSecret", secretOf("n"), 200, "Describe secrets success.", m{
			"secretName": "n", "description": "d", "createTime": at(first), "plannedDeleteTime": 0,
			"rotationInterval": "7d", "rationalInterval": "7d", "lastRotationDate": 0, "nextRotationDate": at(first.Add(7 * 24 * time.Hour)),
		}},
	})
	h.now = h.now.Add(time.Hour)
	second := h.now
	c.play(t, []step{
		{"PutSecretValue", secretOf("n", "secretData", "two"), 200, "The n new version put success.", m{}},
		{"GetSecretValue", secretOf("n"), 200, "successful", m{"secretName": "n", "secretData": "two", "versionId": 2, "createTime": at(second)}},
		{"GetSecretValue", secretOf("n", "versionId", 1), 200, "successful", m{"secretName": "n", "secretData": "one", "versionId": 1, "createTime": at(first)}},
		{"GetSecretValue", secretOf("n", "versionId", 3), 200, "successful", m{}},
		{"GetSecretValue", secretOf("n", "versionId", 1<<53), 200, "successful", m{}},
		{"ListSecretVersionIds", secretOf("n"), 200, "List secret versionIds success.", m{"secretName": "n", "totalCount": 2, "versionIds": []any{
			m{"versionId": 1, "createTime": at(first)}, m{"versionId": 2, "createTime": at(second)}}}},
		{"DescribeSecret", secretOf("n"), 200, "Describe secrets success.", m{
			"secretName": "n", "description": "d", "createTime": at(first), "plannedDeleteTime": 0,
			"rotationInterval": "7d", "rationalInterval": "7d", "lastRotationDate": at(second), "nextRotationDate": at(second.Add(7 * 24 * time.Hour)),
		}},
		{"CreateSecret", secretOf("a", "secretData", "x"), 200, "The a create success.", nil},
		{"DescribeSecret", secretOf("a"), 200, "Describe secrets success.", m{
			"secretName": "a", "description": "", "createTime": at(second), "plannedDeleteTime": 0,
			"rotationInterval": "", "rationalInterval": "", "lastRotationDate": 0, "nextRotationDate": 0,
		}},
		{"UpdateSecretDesc", secretOf("n", "description", "other"), 200, "Update secret description success.", m{}},
		{"ListSecrets", nil, 200, "List secrets success.", m{"totalCount": 2, "secretList": []any{
			m{"secretName": "n", "description": "other", "createTime": at(first)}, m{"secretName": "a", "createTime": at(second)}}}},
		{"ListSecrets", secretOf("a"), 200, "List secrets success.", m{"totalCount": 1, "secretList": []any{m{"secretName": "a", "createTime": at(second)}}}},
		{"UpdateSecretDesc", secretOf("n"), 200, "Update secret description success.", nil},
		{"ListSecrets", secretOf("n"), 200, "List secrets success.", m{"totalCount": 1, "secretList": []any{m{"secretName": "n", "createTime": at(first)}}}},
		{"DeleteSecret", secretOf("n", "recoveryPeriod", 7), 200, "The n will be deleted after 7 days.", m{}},
		{"GetSecretValue", secretOf("n"), 400, noValue, nil},
		{"GetSecretValue", secretOf("n", "versionId", 1), 400, noValue, nil},
		{"GetSecretValue", secretOf("n", "versionId", 9), 400, noValue, nil},
		{"PutSecretValue", secretOf("n", "secretData", "x"), 400, "Can not put value for a deleted secret.", nil},
		{"UpdateSecretDesc", secretOf("n", "description", "x"), 400, "Can not modify a deleted secret.", nil},
		{"CreateSecret", secretOf("n", "secretData", "x"), 400, taken, nil},
		{"ListSecretVersionIds", secretOf("n"), 200, "List secret versionIds success.", m{"secretName": "n", "totalCount": 0, "versionIds": []any{}}},
		{"ListSecrets", secretOf("n"), 200, "List secrets success.", m{"totalCount": 1, "secretList": []any{
			m{"secretName": "n", "createTime": at(first), "plannedDeleteTime": at(second.Add(7 * 24 * time.Hour))}}}},
		{"RestoreSecret", secretOf("n"), 200, "The n restore success.", m{}},
		{"GetSecretValue", secretOf("n"), 200, "successful", m{"secretName": "n", "secretData": "two", "versionId": 2, "createTime": at(second)}},
		{"RestoreSecret", secretOf("n"), 200, "The n restore success.", m{}},
		{"DeleteSecret", secretOf("n", "force_delete", true), 200, "The n delete success", m{}},
		{"GetSecretValue", secretOf("n"), 400, noValue, nil},
		{"DescribeSecret", secretOf("n"), 200, "Describe secrets success.", m{}},
		{"RestoreSecret", secretOf("n"), 400, "Can not restore secret, the secretName not find.", nil},
		{"CreateSecret", secretOf("n", "secretData", "three"), 200, "The n create success.", nil},
		{"GetSecretValue", secretOf("n"), 200, "successful", m{"secretName": "n", "secretData": "three", "versionId": 1, "createTime": at(second)}},
		{"GetSecretValue", secretOf("n", "versionId", 2), 200, "successful", m{}},
	})
	if n := h.versions(c); n != 2 {
		t.Errorf("%d versions are stored, want those of n and a", n)
	}
}

// versions counts the stored secret versions of a tenant.
func (h *host) versions(c *tenant) (n int) {
	for id := range h.rows {
		if id.Type == wire.SecretVersion && id.Tenant == c.id() {
			n++
		}
	}
	return n
}

func TestDeleteSecretSpellings(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	const later, now = "The n will be deleted after 30 days.", "The n delete success"
	for _, row := range []struct {
		name    string
		more    m
		code    int
		message string
	}{
		{"nothing", m{}, 200, later},
		{"text true", m{"forceDelete": "true"}, 200, now},
		{"text false", m{"forceDelete": "false"}, 200, later},
		{"true in capitals", m{"forceDelete": "TRUE"}, 200, later},
		{"Python's true as text", m{"forceDelete": "True"}, 200, later},
		{"false in capitals", m{"forceDelete": "FALSE"}, 200, later},
		{"boolean true", m{"forceDelete": true}, 200, now},
		{"boolean false", m{"forceDelete": false}, 200, later},
		{"null", m{"forceDelete": nil}, 200, later},
		{"empty", m{"forceDelete": ""}, 200, later},
		{"the other name", m{"force_delete": "true"}, 200, now},
		{"the other name, boolean", m{"force_delete": true}, 200, now},
		{"the other name, false", m{"force_delete": false}, 200, later},
		{"both names alike", m{"forceDelete": "true", "force_delete": "true"}, 200, now},
		{"with a period", m{"forceDelete": "true", "recoveryPeriod": 3}, 200, now},
		{"1 day", m{"recoveryPeriod": 1}, 200, "The n will be deleted after 1 days."},
		{"365 days", m{"recoveryPeriod": 365}, 200, "The n will be deleted after 365 days."},
		{"whole days", m{"recoveryPeriod": 9.0}, 200, "The n will be deleted after 9 days."},
		{"yes", m{"forceDelete": "yes"}, 400, badKind},
		{"one", m{"forceDelete": 1}, 400, badKind},
		{"a space", m{"forceDelete": "true "}, 400, badKind},
		{"an array", m{"forceDelete": []any{"true"}}, 400, badKind},
		{"an object", m{"force_delete": m{"a": 1}}, 400, badKind},
		{"both names with two values", m{"forceDelete": "true", "force_delete": "false"}, 400, "Parameter invalid, The forceDelete type is incorrect."},
		{"both names with two types", m{"forceDelete": "true", "force_delete": true}, 400, "Parameter invalid, The forceDelete type is incorrect."},
		{"a third name", m{"ForceDelete": "true"}, 400, "Parameter invalid, The ForceDelete type is incorrect."},
		{"half a day", m{"recoveryPeriod": 0.5}, 400, "Parameter invalid, The recoveryPeriod must be of integer type."},
		{"text for days", m{"recoveryPeriod": "7"}, 400, "Parameter invalid, The recoveryPeriod must be of integer type."},
		{"days before", m{"recoveryPeriod": -1}, 400, "Parameter invalid, The recoveryPeriod value must be greater than or equal to 1."},
		{"366 days", m{"recoveryPeriod": 366}, 400, "Parameter invalid, The recoveryPeriod value must be less than or equal to 365."},
	} {
		if r := c.do(0, "CreateSecret", secretOf("n", "secretData", "x")); r.Code != 200 && r.Message != taken {
			t.Fatalf("create: %s", r.Message)
		}
		c.mustDo("RestoreSecret", secretOf("n"))
		row.more["secretName"] = "n"
		want(t, row.name, c.do(0, "DeleteSecret", row.more), row.code, row.message)
		gone := len(c.mustDo("DescribeSecret", secretOf("n")).Result) == 0
		if wantGone := row.message == now; gone != wantGone {
			t.Errorf("%s: secret is gone %v, want %v", row.name, gone, wantGone)
		}
	}
	// A false that the kept form shows as Python prints it.
	for _, form := range []canon.Form{canon.Skipping, canon.Keeping, canon.KeepingTitle} {
		c.mustDo("RestoreSecret", secretOf("n"))
		body := c.signText(c.request(`{"secretName":"n","recoveryPeriod":5,"force_delete":false}`), form)
		want(t, fmt.Sprintf("form %v", form), c.send(0, "DeleteSecret", body), 200, "The n will be deleted after 5 days.")
	}
}

func TestSecretParameters(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "x"))
	long := strings.Repeat
	const (
		cannotBeEmpty = "Missing required parameters, The %s cannot be empty."
		length        = "Parameter invalid, The %s length error."
		ofString      = "Parameter invalid, The %s must be of string type."
		incorrect     = "Parameter invalid, The %s type is incorrect."
		format        = "Parameter invalid, The %s format wrong."
		ofInteger     = "Parameter invalid, The %s must be of integer type."
	)
	for _, row := range []struct {
		action  string
		payload m
		text    string
		member  string
	}{
		{"CreateSecret", nil, cannotBeEmpty, "secretName"},
		{"CreateSecret", m{"secretName": "m"}, cannotBeEmpty, "secretData"},
		{"CreateSecret", secretOf("", "secretData", "x"), cannotBeEmpty, "secretName"},
		{"CreateSecret", secretOf("m", "secretData", ""), cannotBeEmpty, "secretData"},
		{"CreateSecret", secretOf("m", "secretData", nil), cannotBeEmpty, "secretData"},
		{"CreateSecret", secretOf("m", "secretData", 5), ofString, "secretData"},
		{"CreateSecret", secretOf("m", "secretData", true), ofString, "secretData"},
		{"CreateSecret", m{"secretName": 5, "secretData": "x"}, ofString, "secretName"},
		{"CreateSecret", secretOf(long("n", 65), "secretData", "x"), length, "secretName"},
		{"CreateSecret", secretOf(long("\U0001f511", 32)+"n", "secretData", "x"), length, "secretName"},
		{"CreateSecret", secretOf("m", "secretData", long("x", 4097)), length, "secretData"},
		{"CreateSecret", secretOf("m", "secretData", "x", "description", long("x", 4097)), length, "description"},
		{"CreateSecret", secretOf("m", "secretData", "x", "description", 5), ofString, "description"},
		{"CreateSecret", secretOf("m", "secretData", "x", "encryptionKeyId", "m"), length, "encryptionKeyId"},
		{"CreateSecret", secretOf("m", "secretData", "x", "encryptionKeyId", long("x", 36)), format, "encryptionKeyId"},
		{"CreateSecret", secretOf("m", "secretData", "x", "rotationInterval", 7), ofString, "rotationInterval"},
		{"CreateSecret", secretOf("m", "secretData", "x", "more", "y"), incorrect, "more"},
		{"CreateSecret", secretOf("m", "secretData", "x", "versionId", 1), incorrect, "versionId"},
		{"UpdateSecretDesc", m{"description": "x"}, cannotBeEmpty, "secretName"},
		{"UpdateSecretDesc", secretOf("n", "description", long("x", 4097)), length, "description"},
		{"UpdateSecretDesc", secretOf("n", "secretData", "x"), incorrect, "secretData"},
		{"PutSecretValue", secretOf("n"), cannotBeEmpty, "secretData"},
		{"PutSecretValue", secretOf("n", "secretData", long("x", 4097)), length, "secretData"},
		{"PutSecretValue", secretOf("n", "secretData", "x", "encryptionKeyId", "y"), incorrect, "encryptionKeyId"},
		{"ListSecretVersionIds", nil, cannotBeEmpty, "secretName"},
		{"ListSecrets", secretOf(long("n", 65)), length, "secretName"},
		{"ListSecrets", m{"secretName": 1}, ofString, "secretName"},
		{"DescribeSecret", nil, cannotBeEmpty, "secretName"},
		{"DeleteSecret", nil, cannotBeEmpty, "secretName"},
		{"DeleteSecret", secretOf("n", "versionId", 1), incorrect, "versionId"},
		{"GetSecretValue", nil, cannotBeEmpty, "secretName"},
		{"GetSecretValue", secretOf("n", "versionId", "1"), ofInteger, "versionId"},
		{"GetSecretValue", secretOf("n", "versionId", 1.5), ofInteger, "versionId"},
		{"GetSecretValue", secretOf("n", "versionId", -1), "Parameter invalid, The %s value must be greater than or equal to 1.", "versionId"},
		{"RestoreSecret", m{}, cannotBeEmpty, "secretName"},
		{"RestoreSecret", secretOf("n", "force", true), incorrect, "force"},
	} {
		want(t, fmt.Sprintf("%s %.80v", row.action, row.payload), c.do(0, row.action, row.payload), 400, fmt.Sprintf(row.text, row.member))
	}
	for _, name := range []string{long("n", 64), long("\U0001f511", 32), long("\u4e00", 64)} {
		data := long("\u4e00", 4096)
		c.mustDo("CreateSecret", secretOf(name, "secretData", data, "description", long("\u4e01", 4096)))
		if got := c.mustDo("GetSecretValue", secretOf(name)).text("secretData"); got != data {
			t.Errorf("the longest value does not round-trip: got %d bytes", len(got))
		}
	}
}

func TestRotationInterval(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	const wrong = "Parameter invalid, The rotationInterval format wrong."
	for interval, want := range map[string]string{
		"6h": "", "360m": "", "8760h": "", "365d": "", "1d": "", "0001d": "", "9999h": hours, "9999s": hours, "9999m": "",
		"5h": hours, "359m": hours, "8761h": hours, "366d": hours, "0d": hours, "0s": hours, "9999d": hours,
		"d": wrong, "6": wrong, "6H": wrong, "6w": wrong, "10000m": wrong, "6h ": wrong, " 6h": wrong, "6h\n": wrong,
		"-6h": wrong, "6.5h": wrong, "6,h": wrong, "1d6h": wrong, "٦h": wrong, "６h": wrong,
	} {
		r := c.do(0, "CreateSecret", secretOf(interval+"!", "secretData", "x", "rotationInterval", interval))
		if want == "" && r.Code != 200 || want != "" && (r.Code != 400 || r.Message != want) {
			t.Errorf("%q: got %d %q, want %q", interval, r.Code, r.Message, want)
		}
	}
	c.mustDo("CreateSecret", secretOf("n", "secretData", "x", "rotationInterval", "9999m"))
	if r := c.mustDo("DescribeSecret", secretOf("n")); r.Result["nextRotationDate"] != at(h.now.Add(9999*time.Minute)) || r.text("rationalInterval") != "9999m" {
		t.Errorf("DescribeSecret: got %v", r.Result)
	}
}

// TestSecretText has every printable and whitespace character of ASCII, and some
// beyond, in names, values and descriptions.
func TestSecretText(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	var ascii strings.Builder
	for b := byte(' '); b <= '~'; b++ {
		ascii.WriteByte(b)
	}
	texts := []string{
		ascii.String()[:48], ascii.String()[48:], " ", "\t", "\n", "\r", "\v", "\f", "\r\n", "  a  ", "\x00", "\x1f\x7f",
		`"`, `\`, `\\"`, `\n`, `a&b=c`, "a=1&secretName=b", "%41+%2B+", "'", "<script>&amp;", "\u2028\u2029", "\ufffd", "é",
		"e\u0301", "\U0001f511", "\ufeff", "true", "null", "0", "[]", "{}",
	}
	for _, text := range texts {
		c.mustDo("CreateSecret", secretOf(text, "secretData", text, "description", text))
	}
	for _, text := range texts {
		r := c.mustDo("GetSecretValue", secretOf(text))
		if r.text("secretData") != text || r.text("secretName") != text {
			t.Errorf("%q: got name %q, value %q", text, r.text("secretName"), r.text("secretData"))
		}
		if r := c.mustDo("DescribeSecret", secretOf(text)); r.text("description") != text {
			t.Errorf("%q: got description %q", text, r.text("description"))
		}
		want(t, text, c.do(0, "PutSecretValue", secretOf(text, "secretData", "2")), 200, "The "+text+" new version put success.")
		want(t, text, c.do(0, "DeleteSecret", secretOf(text)), 200, "The "+text+" will be deleted after 30 days.")
		want(t, text, c.do(0, "GetSecretValue", secretOf(text)), 400, "Can't find the "+text+"'s value.")
		want(t, text, c.do(0, "RestoreSecret", secretOf(text)), 200, "The "+text+" restore success.")
	}
	listed := map[string]bool{}
	for _, item := range c.mustDo("ListSecrets", nil).Result["secretList"].([]any) {
		listed[item.(m)["secretName"].(string)] = true
	}
	for _, text := range texts {
		if !listed[text] {
			t.Errorf("%q is not listed", text)
		}
	}
	if len(listed) != len(texts) {
		t.Errorf("%d secrets are listed, want %d", len(listed), len(texts))
	}
	// The database does not show them.
	for id, w := range h.rows {
		if strings.Contains(string(w.Sealed), texts[0]) || strings.Contains(string(w.Sealed), "secretName") {
			t.Errorf("%s shows a name or a value", id)
		}
	}
}

func TestElevenVersions(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	for n := 2; n <= 11; n++ {
		c.mustDo("PutSecretValue", secretOf("n", "secretData", fmt.Sprint("v", n)))
	}
	for n := 1; n <= 11; n++ {
		if got := c.mustDo("GetSecretValue", secretOf("n", "versionId", n)).text("secretData"); got != fmt.Sprint("v", n) {
			t.Errorf("version %d: got %q", n, got)
		}
	}
	if r := c.mustDo("GetSecretValue", secretOf("n")); r.text("secretData") != "v11" || r.Result["versionId"] != 11.0 {
		t.Errorf("without a version: got %v", r.Result)
	}
}

// TestConcurrentPuts has many clients put values at the same time: every success
// has a number of its own.
func TestConcurrentPuts(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v0"))
	const clients = 16
	var bodies [clients][]byte
	for i := range bodies {
		bodies[i] = c.body(secretOf("n", "secretData", fmt.Sprint("v", i+1)))
	}
	var wg sync.WaitGroup
	for _, body := range bodies {
		wg.Go(func() {
			for range clients { // somebody gets through each time
				a, err := h.try(0, &wire.Call{Action: "PutSecretValue", Body: body})
				if errors.Is(err, errNeeds) {
					continue // others were faster four times
				}
				if err != nil {
					t.Error(err)
					return
				}
				if a.Reply != nil {
					want(t, "put", parseReply(t, a), 200, "The n new version put success.")
					return
				}
			}
			t.Error("a put meets others again and again")
		})
	}
	wg.Wait()
	seen := map[string]int{}
	for n := 1; n <= clients+1; n++ {
		seen[c.mustDo("GetSecretValue", secretOf("n", "versionId", n)).text("secretData")]++
	}
	if len(seen) != clients+1 {
		t.Errorf("got values %v, want %d different ones", seen, clients+1)
	}
	if n := h.versions(c); n != clients+1 {
		t.Errorf("%d versions are stored, want %d", n, clients+1)
	}
}

func TestKeysOfSecrets(t *testing.T) {
	h, d := newHost(t)
	c, other := h.enroll(), h.enroll()
	create := func(spec, usage string) string {
		return c.mustDo("CreateKey", m{"keyspec": spec, "origin": originInternal, "keyusage": usage}).text("keyid")
	}
	key, sm4 := c.createKey(), create("EH_SM4_CTR", usageEncrypt)
	rsa := create("EH_EC_P256", usageSign)
	waiting := c.mustDo("CreateKey", m{"keyspec": "EH_SM4_CBC", "origin": originExternal, "keyusage": usageEncrypt}).text("keyid")
	using := func(key string) m { return secretOf("m", "secretData", "x", "encryptionKeyId", key) }
	for _, row := range []struct {
		name, key string
		code      int
		message   string
	}{
		{"unknown", wire.NewUUID().String(), 400, noCMK},
		{"no UUID", "zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz", 400, noCMK},
		{"foreign", other.createKey(), 400, noCMK},
		{"asymmetric", rsa, 500, "Server exception."},
		{"without material", waiting, 500, "Server exception."},
	} {
		want(t, row.name, c.do(0, "CreateSecret", using(row.key)), row.code, row.message)
	}
	c.mustDo("DisableKey", named(waiting))
	want(t, "suspended without material", c.do(0, "CreateSecret", using(waiting)), 400, "keyid is disabled")
	for _, key := range []string{key, sm4} {
		n := "of " + key
		c.play(t, []step{
			{"CreateSecret", secretOf(n, "secretData", "v1", "encryptionKeyId", key), 200, "The " + n + " create success.", nil},
			{"DisableKey", named(key), 200, "successful", nil},
			{"CreateSecret", using(key), 400, "keyid is disabled", nil},
			{"PutSecretValue", secretOf(n, "secretData", "v2"), 400, "keyid is disabled", nil},
			{"GetSecretValue", secretOf(n), 400, "keyid is disabled", nil},
			{"DescribeSecret", secretOf(n), 200, "Describe secrets success.", nil},
			{"ListSecretVersionIds", secretOf(n), 200, "List secret versionIds success.", nil},
			{"EnableKey", named(key), 200, "successful", nil},
			{"PutSecretValue", secretOf(n, "secretData", "v2"), 200, "The " + n + " new version put success.", nil},
		})
		h.alter(d, c, key, func(k *record.Key) { k.Expires = h.now.UnixMilli() })
		c.play(t, []step{
			{"CreateSecret", using(key), 400, "keyid expire", nil},
			{"PutSecretValue", secretOf(n, "secretData", "v3"), 400, "keyid expire", nil},
			{"GetSecretValue", secretOf(n), 200, "successful", nil},
			{"DeleteKey", named(key), 200, "successful", nil},
			{"GetSecretValue", secretOf(n), 400, "keyid error", nil},
			{"PutSecretValue", secretOf(n, "secretData", "v3"), 400, "keyid error", nil},
			{"DeleteSecret", secretOf(n, "forceDelete", "true"), 200, "The " + n + " delete success", nil},
		})
	}
	// Under the default key values outlive DeleteAllKey.
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	c.mustDo("DeleteAllKey", nil)
	c.mustDo("PutSecretValue", secretOf("n", "secretData", "v2"))
	if got := c.mustDo("GetSecretValue", secretOf("n", "versionId", 1)).text("secretData"); got != "v1" {
		t.Errorf("after DeleteAllKey: got %q, want v1", got)
	}
}

// TestRotatedKeyOfSecret reads a value made with an older version of its key.
func TestRotatedKeyOfSecret(t *testing.T) {
	h, d := newHost(t)
	c := h.enroll()
	key := c.createKey()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1", "encryptionKeyId", key))
	h.rotate(t, d, c, key)
	c.mustDo("PutSecretValue", secretOf("n", "secretData", "v2"))
	for n, want := range map[int]string{1: "v1", 2: "v2"} {
		if got := c.mustDo("GetSecretValue", secretOf("n", "versionId", n)).text("secretData"); got != want {
			t.Errorf("version %d: got %q, want %q", n, got, want)
		}
	}
}

// rotate adds a version to a key and makes it the primary one, as another node
// could.
func (h *host) rotate(t *testing.T, d domain, c *tenant, key string) {
	t.Helper()
	id := c.keyRecord(key)
	h.alter(d, c, key, func(k *record.Key) {
		x := &request{core: h.cores[0], tenant: c.id(), now: h.now.UnixMicro()}
		material := newAPIKey() // of 32 bytes
		if err := x.writeVersion(id.ID, k, k.Primary+1, material); err != nil {
			t.Fatal(err)
		}
		h.rows[x.writes[0].ID] = x.writes[0]
	})
}

// TestSecretsApart has two tenants use one name.
func TestSecretsApart(t *testing.T) {
	h, _ := newHost(t)
	a, b := h.enroll(), h.enroll()
	a.mustDo("CreateSecret", secretOf("n", "secretData", "of a"))
	b.play(t, []step{
		{"GetSecretValue", secretOf("n"), 400, noValue, nil},
		{"DescribeSecret", secretOf("n"), 200, "Describe secrets success.", m{}},
		{"DeleteSecret", secretOf("n", "forceDelete", "true"), 400, noName, nil},
		{"PutSecretValue", secretOf("n", "secretData", "x"), 400, noPut, nil},
		{"ListSecrets", nil, 200, "List secrets success.", m{"totalCount": 0, "secretList": []any{}}},
		{"CreateSecret", secretOf("n", "secretData", "of b"), 200, "The n create success.", nil},
		{"DeleteSecret", secretOf("n", "forceDelete", "true"), 200, "The n delete success", nil},
	})
	if got := a.mustDo("GetSecretValue", secretOf("n")).text("secretData"); got != "of a" {
		t.Errorf("got %q, want the tenant's own", got)
	}
}

// TestOldBodyOfSecret sends a body that names no action to another one: it works
// once, and never on a second node.
func TestOldBodyOfSecret(t *testing.T) {
	h, d := newHost(t)
	h.cores = append(h.cores, d.start(t, h, Limits{}))
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "x"))
	const replayed = "Timestamp can't be repeated in 20 minutes"
	body := c.body(secretOf("n"))
	want(t, "read", c.send(0, "GetSecretValue", body), 200, "successful")
	for core := range h.cores {
		for _, action := range []string{"DeleteSecret", "RestoreSecret", "UpdateSecretDesc", "GetSecretValue"} {
			want(t, fmt.Sprintf("%s on core %d", action, core), c.send(core, action, body), 400, replayed)
		}
	}
	named := c.body(secretOf("n", "action", "GetSecretValue"))
	want(t, "another action than signed", c.send(0, "DeleteSecret", named), 400, "sign error")
	a, err := h.try(0, &wire.Call{Action: "GetSecretValue", Body: named})
	if err != nil || a.Code != 200 || !a.Audit.Durable {
		t.Errorf("read with its action: got code %d, durable %v, %v, want a durable entry", a.Code, a.Audit.Durable, err)
	}
}

// TestSecretNotStored has the store fail.
func TestSecretNotStored(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1"))
	const internal = "Server internal error, please contact the administrator."
	for _, row := range []struct {
		action  string
		payload m
		code    int
		message string
	}{
		{"CreateSecret", secretOf("m", "secretData", "x"), 500, internal},
		{"PutSecretValue", secretOf("n", "secretData", "v2"), 500, internal},
		{"UpdateSecretDesc", secretOf("n", "description", "x"), 500, internal},
		{"DeleteSecret", secretOf("n"), 500, internal},
		{"DeleteSecret", secretOf("n", "force_delete", true), 400, "Force delete failed"},
	} {
		h.outcome = func(*wire.Answer) wire.Outcome { return wire.Failed }
		want(t, row.action, c.do(0, row.action, row.payload), row.code, row.message)
		h.outcome = nil
		if r := c.mustDo("GetSecretValue", secretOf("n")); r.text("secretData") != "v1" || r.Result["versionId"] != 1.0 {
			t.Errorf("after %s: got %v, want nothing changed", row.action, r.Result)
		}
	}
}

// TestAuditOfSecrets looks for the secret and its version in the trail.
func TestAuditOfSecrets(t *testing.T) {
	h, _ := newHost(t)
	c := h.enroll()
	key := c.createKey()
	c.mustDo("CreateSecret", secretOf("n", "secretData", "v1", "encryptionKeyId", key))
	c.mustDo("PutSecretValue", secretOf("n", "secretData", "v2"))
	c.mustDo("GetSecretValue", secretOf("n", "versionId", 1))
	c.mustDo("DisableKey", named(key))
	c.do(0, "GetSecretValue", secretOf("n"))
	c.mustDo("DeleteSecret", secretOf("n"))
	id := wire.SecretID(c.id(), "n").String()
	var got []string
	for _, e := range h.entries(t) {
		if strings.Contains(e.Action, "Secret") {
			got = append(got, fmt.Sprint(e.Action, " ", e.Key.String() == id, " ", e.KeyVersion, " ", e.Reason))
		}
	}
	want := []string{
		"CreateSecret true 1 ok", "PutSecretValue true 2 ok", "GetSecretValue true 1 ok",
		"GetSecretValue true 0 key disabled", "DeleteSecret true 0 ok",
	}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("trail: got %q, want %q", got, want)
	}
}

// entries parses the audit entries so far.
func (h *host) entries(t *testing.T) (all []trail.Entry) {
	t.Helper()
	for rest := h.frames; len(rest) > 0; {
		f, more, err := trail.CutFrame(rest)
		if err != nil {
			t.Fatal(err)
		}
		e, err := trail.Parse(f.Entry)
		if err != nil {
			t.Fatal(err)
		}
		all, rest = append(all, e), more
	}
	return all
}
