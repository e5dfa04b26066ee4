// Package core is the trusted service: it alone holds keys, decides who may use
// them, and does the cryptography.
//
// It is a function of the messages it is handed (package wire) and does no I/O.
// It trusts the DomainKey it is given and nothing of what the host sends: every
// request is authenticated against a credential in a genuine app record, every
// record is opened under the DomainKey and must be the one named, and no state
// older than one it has seen is accepted. It hides key material, API keys and
// plaintexts from the host, save where a reply's purpose is to carry them.
package core

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/fair"
	"github.com/ehsm-kms/ehsm/internal/trusted/audit"
	"github.com/ehsm-kms/ehsm/internal/trusted/domainkey"
	"github.com/ehsm-kms/ehsm/internal/trusted/facts"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/trusted/record"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

// Limits bounds what the core keeps in memory. They are sizes, not security
// settings, so the host may choose them; zero fields take their defaults and
// values are clamped to what is safe.
type Limits struct {
	Apps             int // opened app records, and apps whose requests, keys and secrets are counted; default 16384
	Keys             int // opened key records, and as many opened key versions; default 65536
	Secrets          int // opened records of secrets, and as many of their versions, each up to 12 KiB; default 4096
	ReplaysPerTenant int // requests remembered for one tenant; default 1,572,864
	Replays          int // requests remembered in total; default 2,097,152
	Seen             int // changed records whose newest revision is remembered; default 262144
	Facts            int // records that negative facts are about, about 80 bytes each; default 4,194,304
	Sessions         int // opened import sessions; default 1024
	Policies         int // opened quote policies, and as many policies of credentials, each up to 9 KiB; default 4096
	Tokens           int // opened enrollment tokens; default 1024
	Settings         int // opened settings of tenants, each up to 48 KiB; default 1024
	Platforms        int // kinds of platforms whose newest collateral is remembered; default 1024
	Failures         int // keys whose failed PKCS#1 v1.5 decryptions of a minute are counted; default 16384
	Pending          int // answers whose writes are being stored; default 4096
}

func (l Limits) withDefaults() Limits {
	set := func(v *int, least, normal int) {
		if *v == 0 {
			*v = normal
		}
		*v = max(*v, least)
	}
	set(&l.Apps, 16, 16384)
	set(&l.Keys, 16, 65536)
	set(&l.Secrets, 16, 4096)
	set(&l.ReplaysPerTenant, 1024, 3<<19)
	set(&l.Replays, 1024, 2<<20)
	set(&l.Seen, 1024, 262144)
	set(&l.Facts, 1024, 4<<20)
	set(&l.Sessions, 16, 1024)
	set(&l.Policies, 16, 4096)
	set(&l.Tokens, 16, 1024)
	set(&l.Settings, 16, 1024)
	set(&l.Platforms, 16, 1024)
	set(&l.Failures, 1024, 16384)
	set(&l.Pending, 16, 4096)
	return l
}

// Config is what a core is made of.
type Config struct {
	Platform tee.Platform
	Keys     *domainkey.Keyring
	Home     *secret.Home      // where the instance's HPKE key lies; nil: the ordinary heap
	Settings manifest.Settings // of the domain's last manifest; see Core.Update for a later one
	Manifest uint64            // its version
	Date     time.Time         // of that manifest; no earlier time is taken for the present
	// Administrator is the first one, whom the domain's genesis names and no later
	// manifest changes; the zero value: there is none.
	Administrator manifest.Person
	Custodians    *manifest.Quorum // of the last manifest, who can give an app another owner; nil: nobody can
	Limits        Limits
	Version       string           // of the program, shown by GetVersion
	GitSHA        string           // commit, shown by GetVersion
	Clock         func() time.Time // the host's clock; nil: time.Now
	// Wanted is told of a version of the DomainKey that Keys lacks and that a record or
	// the manifest names. It must not block; it may be called for each request. nil: nobody is.
	Wanted func(version uint32)
	// WholeNode says that the manager is in the TEE of this core, which then vouches for
	// its TLS key. Only where the platform encloses a node.
	WholeNode bool
	// Heard is told what the manager says of its store. It must not block. nil: nobody is.
	Heard func(wire.Progress)
}

