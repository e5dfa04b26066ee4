package ehsm

import (
	"bytes"
	"context"
	"crypto/hpke"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/sealed"
)

var sealDomain = [32]byte{0xd0, 7}

// A sealingServer is a fakeServer behind sealed requests. Between fields of its own
// it does what a core does.
type sealingServer struct {
	fakeServer
	keys    map[string]hpke.PrivateKey // that it opens, by id
	current hpke.PrivateKey            // of new evidence
	hint    string                     // with the refusal of unknown keys
	edit    func(outer []byte) []byte  // of a sealed reply; nil: nothing
	before  func() string              // a reply in clear instead, "" for none; nil: nothing
	unsign  bool                       // the reply inside has no signature

	mu       sync.Mutex
	bodies   [][]byte // as they came, and the replies as they went
	contexts []string // encapsulated keys
	inner    [][]byte // requests inside
	verified int
}

func newSealingServer(t testing.TB) *sealingServer {
	s := &sealingServer{keys: map[string]hpke.PrivateKey{}}
	s.answer = func(string, map[string]any) string { return succeed(`{"plaintext":"c2VjcmV0IHRleHQ="}`) }
	s.rotate(t)
	return s
}

// rotate makes another current key, and drops the others.
func (s *sealingServer) rotate(t testing.TB) {
	t.Helper()
	k, err := hpke.MLKEM768X25519().GenerateKey()
	if err != nil {
		t.Fatal(err)
	}
	clear(s.keys)
	s.current = k
	s.hint = sealed.KeyID(k.PublicKey().Bytes())
	s.keys[s.hint] = k
}

// verify stands for a verification.
func (s *sealingServer) verify(_ context.Context, plain *Client) (SealingKey, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.verified++
	if plain.sealer != nil {
		s.t.Error("verification with a client that seals")
	}
	return SealingKey{sealDomain, s.current.PublicKey().Bytes()}, nil
}

func (s *sealingServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.bodies = append(s.bodies, body)
	if s.before != nil {
		if text := s.before(); text != "" {
			io.WriteString(w, text)
			return
		}
	}
	o, message, err := sealed.ParseBody(r.URL.Query().Get("Action"), body)
	if err != nil {
		s.t.Errorf("body is not sealed: %q", body)
		return
	}
	key := s.keys[o.KeyID]
	if key == nil {
		io.WriteString(w, `{"code":400,"message":"sealed key unknown","result":{"sealedKey":"`+s.hint+`"}}`)
		return
	}
	secret := s.share(key, sealed.Encapsulated(message))
	request, err := secret.OpenRequest(message, o)
	if err != nil {
		s.t.Errorf("request does not open: %v", err)
		return
	}
	s.inner = append(s.inner, request)
	recorder := httptest.NewRecorder()
	again := r.Clone(r.Context())
	again.Body = io.NopCloser(bytes.NewReader(request))
	s.fakeServer.ServeHTTP(recorder, again)
	reply := sealed.Reply{Sign: recorder.Header().Get("Ehsm-Reply-Signature"), Body: recorder.Body.Bytes()}
	if s.unsign {
		reply.Sign = ""
	}
	answer, err := secret.SealReply(message, [32]byte{byte(len(s.bodies))}, reply)
	if err != nil {
		s.t.Error(err)
	}
	out := sealed.ReplyBody(answer)
	if s.edit != nil {
		out = s.edit(out)
	}
	s.bodies = append(s.bodies, out)
	w.Write(out)
}

func (s *sealingServer) share(key hpke.PrivateKey, encapsulated []byte) sealed.Secret {
	if !slices.Contains(s.contexts, string(encapsulated)) {
		s.contexts = append(s.contexts, string(encapsulated))
	}
	r, err := hpke.NewRecipient(encapsulated, key, hpke.HKDFSHA256(), hpke.ExportOnly(), sealed.Info(sealDomain))
	if err != nil {
		s.t.Fatal(err)
	}
	exported, err := r.Export(sealed.ExportLabel, sealed.SecretSize)
	if err != nil {
		s.t.Fatal(err)
	}
	return sealed.NewSecret([32]byte(exported))
}

