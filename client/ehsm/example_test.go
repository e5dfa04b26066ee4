package ehsm_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
)

func Example() {
	ctx := context.Background()
	client, err := ehsm.New(ehsm.Config{
		URL:         "https://127.0.0.1:9000",
		Fingerprint: os.Getenv("EHSM_FINGERPRINT"), // as the service printed it at its start
		AppID:       os.Getenv("EHSM_APPID"),
		APIKey:      ehsm.NewAPIKey(os.Getenv("EHSM_APIKEY")),
	})
	if err != nil {
		log.Fatal(err)
	}
	keyID, err := client.CreateKey(ctx, api.AESGCM256, api.EncryptDecrypt, api.InternalKey)
	if err != nil {
		log.Fatal(err)
	}
	ciphertext, err := client.Encrypt(ctx, keyID, []byte("attack at dawn"), []byte("campaign 3"))
	if err != nil {
		log.Fatal(err)
	}
	plaintext, err := client.Decrypt(ctx, keyID, ciphertext, []byte("campaign 3"))
	switch {
	case ehsm.IsKeyDisabled(err):
		log.Fatal("somebody disabled the key")
	case err != nil:
		log.Fatal(err)
	}
	fmt.Printf("%s\n", plaintext)
}

func ExampleClient_Enroll() {
	ctx := context.Background()
	anonymous, err := ehsm.New(ehsm.Config{URL: "https://kms.example:9000", CAFile: "ca.pem"})
	if err != nil {
		log.Fatal(err)
	}
	cred, err := anonymous.Enroll(ctx)
	if err != nil {
		log.Fatal(err)
	}
	// Keep cred.APIKey.Expose() where only you can read it.
	client := anonymous.With(cred)
	keys, err := client.ListKeys(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(keys), "keys")
}

func ExampleEnvelope() {
	ctx := context.Background()
	var client *ehsm.Client // from New
	const keyID = "aac3e45a-d3dc-4791-89b6-4ada0e38e6ef"
	envelope := client.Envelope(keyID, []byte("backup.tar"))

	encrypt := func(dst io.Writer, src io.Reader) error {
		w, err := envelope.Encrypt(ctx, dst)
		if err != nil {
			return err
		}
		if _, err := io.Copy(w, src); err != nil {
			return err
		}
		return w.Close() // without it the envelope is incomplete
	}
	decrypt := func(dst io.Writer, src io.Reader) error {
		r, err := envelope.Decrypt(ctx, src)
		if err != nil {
			return err
		}
		// What is written is genuine, but only a nil error says that it is all.
		_, err = io.Copy(dst, r)
		return err
	}
	_, _ = encrypt, decrypt
}

func ExampleClient_Signer() {
	ctx := context.Background()
	var client *ehsm.Client // from New
	keyID, err := client.CreateKey(ctx, api.ECP256, api.SignVerify, api.InternalKey)
	if err != nil {
		log.Fatal(err)
	}
	signer, err := client.Signer(ctx, keyID)
	if err != nil {
		log.Fatal(err)
	}
	// The private key of these certificates stays in the core.
	chain := [][]byte{ /* DER of the certificate and its issuers */ }
	server := &http.Server{TLSConfig: &tls.Config{
		Certificates: []tls.Certificate{{Certificate: chain, PrivateKey: signer}},
	}}
	log.Fatal(server.ListenAndServeTLS("", ""))
}

func ExampleClient_ImportKey() {
	ctx := context.Background()
	var client *ehsm.Client // from New
	keyID, err := client.CreateKey(ctx, api.AESGCM256, api.EncryptDecrypt, api.ExternalKey)
	if err != nil {
		log.Fatal(err)
	}
	material, err := os.ReadFile("own.key") // 32 bytes
	if err != nil {
		log.Fatal(err)
	}
	defer clear(material)
	if err := client.ImportKey(ctx, keyID, material); err != nil {
		log.Fatal(err)
	}
}

func ExampleClient_GetSecretValue() {
	ctx := context.Background()
	var client *ehsm.Client // from New
	secret, err := client.GetSecretValue(ctx, "db-password", 0)
	switch {
	case ehsm.IsSecretNotFound(err):
		log.Fatal("no such secret, or it is deleted")
	case err != nil:
		log.Fatal(err)
	}
	fmt.Println(secret)               // prints no value
	password := secret.Value.Expose() // this is it
	_ = password
}

// A service judges the quote of another enclave, which must be of a policy.
func ExampleClient_VerifyQuote() {
	ctx := context.Background()
	client, err := ehsm.New(ehsm.Config{URL: "https://kms.example:9000", CAFile: "ca.pem", AppID: os.Getenv("EHSM_APPID"), APIKey: ehsm.NewAPIKey(os.Getenv("EHSM_APIKEY"))})
	if err != nil {
		log.Fatal(err)
	}
	quote, err := os.ReadFile("peer.quote")
	if err != nil {
		log.Fatal(err)
	}
	verdict, err := client.VerifyQuote(ctx, quote, os.Getenv("POLICY_ID"))
	switch {
	case ehsm.IsQuoteRefused(err):
		log.Fatal("the peer is not what it should be")
	case err != nil:
		log.Fatal(err)
	}
	fmt.Println(verdict.MREnclave, verdict.TCBStatus)
}
