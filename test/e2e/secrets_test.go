package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"
)

// secretLines are about stored secrets. What happens when a deletion falls due
// needs a clock in the test's hand: internal/trusted/core.
func secretLines() []line {
	return []line{
		{"37-texts", testSecretTexts},
		{"37-limits", testSecretLimits},
		{"38-versions", testSecretVersions},
		{"38-puts-at-once", testSecretPutsAtOnce},
		{"39-describe", testSecretDescribe},
		{"39-rotation-interval", testRotationInterval},
		{"40-delete-and-restore", testSecretDelete},
		{"40-spellings-of-force", testSecretForce},
		{"13-validation-texts-secrets", testSecretValidation},
		{"secrets-of-others", testSecretTenants},
		{"secrets-and-their-keys", testSecretKeys},
	}
}

// createSecret expects that a secret is made.
func (c *tenant) createSecret(t *testing.T, name, data string, more fields) {
	t.Helper()
	r := c.call(t, "CreateSecret", fields{"secretName": name, "secretData": data}.with(more))
	want(t, r, 200, "The "+name+" create success.")
}

// secretIs expects a value and its version. A version of 0 is the current one.
func (c *tenant) secretIs(t *testing.T, name, data string, version, current int) {
	t.Helper()
	in := fields{"secretName": name}
	if version != 0 {
		in["versionId"], current = version, version
	}
	r := c.call(t, "GetSecretValue", in)
	want(t, r, 200, textSuccessful)
	if r.text(t, "secretName") != name || r.text(t, "secretData") != data || r.integer(t, "versionId") != int64(current) {
		t.Errorf("GetSecretValue %q: got %s, want version %d", name, r.body, current)
	}
	if made := r.integer(t, "createTime"); made < time.Now().Add(-time.Hour).UnixMilli() || made > time.Now().UnixMilli()+2000 {
		t.Errorf("GetSecretValue %q: created at %d", name, made)
	}
}

// testSecretTexts has every printable and white space character of ASCII, and
// others, in values and names.
func testSecretTexts(t *testing.T, g *target) {
	c := g.enroll(t)
	var ascii strings.Builder
	for b := byte(1); b < 0x7f; b++ {
		ascii.WriteByte(b)
	}
	texts := []string{" ", "\t", "\n", "\r\n", "\v\f", "  x  ", "a b&c=d", "x\ny+%41\"\\é", "&=+%", "%00", "\"", "\\", "\\n", "'", "<>&",
		"0", "false", "null", "[]", "{}", "€\U0001F511", "\u2028\u2029", "\ufeffx", "e\u0301", ascii.String()[:64], ascii.String()[62:]}
	for _, text := range texts {
		c.createSecret(t, text, text, fields{"description": text})
		c.secretIs(t, text, text, 0, 1)
		if got := c.call(t, "DescribeSecret", fields{"secretName": text}).text(t, "description"); got != text {
			t.Errorf("description %q comes back as %q", text, got)
		}
	}
	c.createSecret(t, "all of ASCII", ascii.String()+"\x00", nil)
	c.secretIs(t, "all of ASCII", ascii.String()+"\x00", 0, 1)
	r := c.call(t, "ListSecrets", nil)
	want(t, r, 200, "List secrets success.")
	names := map[string]bool{}
	for _, item := range r.Result["secretList"].([]any) {
		names[item.(map[string]any)["secretName"].(string)] = true
	}
	for _, text := range texts {
		if !names[text] {
			t.Errorf("%q is not listed", text)
		}
	}
	if n := r.integer(t, "totalCount"); n != int64(len(texts)+1) || len(names) != len(texts)+1 {
		t.Errorf("%d secrets are listed, count %d, want %d", len(names), n, len(texts)+1)
	}
	// Names are told apart as they are.
	for _, name := range []string{"x", " x", "x ", "X", "e\u0301", "\u00e9"} {
		if name != "e\u0301" {
			c.createSecret(t, name, "of "+name, nil)
		}
	}
	c.secretIs(t, "x ", "of x ", 0, 1)
	c.secretIs(t, "\u00e9", "of \u00e9", 0, 1)
}

func testSecretLimits(t *testing.T, g *target) {
	c := g.enroll(t)
	name := strings.Repeat("\U0001F511", 32) // 64 UTF-16 units
	value := strings.Repeat("é", 4096)
	c.createSecret(t, name, value, fields{"description": value})
	c.secretIs(t, name, value, 0, 1)
	for member, text := range map[string]string{"secretName": name + "x", "secretData": value + "x", "description": value + "x"} {
		r := c.call(t, "CreateSecret", fields{"secretName": "x", "secretData": "x"}.with(fields{member: text}))
		want(t, r, 400, "Parameter invalid, The "+member+" length error.")
	}
}

