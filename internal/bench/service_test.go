package bench

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/bench/ceiling"
)

// TestMain is also the programs that Run starts: with a command as its first
// argument, or under another name, the test binary is a server.
func TestMain(m *testing.M) {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	plain := os.Args[len(os.Args)-1] == "--http"
	var err error
	switch program := filepath.Base(os.Args[0]); {
	case program == "ehsm-simtee":
		fmt.Fprintln(os.Stderr, "ehsm-simtee: serves", os.Args[len(os.Args)-1])
		<-ctx.Done()
	case program == "ehsm-core":
		fmt.Fprintln(os.Stderr, "ehsm-core: serves domain 1 on", os.Getenv("EHSM_CORE_LISTEN"))
		<-ctx.Done()
	case program == "ehsm-kms" && os.Getenv("EHSM_KMS_LISTEN") == "127.0.0.1:0":
		err = serveFake(ctx, "ehsm-kms: serves ", false)
	case len(os.Args) > 1 && os.Args[1] == "bench-ceiling":
		err = ServeCeiling(ctx, plain, os.Stdout)
	case len(os.Args) > 1 && os.Args[1] == "bench-noise":
		err = ServeNoise(ctx, os.Stdin, os.Stdout)
	case len(os.Args) > 1 && os.Args[1] == "dev":
		err = serveFake(ctx, "  url:         ", plain)
	default:
		os.Exit(m.Run())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func serveFake(ctx context.Context, ready string, plain bool) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	f := newFake()
	f.refuseAfter, _ = strconv.Atoi(os.Getenv("REFUSE_AFTER"))
	if plain {
		fmt.Printf("starting\n%shttp://%s\nmore\n", ready, ln.Addr())
		return ceiling.Serve(ctx, ln, nil, f)
	}
	cert, err := selfSigned()
	if err != nil {
		return err
	}
	fmt.Printf("starting\n%shttps://%s\nmore\n", ready, ln.Addr())
	return ceiling.Serve(ctx, ln, cert, f)
}

// serveOn serves f without TLS in this process and returns how to end it.
func serveOn(ctx context.Context, ln net.Listener, f *fake) (stop func()) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		ceiling.Serve(ctx, ln, nil, f)
	}()
	return func() {
		cancel()
		<-done
	}
}

// fake is a service of the native API with one tenant and one key. It checks
// signatures, nonces and the signed action, and signs replies.
type fake struct {
	refuseAfter int // requests; 0: never
	served      atomic.Int64
	enrolled    atomic.Int64
	apiKey      string
	reply       [32]byte
	key         cipher.AEAD

	mu     sync.Mutex
	nonces map[string]bool
}

const (
	fakeAppID = "86f0c2a1-4b5d-4c3e-9a77-0d1e2f3a4b5c"
	fakeKeyID = "aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"
)

func newFake() *fake {
	f := &fake{apiKey: rand.Text(), nonces: make(map[string]bool)}
	f.reply = api.ReplyKey([]byte(f.apiKey))
	block, _ := aes.NewCipher(make([]byte, 32))
	f.key, _ = cipher.NewGCMWithRandomNonce(block)
	return f
}

func (f *fake) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	action := r.URL.Query().Get(api.ActionParam)
	if action == api.Enroll {
		f.enrolled.Add(1)
		answer(w, "", envelope(api.EnrollResult{AppID: fakeAppID, APIKey: f.apiKey}))
		return
	}
	body, _ := io.ReadAll(r.Body)
	mac, payload, err := f.authenticate(action, body)
	if err != nil {
		answer(w, "", refusal(err))
		return
	}
	var out []byte
	if n := f.served.Add(1); f.refuseAfter > 0 && n > int64(f.refuseAfter) {
		out = refusal(&api.Error{Code: api.CodeInvalid, Message: api.MessageKeyDisabled})
	} else if result, err := f.do(action, payload); err != nil {
		out = refusal(err)
	} else {
		out = envelope(result)
	}
	answer(w, api.ReplySignature(&f.reply, &mac, action, out), out)
}

func (f *fake) authenticate(action string, body []byte) (mac [32]byte, payload json.RawMessage, err error) {
	tree, err := canon.Parse(body)
	if err != nil {
		return mac, nil, err
	}
	h := hmac.New(sha256.New, []byte(f.apiKey))
	h.Write(tree.AppendCanonical(nil, canon.Skipping))
	h.Sum(mac[:0])
	if tree.Get("sign").Text() != base64.StdEncoding.EncodeToString(mac[:]) || tree.Get("payload").Get("action").Text() != action {
		return mac, nil, errors.New(api.MessageSign)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	nonce := tree.Get("nonce").Text()
	if nonce == "" || f.nonces[nonce] {
		return mac, nil, errors.New(api.MessageReplay)
	}
	f.nonces[nonce] = true
	var req api.Request
	err = json.Unmarshal(body, &req)
	return mac, req.Payload, err
}

func (f *fake) do(action string, payload json.RawMessage) (any, error) {
	var q struct {
		Plaintext  []byte `json:"plaintext"`
		Ciphertext []byte `json:"ciphertext"`
		KeyLen     int    `json:"keylen"`
	}
	if err := json.Unmarshal(payload, &q); err != nil {
		return nil, err
	}
	switch action {
	case api.CreateKey:
		return api.CreateKeyResult{KeyID: fakeKeyID}, nil
	case api.Encrypt:
		return api.EncryptResult{Ciphertext: f.key.Seal(nil, nil, q.Plaintext, nil)}, nil
	case api.Decrypt:
		plaintext, err := f.key.Open(nil, nil, q.Ciphertext, nil)
		return api.DecryptResult{Plaintext: plaintext}, err
	case api.GenerateDataKey:
		key := randomBytes(q.KeyLen)
		return api.DataKeyResult{Plaintext: key, Ciphertext: f.key.Seal(nil, nil, key, nil)}, nil
	}
	return nil, errors.New(api.MessageUnknownAction)
}

func envelope(result any) []byte {
	b, _ := json.Marshal(api.Reply[any]{Code: api.CodeOK, Message: "successful", Result: result})
	return b
}

func refusal(err error) []byte {
	refused := &api.Error{Code: api.CodeInvalid, Message: err.Error()}
	errors.As(err, &refused)
	b, _ := json.Marshal(api.Reply[api.Empty]{Code: refused.Code, Message: refused.Message})
	return b
}

func answer(w http.ResponseWriter, signature string, body []byte) {
	if signature != "" {
		w.Header().Set(api.ReplySignatureHeader, signature)
	}
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.Write(body)
}