// start serves s and returns a client that seals.
func (s *sealingServer) start(t testing.TB) *Client {
	t.Helper()
	s.t, s.nonces, s.conns = t, map[string]bool{}, map[string]bool{}
	ts := httptest.NewTLSServer(s)
	t.Cleanup(ts.Close)
	c, err := New(Config{URL: ts.URL, Fingerprint: fingerprint(ts), AppID: testAppID, APIKey: NewAPIKey(testAPIKey)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c.Sealed(s.verify)
}

func TestSealed(t *testing.T) {
	s := newSealingServer(t)
	c := s.start(t)
	for range 3 {
		got, err := c.Decrypt(t.Context(), testKeyID, []byte("a ciphertext"), []byte("additional data"))
		if err != nil || string(got) != "secret text" {
			t.Fatalf("Decrypt: got %q, %v", got, err)
		}
	}
	wire := bytes.Join(s.bodies, nil)
	for _, hidden := range []string{"YSBjaXBoZXJ0ZXh0", "YWRkaXRpb25hbCBkYXRh", "c2VjcmV0IHRleHQ=", "secret text", "timestamp", `"sign"`} {
		if bytes.Contains(wire, []byte(hidden)) {
			t.Errorf("%q is on the wire", hidden)
		}
	}
	if s.verified != 1 || len(s.contexts) != 1 || len(s.inner) != 3 {
		t.Errorf("%d verifications, %d encapsulated keys for %d requests", s.verified, len(s.contexts), len(s.inner))
	}
	if bytes.Equal(s.bodies[0], s.bodies[2]) {
		t.Error("two requests are the same on the wire")
	}
	if c.Plain().sealer != nil || c.With(Credentials{}).sealer != c.sealer {
		t.Error("Plain seals, or With does not")
	}
}

// TestSealedAges has keys and what is encapsulated for them be replaced in time.
func TestSealedAges(t *testing.T) {
	s := newSealingServer(t)
	c := s.start(t)
	now := time.Now()
	c.now = func() time.Time { return now }
	for _, step := range []struct {
		later              time.Duration
		verified, contexts int
	}{
		{0, 1, 1}, {10*time.Minute - 1, 1, 1}, {1, 1, 2}, {23 * time.Hour, 1, 3}, {50*time.Minute - 1, 1, 4}, {1, 2, 5}, {0, 2, 5},
	} {
		now = now.Add(step.later)
		if _, err := c.Decrypt(t.Context(), testKeyID, []byte("x"), nil); err != nil {
			t.Fatal(err)
		}
		if s.verified != step.verified || len(s.contexts) != step.contexts {
			t.Errorf("after %v: %d verifications, %d contexts, want %d, %d", step.later, s.verified, len(s.contexts), step.verified, step.contexts)
		}
	}
}

// TestSealedUnknownKey has the service have another key: it is verified, and the same
// signed request goes out again, also one that changes something.
func TestSealedUnknownKey(t *testing.T) {
	s := newSealingServer(t)
	s.answer = func(string, map[string]any) string { return succeed(`{"keyid":"` + testKeyID + `"}`) }
	c := s.start(t)
	create := func() error {
		_, err := c.CreateKey(t.Context(), api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
		return err
	}
	if err := create(); err != nil {
		t.Fatal(err)
	}
	first := s.current
	s.rotate(t)
	if err := create(); err != nil || s.verified != 2 {
		t.Fatalf("another key: got %v after %d verifications", err, s.verified)
	}
	// Of a key that was verified there is nothing to ask.
	clear(s.keys)
	s.hint = sealed.KeyID(first.PublicKey().Bytes())
	s.keys[s.hint] = first
	if err := create(); err != nil || s.verified != 2 {
		t.Errorf("a key of before: got %v after %d verifications", err, s.verified)
	}
	// A hint is no reason to trust a key.
	s.rotate(t)
	s.hint = strings.Repeat("ab", 16)
	if err := create(); err != nil || s.verified != 3 {
		t.Errorf("a hint that is wrong: got %v after %d verifications", err, s.verified)
	}
	if len(s.inner) != 4 {
		t.Errorf("%d requests were served, want 4", len(s.inner))
	}
}

// TestSealedNever has nothing secret leave where the service is not what it must be.
func TestSealedNever(t *testing.T) {
	refused := errors.New("not genuine")
	for name, row := range map[string]struct {
		change func(t *testing.T, s *sealingServer)
		verify func(context.Context, *Client) (SealingKey, error) // nil: as usual
		posts  int
	}{
		"verification fails":       {func(*testing.T, *sealingServer) {}, func(context.Context, *Client) (SealingKey, error) { return SealingKey{}, refused }, 0},
		"no key":                   {func(*testing.T, *sealingServer) {}, func(context.Context, *Client) (SealingKey, error) { return SealingKey{sealDomain, []byte("x")}, nil }, 0},
		"its key is unknown to it": {func(t *testing.T, s *sealingServer) { clear(s.keys) }, nil, 1},
	} {
		t.Run(name, func(t *testing.T) {
			s := newSealingServer(t)
			c := s.start(t)
			row.change(t, s)
			if row.verify != nil {
				c = c.Sealed(row.verify)
			}
			if _, err := c.Decrypt(t.Context(), testKeyID, []byte("x"), nil); !errors.Is(err, ErrSealed) {
				t.Errorf("got %v", err)
			}
			if len(s.bodies) != row.posts || len(s.inner) != 0 {
				t.Errorf("%d requests, %d opened", len(s.bodies), len(s.inner))
			}
		})
	}
}

// TestSealedBounded has a service that goes on saying it has another key not be
// asked for ever.
func TestSealedBounded(t *testing.T) {
	s := newSealingServer(t)
	c := s.start(t)
	s.before = func() string { s.rotate(t); return refuse(400, api.MessageSealedKey) }
	if _, err := c.CreateKey(t.Context(), api.AESGCM256, api.EncryptDecrypt, api.InternalKey); !IsUnauthenticated(err) {
		t.Errorf("got %v", err)
	}
	if len(s.bodies) != sealTries {
		t.Errorf("%d requests, want %d", len(s.bodies), sealTries)
	}
}

// TestSealedReplies has only the core's reply to this very request count.
func TestSealedReplies(t *testing.T) {
	var earlier []byte
	for name, row := range map[string]struct {
		change func(s *sealingServer)
		wanted func(error) bool
	}{
		"success in clear": {func(s *sealingServer) { s.before = func() string { return succeed(`{"plaintext":"AAAA"}`) } },
			func(err error) bool { return errors.Is(err, ErrReplySignature) }},
		"refusal in clear": {func(s *sealingServer) { s.before = func() string { return refuse(400, api.MessageKeyUnknown) } },
			func(err error) bool { return IsUnauthenticated(err) && IsKeyNotFound(err) }},
		"reply damaged": {func(s *sealingServer) {
			s.edit = func(b []byte) []byte { return bytes.Replace(b, []byte(`"sealed":"AQ`), []byte(`"sealed":"Ag`), 1) }
		}, func(err error) bool { return errors.Is(err, ErrReplySignature) }},
		"reply to an earlier request": {func(s *sealingServer) {
			s.edit = func(b []byte) []byte {
				if earlier == nil {
					earlier = b
				}
				return earlier
			}
		}, func(err error) bool { return errors.Is(err, ErrReplySignature) }},
		"success without a signature inside": {func(s *sealingServer) { s.unsign = true },
			func(err error) bool { return errors.Is(err, ErrReplySignature) }},
		"refusal without a signature inside": {func(s *sealingServer) {
			s.unsign, s.answer = true, func(string, map[string]any) string { return refuse(400, api.MessageSign) }
		}, func(err error) bool { return IsBadCredentials(err) && !IsUnauthenticated(err) }},
		"refusal": {func(s *sealingServer) {
			s.answer = func(string, map[string]any) string { return refuse(400, api.MessageKeyDisabled) }
		}, func(err error) bool { return IsKeyDisabled(err) && !IsUnauthenticated(err) }},
	} {
		s := newSealingServer(t)
		c := s.start(t)
		row.change(s)
		_, err := c.Decrypt(t.Context(), testKeyID, []byte("x"), nil)
		if name == "reply to an earlier request" {
			if err != nil {
				t.Fatal(err)
			}
			_, err = c.Decrypt(t.Context(), testKeyID, []byte("x"), nil)
		}
		if !row.wanted(err) {
			t.Errorf("%s: got %v", name, err)
		}
	}
}

// TestSealedServedTwice has a host serve a request, and say that it has no such key:
// the outcome of a change is unknown then, and no second key is made.
func TestSealedServedTwice(t *testing.T) {
	s := newSealingServer(t)
	c := s.start(t)
	s.before = func() string {
		if len(s.bodies) == 1 {
			s.rotate(t)
			return refuse(400, api.MessageSealedKey)
		}
		return ""
	}
	s.answer = func(string, map[string]any) string { return refuse(400, api.MessageReplay) }
	_, err := c.CreateKey(t.Context(), api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
	if !errors.Is(err, ErrOutcomeUnknown) {
		t.Errorf("got %v", err)
	}
	if len(s.inner) != 1 {
		t.Errorf("%d requests were opened, want 1", len(s.inner))
	}
}

// TestSealedTogether has many requests wait for one verification, and none for longer
// than it may.
func TestSealedTogether(t *testing.T) {
	s := newSealingServer(t)
	c := s.start(t)
	entered, leave := make(chan struct{}), make(chan struct{})
	c = c.Sealed(func(ctx context.Context, plain *Client) (SealingKey, error) {
		close(entered)
		<-leave
		return s.verify(ctx, plain)
	})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if _, err := c.Decrypt(context.Background(), testKeyID, []byte("x"), nil); err != nil {
				t.Error(err)
			}
		})
	}
	<-entered
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Decrypt(ctx, testKeyID, []byte("x"), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
	close(leave)
	wg.Wait()
	if s.verified != 1 {
		t.Errorf("%d verifications", s.verified)
	}
}