func testSecretVersions(t *testing.T, g *target) {
	c := g.enroll(t)
	c.createSecret(t, "s", "value 1", nil)
	for n := 2; n <= 11; n++ {
		want(t, c.call(t, "PutSecretValue", fields{"secretName": "s", "secretData": fmt.Sprint("value ", n)}), 200, "The s new version put success.")
		c.secretIs(t, "s", fmt.Sprint("value ", n), 0, n)
	}
	for n := 1; n <= 11; n++ {
		c.secretIs(t, "s", fmt.Sprint("value ", n), n, n)
	}
	for _, n := range []int{12, 1000000} {
		r := c.call(t, "GetSecretValue", fields{"secretName": "s", "versionId": n})
		if r.Code != 200 || len(r.Result) != 0 {
			t.Errorf("version %d: got %s", n, r.body)
		}
	}
	c.versionsAre(t, "s", 11)
	want(t, c.call(t, "PutSecretValue", fields{"secretName": "none", "secretData": "x"}), 400, "Can not find secretName")
	want(t, c.call(t, "GetSecretValue", fields{"secretName": "none"}), 400, "Can't find the none's value.")
	c.versionsAre(t, "none", 0)
}

// versionsAre expects versions 1 to n, each once.
func (c *tenant) versionsAre(t *testing.T, name string, n int) {
	t.Helper()
	r := c.call(t, "ListSecretVersionIds", fields{"secretName": name})
	want(t, r, 200, "List secret versionIds success.")
	items, ok := r.Result["versionIds"].([]any)
	if !ok || len(items) != n || r.integer(t, "totalCount") != int64(n) || r.text(t, "secretName") != name {
		t.Fatalf("ListSecretVersionIds: got %s, want %d versions", r.body, n)
	}
	seen := map[int64]bool{}
	for _, item := range items {
		i := reply{Result: item.(map[string]any), action: "ListSecretVersionIds", body: r.body}
		id := i.integer(t, "versionId")
		if seen[id] || id < 1 || id > int64(n) || i.integer(t, "createTime") == 0 {
			t.Errorf("ListSecretVersionIds: got %s", r.body)
		}
		seen[id] = true
	}
}

// testSecretPutsAtOnce: puts that meet each other never share a number.
func testSecretPutsAtOnce(t *testing.T, g *target) {
	c := g.enroll(t)
	c.createSecret(t, "s", "first", nil)
	const n = 20
	done := 1
	values := map[string]bool{"first": true}
	for i, r := range inParallel(t, n, func(ctx context.Context, i int) (reply, error) {
		return c.try(ctx, "PutSecretValue", fields{"secretName": "s", "secretData": fmt.Sprint("put ", i)})
	}) {
		if r.Code == 200 {
			done++
			values[fmt.Sprint("put ", i)] = true
		} else if r.Code != 500 && r.Code != 400 {
			t.Errorf("PutSecretValue: got %s", r.body)
		}
	}
	if done < n/4 {
		t.Errorf("%d of %d puts were served", done-1, n)
	}
	c.versionsAre(t, "s", done)
	for version := 1; version <= done; version++ {
		data := c.call(t, "GetSecretValue", fields{"secretName": "s", "versionId": version}).text(t, "secretData")
		if !values[data] {
			t.Errorf("version %d is %q: a value that was refused, or twice", version, data)
		}
		delete(values, data)
	}
}