// Core implements wire.Core in-process.
type Core struct {
	keys       *domainkey.Keyring
	heard      func(wire.Progress)
	terms      atomic.Pointer[terms]
	updating   sync.Mutex // one Update at a time
	rotation   rotation
	info       wire.Info // without what changes
	clock      *clock
	chain      *audit.Chain
	counts     counts
	instance   *instanceKeys
	wholeNode  bool         // the manager is in this TEE
	challenges secret.Bytes // key of those for logins
	reply      replyKey
	quoting    *quoting
	floors     *floors
	actions    map[string]*action
	mutations  *mutations

	seen       *seen
	facts      *facts.Log
	replays    *replays
	pending    *pending
	apps       *cache[*openApp]
	cmks       *cache[record.Key]
	versions   *cache[*openVersion]
	secrets    *cache[record.Secret]
	values     *cache[sealedValue]
	sessions   *cache[*openSession]
	policies   *cache[record.QuotePolicy]
	rules      *cache[record.Policy]
	tokens     *cache[record.Token]
	settings   *cache[record.TenantSettings]
	domainApp  *cached[*openApp] // until there is a record of it; nil: the genesis names no administrator
	generators *generators
	batches    *fair.Gate[wire.UUID]
	failures   *failures
	limiter    *limiter
	quota      *quota
	uses       *useTimes
	started    int64             // Unix milliseconds
	stranger   *openApp          // stands in for unknown tenants, so that they cost the same
	pairs      []*openCredential // stand in for unknown key pairs, one of each kind
	buffers    sync.Pool
}

// New starts a core. It is a new instance, with an audit chain of its own.
func New(cfg Config) (*Core, error) {
	if cfg.Platform.Simulated() && !cfg.Settings.AllowSim { // check: simulation
		return nil, domainkey.ErrSimulated
	}
	if cfg.WholeNode && !tee.WholeNode(cfg.Platform) { // check: whole-node-platform
		return nil, fmt.Errorf("%w: platform %s", ErrNotWholeNode, cfg.Platform.Name())
	}
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if cfg.Home == nil {
		cfg.Home = secret.NewHeap()
	}
	l := cfg.Limits.withDefaults()
	if cfg.Wanted == nil {
		cfg.Wanted = func(uint32) {}
	}
	c := &Core{
		keys: cfg.Keys, heard: cfg.Heard, rotation: rotation{wanted: cfg.Wanted}, floors: newFloors(l.Platforms),
		clock:      newClock(cfg.Clock, cfg.Date),
		facts:      facts.NewLog(cfg.Keys, l.Facts),
		replays:    newReplays(l.ReplaysPerTenant, l.Replays, cfg.Settings.Window().Milliseconds()),
		pending:    newPending(l.Pending),
		actions:    actions(),
		generators: newGenerators(),
		batches:    newBatchTurns(),
		failures:   newFailures(l.Failures),
		limiter:    newLimiter(l.Apps),
		quota:      newQuota(l.Apps),
		quoting:    newQuoting(cfg.Platform),
		wholeNode:  cfg.WholeNode,
	}
	c.seen = newSeen(l.Seen, c.facts)
	c.mutations = newMutations(c.actions)
	c.apps = newCache[*openApp](l.Apps, c.seen)
	c.cmks = newCache[record.Key](l.Keys, c.seen)
	c.sessions = newCache[*openSession](l.Sessions, c.seen)
	c.versions = newCache[*openVersion](l.Keys, c.seen)
	c.secrets = newCache[record.Secret](l.Secrets, c.seen)
	c.values = newCache[sealedValue](l.Secrets, c.seen)
	c.challenges = newChallengeKey()
	c.uses, c.started = newUses(4*l.Apps), c.clock.micros()/1000
	c.policies = newCache[record.QuotePolicy](l.Policies, c.seen)
	c.rules = newCache[record.Policy](l.Policies, c.seen)
	c.tokens = newCache[record.Token](l.Tokens, c.seen)
	c.settings = newCache[record.TenantSettings](l.Settings, c.seen)
	first, err := newTerms(&cfg.Settings, cfg.Manifest, c.floors)
	if err != nil {
		return nil, err
	}
	first.custodians = cfg.Custodians
	c.terms.Store(first)
	c.keys.Settle(&cfg.Settings)
	if c.chain, err = audit.New(cfg.Keys, cfg.Platform.Name(), c.clock.micros()); err != nil {
		return nil, err
	}
	if c.instance, err = newInstanceKeys(cfg.Home, c.clock.micros()); err != nil {
		return nil, err
	}
	if c.stranger, err = newStranger(); err != nil {
		return nil, err
	}
	if c.pairs, err = strangerPairs(); err != nil {
		return nil, err
	}
	if c.reply, err = newReplyKey(); err != nil {
		return nil, err
	}
	if c.domainApp, err = newDomainApp(cfg.Administrator); err != nil {
		return nil, err
	}
	c.info = wire.Info{
		Version: cfg.Version, GitSHA: cfg.GitSHA, Platform: cfg.Platform.Name(), Domain: cfg.Keys.Domain(),
		Instance: c.chain.Instance(), AuditKey: c.chain.PublicKey(),
		Simulated: cfg.Platform.Simulated(),
	}
	return c, nil
}

