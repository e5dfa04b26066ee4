package e2e

import (
	"fmt"
	"net/url"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/host/store/postgres/pgtest"
)

// nodes is how many a cluster has.
const nodes = 3

// grace is the default of EHSM_KMS_STALE_GRACE.
const grace = time.Second

// A cluster is several nodes of one domain on one PostgreSQL. Each is an
// ehsm-core and an ehsm-kms; all cores run on one simulated machine.
type cluster struct {
	home  *target // the domain and its machine
	nodes []*target
}

// newCluster starts a cluster in a database of its own.
func newCluster(t testing.TB, settings ...string) *cluster {
	t.Helper()
	c := prepareCluster(t)
	database := pgtest.Database(t)
	for _, g := range c.nodes {
		c.add(t, g, database, settings...)
	}
	return c
}

// A linked is a cluster on a server of its own, which each node reaches over a
// link that the test may cut.
type linked struct {
	*cluster
	server *pgtest.Server
	links  []*link
}

func newLinked(t testing.TB, settings ...string) *linked {
	t.Helper()
	server := pgtest.New(t)
	c := &linked{cluster: prepareCluster(t), server: server}
	for _, g := range c.nodes {
		l := newLink(t, server.Addr())
		c.links = append(c.links, l)
		u, err := url.Parse(server.URL("postgres"))
		if err != nil {
			t.Fatal(err)
		}
		u.Host = l.addr()
		c.add(t, g, u.String(), settings...)
	}
	return c
}

// prepareCluster makes the domain and starts its machine, and no node yet.
func prepareCluster(t testing.TB) *cluster {
	t.Helper()
	c := &cluster{home: prepare(t, splitUnix)}
	c.home.launch(t, partTEE)
	for i := range nodes {
		c.nodes = append(c.nodes, &target{
			kind: member, dir: c.home.dir, core: fmt.Sprintf("unix:%s/core-%d.sock", c.home.dir, i),
			out: newOutput(), parts: map[string]*process{}, audit: c.home.data(fmt.Sprintf("audit-%d", i)),
		})
	}
	return c
}

// add starts a node.
func (c *cluster) add(t testing.TB, g *target, database string, settings ...string) {
	t.Helper()
	g.settings = append([]string{"EHSM_KMS_DATABASE=" + database, "EHSM_KMS_COLLATERAL_DIR=" + g.audit + "-collateral"}, settings...)
	t.Cleanup(func() { g.autopsy(t) })
	g.start(t)
}

// on is the same tenant at another node.
func (c *tenant) on(g *target) *tenant { return &tenant{target: g, appid: c.appid, apikey: c.apikey} }

// everywhere is a tenant at every node; the first is where it was enrolled.
func (c *cluster) everywhere(t testing.TB) []*tenant {
	t.Helper()
	first := c.nodes[0].enroll(t)
	all := make([]*tenant, len(c.nodes))
	for i, g := range c.nodes {
		all[i] = first.on(g)
		g.secret(first.apikey)
	}
	return all
}

// TestCluster has the nodes take turns on one tenant: what one has done, all the
// others know.
func TestCluster(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	t.Run("keys", func(t *testing.T) { testClusterKeys(t, c) })
	t.Run("secrets", func(t *testing.T) { testClusterSecrets(t, c) })
	t.Run("replay (41)", func(t *testing.T) { testClusterReplay(t, c) })
	t.Run("changes", func(t *testing.T) { testClusterChanges(t, c) })
	t.Run("delete all", func(t *testing.T) { testClusterDeleteAll(t, c) })
	t.Run("rivals", func(t *testing.T) { testClusterRivals(t, c) })
}

