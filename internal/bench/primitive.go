package bench

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"runtime"
	"sync"
	"time"
)

// The primitives are those of the standard library, with a digest of the message
// where the service makes one.

func primitiveSignP256(size int) (func() error, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	message := randomBytes(size)
	return func() error {
		digest := sha256.Sum256(message)
		_, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
		return err
	}, err
}

func primitiveVerifyP256(size int) (func() error, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	message := randomBytes(size)
	digest := sha256.Sum256(message)
	signature, err := ecdsa.SignASN1(rand.Reader, key, digest[:])
	return func() error {
		digest := sha256.Sum256(message)
		if !ecdsa.VerifyASN1(&key.PublicKey, digest[:], signature) {
			return errors.New("signature does not verify")
		}
		return nil
	}, err
}

func primitiveSignRSA(size int) (func() error, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	message := randomBytes(size)
	return func() error {
		digest := sha256.Sum256(message)
		_, err := rsa.SignPSS(rand.Reader, key, crypto.SHA256, digest[:], &rsa.PSSOptions{SaltLength: rsa.PSSSaltLengthEqualsHash})
		return err
	}, err
}

func primitiveDecryptRSA(size int) (func() error, error) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		return nil, err
	}
	ciphertext, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, &key.PublicKey, randomBytes(min(size, maxOAEP)), nil)
	return func() error {
		_, err := rsa.DecryptOAEP(sha256.New(), nil, key, ciphertext, nil)
		return err
	}, err
}

// primitiveCPU returns what one call of once costs, in microseconds of CPU time,
// while as many callers as there are processors call it: the processors are as
// busy as under a server and its clients.
func primitiveCPU(once func() error, l limit) (float64, error) {
	own := []int{os.Getpid()}
	before, err := cpuTime(own)
	if err != nil {
		return 0, err
	}
	callers := runtime.GOMAXPROCS(0)
	counts, errs := make([]int, callers), make([]error, callers)
	end := time.Now().Add(l.duration)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			for n := 0; errs[i] == nil && (l.count == 0 && time.Now().Before(end) || n < l.count); n++ {
				errs[i] = once()
				counts[i]++
			}
		})
	}
	wg.Wait()
	after, err := cpuTime(own)
	if err = errors.Join(append(errs, err)...); err != nil {
		return 0, fmt.Errorf("primitive: %w", err)
	}
	total := 0
	for _, n := range counts {
		total += n
	}
	return micros(after-before) / float64(max(total, 1)), nil
}
