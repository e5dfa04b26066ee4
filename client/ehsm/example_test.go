package ehsm_test

import (
	"context"
	"fmt"
	"io"
	"log"
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