func testSecretDescribe(t *testing.T, g *target) {
	c := g.enroll(t)
	before := time.Now().Add(-2 * time.Second).UnixMilli()
	c.createSecret(t, "plain", "x", nil)
	c.createSecret(t, "full", "x", fields{"description": "text", "rotationInterval": "10d"})
	for name, row := range map[string][2]string{"plain": {"", ""}, "full": {"text", "10d"}} {
		r := c.call(t, "DescribeSecret", fields{"secretName": name})
		want(t, r, 200, "Describe secrets success.")
		if r.text(t, "secretName") != name || r.text(t, "description") != row[0] || r.text(t, "rotationInterval") != row[1] || r.text(t, "rationalInterval") != row[1] {
			t.Errorf("DescribeSecret: got %s", r.body)
		}
		made, next := r.integer(t, "createTime"), r.integer(t, "nextRotationDate")
		if made < before || r.integer(t, "plannedDeleteTime") != 0 || row[1] == "" && (next != 0 || r.integer(t, "lastRotationDate") != 0) {
			t.Errorf("DescribeSecret: got %s", r.body)
		}
		if late := next - made - (10 * 24 * time.Hour).Milliseconds(); row[1] != "" && (late < -2000 || late > 2000) {
			t.Errorf("DescribeSecret: next rotation is %d ms off: %s", late, r.body)
		}
		r.integer(t, "lastRotationDate")
	}
	r := c.call(t, "DescribeSecret", fields{"secretName": "none"})
	if r.Code != 200 || len(r.Result) != 0 {
		t.Errorf("DescribeSecret of none: got %s", r.body)
	}
	const updated = "Update secret description success."
	want(t, c.call(t, "UpdateSecretDesc", fields{"secretName": "plain", "description": "new"}), 200, updated)
	if got := c.call(t, "DescribeSecret", fields{"secretName": "plain"}).text(t, "description"); got != "new" {
		t.Errorf("description is %q", got)
	}
	want(t, c.call(t, "UpdateSecretDesc", fields{"secretName": "full"}), 200, updated) // clears it
	got := c.call(t, "DescribeSecret", fields{"secretName": "full"})
	if got.text(t, "description") != "" || got.text(t, "rotationInterval") != "10d" {
		t.Errorf("DescribeSecret: got %s", got.body)
	}
	want(t, c.call(t, "UpdateSecretDesc", fields{"secretName": "none"}), 400, "Cannot find secretName")
}

func testRotationInterval(t *testing.T, g *target) {
	c := g.enroll(t)
	const outside = "The rotation time is less than 6 hours or more than 8760 hours"
	for i, row := range [][2]string{
		{"6h", ""}, {"360m", ""}, {"365d", ""}, {"8760h", ""}, {"9999m", ""}, {"1d", ""},
		{"5h", outside}, {"359m", outside}, {"9999s", outside}, {"366d", outside}, {"8761h", outside}, {"0d", outside},
		{"10", "format"}, {"d", "format"}, {"10w", "format"}, {"10,", "format"}, {"10D", "format"}, {"-1d", "format"}, {" 1d", "format"},
		{"12345h", "format"}, {"1.5d", "format"}, {"1d ", "format"}, {"1d\n", "format"},
	} {
		name := fmt.Sprint("s", i)
		r := c.call(t, "CreateSecret", fields{"secretName": name, "secretData": "x", "rotationInterval": row[0]})
		r.action = "rotationInterval " + row[0]
		switch row[1] {
		case "":
			want(t, r, 200, "The "+name+" create success.")
		case "format":
			want(t, r, 400, "Parameter invalid, The rotationInterval format wrong.")
		default:
			want(t, r, 400, row[1])
		}
	}
}

func testSecretDelete(t *testing.T, g *target) {
	c := g.enroll(t)
	const taken = "Secret name already exists, cannot use the same secret name"
	c.createSecret(t, "s", "first", nil)
	want(t, c.call(t, "CreateSecret", fields{"secretName": "s", "secretData": "x"}), 400, taken)
	for days, payload := range map[int]fields{30: {}, 7: {"recoveryPeriod": 7}, 365: {"recoveryPeriod": 365}, 1: {"recoveryPeriod": 1, "forceDelete": "false"}} {
		r := c.call(t, "DeleteSecret", fields{"secretName": "s"}.with(payload))
		want(t, r, 200, fmt.Sprintf("The s will be deleted after %d days.", days))
		want(t, c.call(t, "GetSecretValue", fields{"secretName": "s"}), 400, "Can't find the s's value.")
		want(t, c.call(t, "GetSecretValue", fields{"secretName": "s", "versionId": 1}), 400, "Can't find the s's value.")
		want(t, c.call(t, "CreateSecret", fields{"secretName": "s", "secretData": "x"}), 400, taken)
		want(t, c.call(t, "PutSecretValue", fields{"secretName": "s", "secretData": "x"}), 400, "Can not put value for a deleted secret.")
		want(t, c.call(t, "UpdateSecretDesc", fields{"secretName": "s"}), 400, "Can not modify a deleted secret.")
		c.versionsAre(t, "s", 0)
		c.planned(t, "s", days)
		want(t, c.call(t, "RestoreSecret", fields{"secretName": "s"}), 200, "The s restore success.")
		c.secretIs(t, "s", "first", 0, 1)
		c.planned(t, "s", 0)
	}
	want(t, c.call(t, "RestoreSecret", fields{"secretName": "none"}), 400, "Can not restore secret, the secretName not find.")
	want(t, c.call(t, "DeleteSecret", fields{"secretName": "none"}), 400, "Delete error, Can not find the secretName")
	// Forced: the name is free at once.
	want(t, c.call(t, "PutSecretValue", fields{"secretName": "s", "secretData": "second"}), 200, "The s new version put success.")
	want(t, c.call(t, "DeleteSecret", fields{"secretName": "s", "forceDelete": "true"}), 200, "The s delete success")
	want(t, c.call(t, "RestoreSecret", fields{"secretName": "s"}), 400, "Can not restore secret, the secretName not find.")
	c.createSecret(t, "s", "again", nil)
	c.secretIs(t, "s", "again", 0, 1)
	c.versionsAre(t, "s", 1)
}