// Info implements wire.Core.
func (c *Core) Info(context.Context) (wire.Info, error) {
	now := c.clock.micros()
	c.reach(0, now) // also where nobody asks for anything
	i, t := c.info, c.terms.Load()
	i.HPKEKey = c.instance.at(now, t.window*1000).public
	i.OpenEnrollment, i.Manifest, i.DomainKey = t.settings.PlainEnrollment(), t.version, c.keys.Current()
	i.Compromised = t.settings.DomainKey.LastCompromised()
	return i, nil
}

// Checkpoint implements wire.Core. It also drops what has expired.
func (c *Core) Checkpoint(context.Context) (*wire.Answer, error) {
	now := c.clock.micros()
	c.replays.expire(now / 1000)
	c.pending.expire(now, func(x *request) {
		x.takeBack()
		x.unfounded()
	})
	return &wire.Answer{Kind: wire.Final, Audit: c.chain.Checkpoint(now, c.limiter.entries(now)...)}, nil
}

// ErrLimit is returned for a message that is over a limit of package wire.
var ErrLimit = errors.New("message is over a limit")

// Call implements wire.Core.
func (c *Core) Call(ctx context.Context, call *wire.Call) (*wire.Answer, error) {
	if len(call.Records) > wire.MaxRecords || len(call.Listing) > wire.MaxList || len(call.Body) > wire.MaxBody ||
		len(call.Collateral) > wire.MaxCollateral {
		return nil, fmt.Errorf("call: %w", ErrLimit)
	}
	// The reply signature has one byte for the length of the action.
	if len(call.Action) > wire.MaxName { // check: action-length
		return nil, fmt.Errorf("call: action of %d bytes: %w", len(call.Action), ErrLimit)
	}
	x := &request{ctx: ctx, core: c, call: call, now: c.clock.micros()}
	if err := c.reach(call.Floor, x.now); err != nil {
		return asNeed(err).answer(), nil
	}
	if c.facts.Ready() != nil { // check: fact-gate
		return &wire.Answer{Kind: wire.Need, NeedFacts: true}, nil
	}
	res, err := x.execute()
	if err != nil {
		if need := asNeed(err); need != nil {
			x.takeBack()
			return need.answer(), nil
		}
	}
	if err != nil && !asRefusal(err).stores {
		x.writes, x.onStored, x.narrowed = nil, nil, nil
	}
	if x.pends() {
		return x.suspend(res, err), nil
	}
	return x.finish(res, err), nil
}

// Resolve implements wire.Core.
func (c *Core) Resolve(_ context.Context, r wire.Resolve) (*wire.Answer, error) {
	x, ok := c.pending.take(r.Handle)
	if !ok {
		return nil, fmt.Errorf("resolve: no pending answer %d; it was resolved or has expired", r.Handle)
	}
	x.now = c.clock.micros()
	if r.Outcome != wire.Stored {
		x.unfounded()
	}
	switch r.Outcome {
	case wire.Stored:
		if !x.stand() { // check: fact-stand
			return x.abort(errInternal("rival fact")), nil
		}
		if !x.commit() { // check: rival
			return x.abort(errInternal("rival state")), nil
		}
		return x.release(x.result, x.refused), nil
	case wire.Replayed:
		// The entry stays here too: the request was used elsewhere.
		return x.abort(errReplay()), nil
	case wire.Failed:
		x.takeBack()
		return x.abort(x.action.storageError()), nil
	default:
		x.takeBack()
		a := x.abort(nil)
		a.Reply, a.Sign, a.Code, a.Release = nil, "", 0, 0
		return a, nil
	}
}

// openVersion is a key version ready for use.
type openVersion struct {
	record.KeyVersion
	digest    [32]byte
	symmetric *primitive.Symmetric // of a symmetric spec
	private   *primitive.Private   // of any other spec
}

