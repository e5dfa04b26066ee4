package attested

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/ed25519"
	"crypto/hpke"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/internal/attest"
)

// A Workload logs in with a proof of what it is, of which it has one of two. Both are
// called for each login.
type Workload struct {
	AppID string // of the tenant whose rules accept the proof

	// JWT returns a token of an issuer, as JWTFile does.
	JWT func(ctx context.Context) ([]byte, error)
	// Quote returns an SGX quote of this very program over report data.
	Quote func(ctx context.Context, reportData [64]byte) ([]byte, error)
}

// JWTFile reads a token from a file anew for each login, as an orchestrator replaces it.
func JWTFile(path string) func(context.Context) ([]byte, error) {
	return func(context.Context) ([]byte, error) {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		b, err := io.ReadAll(io.LimitReader(f, api.MaxLoginJWT+2))
		for len(b) > 0 && (b[len(b)-1] == '\n' || b[len(b)-1] == '\r') {
			b = b[:len(b)-1]
		}
		if err == nil && (len(b) == 0 || len(b) > api.MaxLoginJWT) {
			err = fmt.Errorf("token in %s has %d bytes, want 1 to %d", path, len(b), api.MaxLoginJWT)
		}
		return b, err
	}
}

// Login verifies the service and logs the workload in at the verified core, which alone
// sees the proof. The client that it returns seals its requests to verified cores, signs
// them with a key pair that is made for each login and not kept, and logs in again
// before its credential ends. c reaches the service and needs no credentials. Errors: as
// of Verify, those of the service and of the Workload, and api.ErrLogin for a reply that
// the core has not made.
func (v *Verifier) Login(ctx context.Context, c *ehsm.Client, w Workload) (*ehsm.Client, *Report, error) {
	if _, err := parseInstance(w.AppID); err != nil || (w.JWT == nil) == (w.Quote == nil) {
		return nil, nil, &Error{ErrConfig, "configuration", errors.New("a workload has an appid, and a JWT or a quote")}
	}
	l := &logins{v: v, plain: c.Plain(), w: w}
	first, err := l.login(ctx)
	if err != nil {
		return nil, nil, err
	}
	once := func(ctx context.Context) (s ehsm.Session, err error) {
		if first.Token != "" { // the client asks one at a time
			s, first = first, s
			return s, nil
		}
		return l.login(ctx)
	}
	logged, err := c.Plain().WithLogin(w.AppID, l.replyKey(), once)
	if err != nil {
		return nil, nil, err
	}
	return logged.Sealed(l.seal), l.last(), nil
}

// freshReport is for how long what a login has verified serves for the first sealed
// request and the first reply.
const freshReport = time.Minute

// logins makes sessions of one workload.
type logins struct {
	v     *Verifier
	plain *ehsm.Client
	w     Workload

	mu     sync.Mutex
	report *Report // of the last login
	at     time.Time
}

func (l *logins) last() *Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.report
}

// fresh returns the report of the last login, nil if it is too old.
func (l *logins) fresh() *Report {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.report == nil || l.v.now().Sub(l.at) >= freshReport {
		return nil
	}
	return l.report
}

// seal is for Client.Sealed. The key of the last login is good the first time only: if
// the client asks again, the service has another one.
func (l *logins) seal(ctx context.Context, plain *ehsm.Client) (ehsm.SealingKey, error) {
	r := l.fresh()
	l.mu.Lock()
	l.at = time.Time{}
	l.mu.Unlock()
	if r == nil {
		var err error
		if r, err = l.v.Verify(ctx, plain); err != nil {
			return ehsm.SealingKey{}, err
		}
	}
	return ehsm.SealingKey{Domain: r.DomainID, PublicKey: r.HPKEPublicKey}, nil
}

// replyKey looks at the report of the last login before it asks for evidence.
func (l *logins) replyKey() func(context.Context, string) (ed25519.PublicKey, error) {
	ask := l.v.ReplyKeys(l.plain)
	return func(ctx context.Context, instance string) (ed25519.PublicKey, error) {
		if r := l.last(); r != nil && r.Instance == instance && len(r.ReplyKey) == ed25519.PublicKeySize {
			return r.ReplyKey, nil
		}
		return ask(ctx, instance)
	}
}

// login logs in once, at whatever instance answers twice in a row.
func (l *logins) login(ctx context.Context) (s ehsm.Session, err error) {
	for n := 1; ; n++ {
		var report *Report
		if report, err = l.v.Verify(ctx, l.plain); err != nil {
			return s, err
		}
		s, err = l.loginAt(ctx, report)
		var refused *api.Error
		if errors.As(err, &refused) && refused.Code == api.CodeMisdirected && n < enrollAttempts {
			continue
		}
		if err == nil {
			l.mu.Lock()
			l.report, l.at = report, l.v.now()
			l.mu.Unlock()
		}
		return s, err
	}
}