// planned expects the day on which a secret goes, or none.
func (c *tenant) planned(t *testing.T, name string, days int) {
	t.Helper()
	r := c.call(t, "ListSecrets", fields{"secretName": name})
	want(t, r, 200, "List secrets success.")
	items, _ := r.Result["secretList"].([]any)
	if len(items) != 1 {
		t.Fatalf("ListSecrets: got %s", r.body)
	}
	item := items[0].(map[string]any)
	at, there := item["plannedDeleteTime"].(float64)
	if days == 0 {
		if there && at != 0 {
			t.Errorf("ListSecrets: got %s, want no plannedDeleteTime", r.body)
		}
		return
	}
	late := time.UnixMilli(int64(at)).Sub(time.Now().Add(time.Duration(days) * 24 * time.Hour))
	if late < -time.Minute || late > time.Minute {
		t.Errorf("ListSecrets: deletion after %d days is planned %s off", days, late)
	}
}

func testSecretForce(t *testing.T, g *target) {
	c := g.enroll(t)
	const name = "s"
	for _, row := range []struct {
		payload fields
		forced  bool
	}{
		{fields{"forceDelete": "true"}, true}, {fields{"force_delete": "true"}, true}, {fields{"forceDelete": true}, true}, {fields{"force_delete": true}, true},
		{fields{"forceDelete": "true", "recoveryPeriod": 7}, true}, {fields{"forceDelete": "true", "force_delete": "true"}, true},
		{fields{"forceDelete": "True"}, false}, {fields{"forceDelete": "TRUE"}, false}, {fields{"forceDelete": "false"}, false}, {fields{"forceDelete": "FALSE"}, false},
		{fields{"force_delete": false}, false}, {fields{"forceDelete": ""}, false}, {fields{}, false},
	} {
		c.createSecret(t, name, "x", nil)
		r := c.call(t, "DeleteSecret", fields{"secretName": name}.with(row.payload))
		if forced := r.Message == "The s delete success"; r.Code != 200 || forced != row.forced {
			t.Errorf("DeleteSecret %s: got %s, want forced: %v", jsonText(row.payload), r.body, row.forced)
		}
		if !row.forced {
			want(t, c.call(t, "DeleteSecret", fields{"secretName": name, "forceDelete": "true"}), 200, "The s delete success")
		}
	}
	c.createSecret(t, name, "x", nil)
	const neither = "The forceDelete must be true or false"
	for _, value := range []any{"yes", "1", 1, "true ", []any{true}, fields{"a": "b"}} {
		r := c.call(t, "DeleteSecret", fields{"secretName": name, "forceDelete": value})
		r.action = "forceDelete " + jsonText(value)
		if r.Code != 400 {
			t.Errorf("%s: got %s", r.action, r.body)
		}
		if _, text := value.(string); text {
			want(t, r, 400, neither)
		}
	}
	r := c.call(t, "DeleteSecret", fields{"secretName": name, "forceDelete": "true", "force_delete": "false"})
	if r.Code != 400 {
		t.Errorf("two spellings: got %s", r.body)
	}
	c.secretIs(t, name, "x", 0, 1)
}