// testClusterKeys makes a key of each kind on one node and uses it on the others.
func testClusterKeys(t *testing.T, c *cluster) {
	at := c.everywhere(t)
	for i, spec := range []string{"EH_AES_GCM_256", "EH_SM4_CBC", "EH_AES_GCM_128"} {
		key := at[i].create(t, spec, encryptDecrypt)
		sealed := at[(i+1)%nodes].call(t, "Encrypt", fields{"keyid": key, "plaintext": "AAAA"}).text(t, "ciphertext")
		r := at[(i+2)%nodes].call(t, "Decrypt", fields{"keyid": key, "ciphertext": sealed})
		if want(t, r, 200, textSuccess); r.Result["plaintext"] != "AAAA" {
			t.Errorf("%s: decrypted to %v", spec, r.Result)
		}
	}
	key := at[0].create(t, "EH_EC_P256", signVerify)
	message := fields{"keyid": key, "message": "AAAA", "message_type": "EH_RAW", "digest_mode": "EH_SHA_256", "padding_mode": "EH_PAD_NONE"}
	signature := at[1].call(t, "Sign", message).text(t, "signature")
	r := at[2].call(t, "Verify", message.with(fields{"signature": signature}))
	if want(t, r, 200, textSuccess); r.Result["result"] != true {
		t.Errorf("a signature of another node: got %v", r.Result)
	}
	for i, c := range at {
		if n := len(c.list(t)); n != 4 {
			t.Errorf("node %d lists %d keys, want 4", i, n)
		}
	}
}

// testClusterSecrets puts versions of a secret at all nodes in turns: each number
// is given once, and each node has the newest in time.
func testClusterSecrets(t *testing.T, c *cluster) {
	at := c.everywhere(t)
	name := fields{"secretName": "shared"}
	want(t, at[0].call(t, "CreateSecret", name.with(fields{"secretData": "1"})), 200, "The shared create success.")
	want(t, at[1].call(t, "CreateSecret", name.with(fields{"secretData": "x"})), 400, "Secret name already exists, cannot use the same secret name")
	for version := 2; version <= 9; version++ {
		data := fmt.Sprint(version)
		want(t, at[version%nodes].call(t, "PutSecretValue", name.with(fields{"secretData": data})), 200, "The shared new version put success.")
		put := time.Now()
		for i, c := range at {
			read := func(c *tenant) reply { return c.call(t, "GetSecretValue", name.with(fields{"versionId": version})) }
			if lag, ok := await(c, read, func(r reply) bool { return r.Result["secretData"] == data }, put); !ok {
				t.Errorf("version %d is not at node %d after %v", version, i, lag)
			}
		}
	}
}

// testClusterReplay is the rest of line 41: a body is used up at all nodes.
func testClusterReplay(t *testing.T, c *cluster) {
	at := c.everywhere(t)
	key, signer := at[0].createAES(t), at[0].create(t, "EH_EC_P256", signVerify)
	for name, row := range map[string]struct {
		first   string
		payload fields
		then    []string
	}{
		"a list as a deletion":       {"ListKey", nil, []string{"DeleteAllKey", "DeleteALLKey", "ListKey"}},
		"a public key as a deletion": {"GetPublicKey", fields{"keyid": signer}, []string{"DeleteKey", "DisableKey"}},
		"enabled as deleted":         {"EnableKey", fields{"keyid": key}, []string{"DeleteKey", "DisableKey", "EnableKey"}},
		"disabled as enabled":        {"DisableKey", fields{"keyid": key}, []string{"EnableKey"}},
		"created twice":              {"CreateKey", fields{"keyspec": "EH_AES_GCM_256", "origin": internalKey, "keyusage": encryptDecrypt}, []string{"CreateKey"}},
		"a secret":                   {"CreateSecret", fields{"secretName": "one", "secretData": "x"}, []string{"CreateSecret", "PutSecretValue"}},
	} {
		q := at[0].unsigned(row.payload).signed(at[0].apikey)
		if r := at[0].deliver(t, row.first, q); r.Code != 200 {
			t.Errorf("%s: got %s", name, r.body)
		}
		keys := len(at[0].list(t))
		for _, then := range row.then {
			for i := range at {
				want(t, at[(i+1)%nodes].deliver(t, then, q), 400, textReplay)
			}
		}
		if n := len(at[0].list(t)); n != keys {
			t.Errorf("%s: %d keys are left of %d", name, n, keys)
		}
	}
}