// loginAt logs in at the instance of a report, with a new key pair.
func (l *logins) loginAt(ctx context.Context, r *Report) (s ehsm.Session, err error) {
	public, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return s, err
	}
	tenant, err := parseInstance(l.w.AppID)
	if err != nil {
		return s, err
	}
	ask := &api.LoginAsk{Tenant: tenant, Kind: api.KindEd25519, PublicKey: public}
	if err := l.prove(ctx, r, ask); err != nil {
		return s, err
	}
	defer clear(ask.JWT)
	began := l.v.now()
	grant, err := exchange(ctx, l.plain, r, ask)
	if err != nil {
		return s, err
	}
	t, err := api.ParseLoginToken(grant.Token)
	if err != nil {
		return s, err
	}
	if t.Tenant != tenant || !slices.Equal(t.PublicKey, public) || t.Expires <= grant.Now {
		return s, fmt.Errorf("%w: the token is of another login", api.ErrLogin)
	}
	life := time.Duration(t.Expires-grant.Now) * time.Millisecond
	return ehsm.Session{Token: grant.Token, Signer: private, Renew: began.Add(life * 2 / 3), Ends: began.Add(life)}, nil
}

// prove puts the proof into the request.
func (l *logins) prove(ctx context.Context, r *Report, ask *api.LoginAsk) (err error) {
	if l.w.JWT != nil {
		if ask.JWT, err = l.w.JWT(ctx); err != nil {
			return fmt.Errorf("read the workload's token: %w", err)
		}
		if len(ask.JWT) == 0 || len(ask.JWT) > api.MaxLoginJWT {
			return fmt.Errorf("token of %d bytes, want 1 to %d", len(ask.JWT), api.MaxLoginJWT)
		}
		return nil
	}
	res, err := l.plain.LoginChallenge(ctx)
	if err != nil {
		return err
	}
	if res.InstanceID != r.Instance {
		return &api.Error{Code: api.CodeMisdirected, Message: api.MessageMisdirectedBefore + res.InstanceID}
	}
	if len(res.Challenge) != api.LoginChallengeSize {
		return fmt.Errorf("%w: challenge of %d bytes", api.ErrLogin, len(res.Challenge))
	}
	instance, err := parseInstance(r.Instance)
	if err != nil {
		return err
	}
	ask.Challenge = [api.LoginChallengeSize]byte(res.Challenge)
	bound := attest.ReportData(attest.UseLogin, r.DomainID, ask.Tenant[:], instance[:], ask.Challenge[:], api.LoginKey(ask.Kind, ask.PublicKey))
	if ask.Quote, err = l.w.Quote(ctx, bound); err != nil {
		return fmt.Errorf("make the workload's quote: %w", err)
	}
	if len(ask.Quote) == 0 || len(ask.Quote) > api.MaxLoginQuote {
		return fmt.Errorf("quote of %d bytes, want 1 to %d", len(ask.Quote), api.MaxLoginQuote)
	}
	return nil
}

// exchange sends a request to the instance of a report and opens the reply, which only
// that can make.
func exchange(ctx context.Context, c *ehsm.Client, r *Report, ask *api.LoginAsk) (*api.LoginGrant, error) {
	instance, err := parseInstance(r.Instance)
	if err != nil {
		return nil, err
	}
	core, err := hpke.MLKEM768X25519().NewPublicKey(r.HPKEPublicKey)
	if err != nil {
		return nil, err
	}
	enc, s, err := hpke.NewSender(core, hpke.HKDFSHA256(), hpke.AES256GCM(), api.LoginInfo(r.DomainID, instance))
	if err != nil {
		return nil, err
	}
	text := ask.Append(nil)
	defer clear(text)
	sealed, err := s.Seal(nil, text)
	if err != nil {
		return nil, err
	}
	key, err := s.Export(api.LoginReplyExport, 32)
	if err != nil {
		return nil, err
	}
	defer clear(key)
	res, err := c.Login(ctx, api.LoginRequest{InstanceID: r.Instance, Enc: enc, Ciphertext: sealed})
	if err != nil {
		return nil, err
	}
	return openLogin(key, res.Ciphertext)
}

func openLogin(key, sealed []byte) (*api.LoginGrant, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, err
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, err
	}
	if len(sealed) < aead.NonceSize() {
		return nil, fmt.Errorf("%w: reply of %d bytes", api.ErrLogin, len(sealed))
	}
	text, err := aead.Open(nil, sealed[:aead.NonceSize()], sealed[aead.NonceSize():], nil)
	if err != nil {
		return nil, fmt.Errorf("%w: reply: %w", api.ErrLogin, err)
	}
	return api.DecodeLoginGrant(text)
}