func testSecretValidation(t *testing.T, g *target) {
	c := g.enroll(t)
	good := map[string]fields{
		"CreateSecret": {"secretName": "n", "secretData": "x"}, "PutSecretValue": {"secretName": "n", "secretData": "x"},
		"UpdateSecretDesc": {"secretName": "n"}, "ListSecretVersionIds": {"secretName": "n"}, "DescribeSecret": {"secretName": "n"},
		"DeleteSecret": {"secretName": "n"}, "GetSecretValue": {"secretName": "n"}, "RestoreSecret": {"secretName": "n"},
	}
	var faults []fault
	for action, payload := range good {
		for member := range payload {
			for _, value := range []any{nil, ""} {
				faults = append(faults, fault{action, member, value, isEmpty})
			}
			for _, value := range []any{1, true, fields{"a": "b"}, []any{"x"}} {
				faults = append(faults, fault{action, member, value, noString})
			}
			faults = append(faults, fault{action, member, strings.Repeat("x", 4097), noLength})
		}
	}
	for _, value := range []any{"7", true, 1.5} {
		faults = append(faults, fault{"DeleteSecret", "recoveryPeriod", value, noInteger}, fault{"GetSecretValue", "versionId", value, noInteger})
	}
	faults = append(faults,
		fault{"DeleteSecret", "recoveryPeriod", 366, "value must be less than or equal to 365."},
		fault{"DeleteSecret", "recoveryPeriod", -1, "value must be greater than or equal to 1."},
		fault{"GetSecretValue", "versionId", -1, "value must be greater than or equal to 1."},
		fault{"CreateSecret", "encryptionKeyId", "x", noLength}, fault{"CreateSecret", "encryptionKeyId", 1, noString},
		fault{"CreateSecret", "encryptionKeyId", strings.ToUpper("aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"), noFormat},
		fault{"CreateSecret", "zz", "x", noName}, fault{"PutSecretValue", "zz", "x", noName}, fault{"RestoreSecret", "zz", "x", noName},
		fault{"UpdateSecretDesc", "zz", "x", noName}, fault{"DeleteSecret", "zz", "x", noName},
	)
	faulty(t, c, good, faults)
}

// testSecretTenants: a name belongs to a tenant, and so does everything else.
func testSecretTenants(t *testing.T, g *target) {
	c, other := g.enroll(t), g.enroll(t)
	c.createSecret(t, "s", "ours", nil)
	want(t, other.call(t, "GetSecretValue", fields{"secretName": "s"}), 400, "Can't find the s's value.")
	want(t, other.call(t, "DeleteSecret", fields{"secretName": "s", "forceDelete": "true"}), 400, "Delete error, Can not find the secretName")
	if n := other.call(t, "ListSecrets", nil).integer(t, "totalCount"); n != 0 {
		t.Errorf("another tenant sees %d secrets", n)
	}
	other.createSecret(t, "s", "theirs", nil)
	c.secretIs(t, "s", "ours", 0, 1)
	other.secretIs(t, "s", "theirs", 0, 1)
	if len(c.list(t)) != 0 {
		t.Error("the key of the secrets is listed")
	}
	want(t, c.call(t, "DeleteAllKey", nil), 200, textSuccessful)
	c.secretIs(t, "s", "ours", 0, 1) // its key is not one of the tenant's
}

// testSecretKeys: a key of the tenant's that encrypts secrets.
func testSecretKeys(t *testing.T, g *target) {
	c, other := g.enroll(t), g.enroll(t)
	key := c.createAES(t)
	for _, wrong := range []string{"3f2504e0-4f89-41d3-9a0c-0305e82c3301", other.createAES(t)} {
		r := c.call(t, "CreateSecret", fields{"secretName": "n", "secretData": "x", "encryptionKeyId": wrong})
		want(t, r, 400, "Cannot find cmk by keyid.")
	}
	asymmetric := c.create(t, "EH_EC_P256", signVerify)
	want(t, c.call(t, "CreateSecret", fields{"secretName": "n", "secretData": "x", "encryptionKeyId": asymmetric}), 500, textServer)
	c.createSecret(t, "s", "x", fields{"encryptionKeyId": key})
	c.createSecret(t, "sm4", "x", fields{"encryptionKeyId": c.create(t, "EH_SM4_CTR", encryptDecrypt)})
	c.secretIs(t, "sm4", "x", 0, 1)
	want(t, c.call(t, "DisableKey", fields{"keyid": key}), 200, textSuccessful)
	for action, payload := range map[string]fields{
		"CreateSecret":   {"secretName": "n", "secretData": "x", "encryptionKeyId": key},
		"PutSecretValue": {"secretName": "s", "secretData": "y"}, "GetSecretValue": {"secretName": "s"},
	} {
		want(t, c.call(t, action, payload), 400, "keyid is disabled")
	}
	want(t, c.call(t, "EnableKey", fields{"keyid": key}), 200, textSuccessful)
	c.secretIs(t, "s", "x", 0, 1)
}