// request is one call on its way through the core.
type request struct {
	ctx    context.Context // of the call, for the platform; after Call has returned nobody asks it
	core   *Core
	call   *wire.Call
	sealed *sealing // nil: the request came in clear
	now    int64    // Unix microseconds
	action *action

	tenant        wire.UUID // of the authenticated app
	app           *cached[*openApp]
	credential    *openCredential // that it is authenticated with
	authenticated bool
	mac           [32]byte // of the request; of a key pair's, SHA-256 of what is signed
	timestamp     int64    // Unix milliseconds
	hasNonce      bool
	admitted      bool
	promised      bool // the signature says that the request is sealed
	exposes       bool // the reply has an API key that the host can see
	spent         int  // requests per second that the app may make, once this one is counted
	payload       payload
	sent          canon.Value // the payload with what the signature does not cover: to refuse it, and for nothing else

	overtaken bool // the core holds a newer state of something listed

	key        wire.UUID // for the audit entry
	keyVersion uint32
	remark     string // likewise, behind the reason; nothing that a client has written

	writes   []wire.Write
	narrowed []facts.Fact
	facts    *facts.Draft // of narrowed
	query    *wire.Query  // that the call's listing answers
	replay   *wire.Replay
	onStored []func()
	result   result
	refused  error  // instead of result
	entry    uint64 // sequence number of the audit entry
}

// millis is the time of the request in Unix milliseconds.
func (x *request) millis() int64 { return x.now / 1000 }

// pends reports whether the reply must wait for the store.
func (x *request) pends() bool { return len(x.writes) > 0 || x.replay != nil }

// takeBack undoes the admission of a request that had no effect.
func (x *request) takeBack() {
	if x.admitted {
		x.core.replays.forget(x.tenant, x.tag(), x.timestamp)
		x.admitted = false
	}
	if x.spent != 0 {
		x.core.limiter.giveBack(x.tenant, x.spent)
		x.spent = 0
	}
}

// tag is what names the request in replay entries.
func (x *request) tag() wire.Tag {
	if x.credential.Kind != record.APIKey {
		return x.pairTag()
	}
	return wire.Tag(x.mac[:16])
}

// record makes the audit entry of an outcome. Of requests over their app's limit
// most have none; Checkpoint tells how many.
func (x *request) record(err error) wire.Audit {
	code, reason := codeOK, "ok"
	if err != nil {
		r := asRefusal(err)
		code, reason = r.code, r.reason
	}
	x.core.counts.note(code, reason)
	if reason == errLimit().reason && !x.core.limiter.tell(x.tenant, x.now) {
		return wire.Audit{}
	}
	e := &trail.Entry{
		Kind: trail.Request, Time: x.now, RequestID: x.call.RequestID, Tenant: x.tenant, Action: x.call.Action,
		Key: x.key, KeyVersion: x.keyVersion, Code: uint16(code), Reason: reason + x.remark,
	}
	a := x.core.chain.Append(e)
	x.entry = e.Sequence
	if x.core.syncs() { // check: audit-sync
		a.Durable = true
	}
	return a
}

// finish audits the outcome of a request without writes and makes its answer.
func (x *request) finish(res result, err error) *wire.Answer {
	a := x.release(res, err)
	a.Audit = x.record(err)
	a.Audit.Durable = a.Audit.Durable || x.action != nil && x.action.discloses && a.Audit.Count > 0
	return a
}

// suspend audits a request that the store must take note of and leaves the
// reply, a refusal if there is an err, to Resolve.
func (x *request) suspend(res result, err error) *wire.Answer {
	if full := x.draft(); full != nil {
		x.takeBack()
		x.writes, x.replay = nil, nil
		return x.finish(result{}, full)
	}
	handle, ok := x.core.pending.add(x)
	if !ok {
		x.takeBack()
		x.unfounded()
		x.writes, x.replay = nil, nil
		return x.finish(result{}, errTooMany())
	}
	x.result, x.refused = res, err
	a := &wire.Answer{Kind: wire.Pending, Handle: handle, Writes: x.writes, Replay: x.replay}
	if x.facts != nil {
		a.Facts = &x.facts.NewFacts
	}
	a.Audit = x.record(err)
	a.Audit.Durable = true
	return a
}

// commit takes note of stored writes. It reports false if one of them cannot be
// stored, as this core has accepted another state of the same revision.
//
// The caches come first: a call that meets a newer state than its own must find
// it there, from the moment on that it is seen.
func (x *request) commit() bool {
	for _, f := range x.onStored {
		f()
	}
	for _, w := range x.writes {
		if w.Remove || w.Rewrapped {
			continue // another record says that it does not count; it is the state that it was
		}
		if x.core.seen.accept(w.ID, w.Revision, w.Tag()) == rival {
			return false
		}
	}
	return true
}

// abort audits that the writes of a pending answer were not stored.
func (x *request) abort(err error) *wire.Answer {
	a := x.release(result{}, err)
	a.Audit = x.core.chain.Append(&trail.Entry{Kind: trail.Aborted, Time: x.now, Of: x.entry})
	if x.core.syncs() { // check: audit-sync-aborted
		a.Audit.Durable = true
	}
	return a
}
