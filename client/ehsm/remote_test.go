package ehsm_test

import (
	"bytes"
	"crypto"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"math/big"
	"net"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsmtest"
)

func newKey(t *testing.T, c *ehsm.Client, spec api.KeySpec, usage api.KeyUsage, paddings ...api.PaddingMode) string {
	t.Helper()
	id, err := c.CreateKey(t.Context(), spec, usage, api.InternalKey, paddings...)
	if err != nil {
		t.Fatalf("CreateKey %s: %v", spec, err)
	}
	return id
}

// selfSign makes a certificate for 127.0.0.1 that the key itself signs.
func selfSign(t *testing.T, signer crypto.Signer, algorithm x509.SignatureAlgorithm) *x509.Certificate {
	t.Helper()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign, IsCA: true, BasicConstraintsValid: true,
		IPAddresses:        []net.IP{net.IPv4(127, 0, 0, 1)},
		SignatureAlgorithm: algorithm,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, signer.Public(), signer)
	if err != nil {
		t.Fatalf("CreateCertificate: %v", err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatalf("ParseCertificate: %v", err)
	}
	return cert
}

// handshake has a TLS server use the key, and returns what the client saw.
func handshake(t *testing.T, signer crypto.Signer, cert *x509.Certificate, version uint16) (tls.ConnectionState, error) {
	t.Helper()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{cert.Raw}, PrivateKey: signer}},
		MinVersion:   version, MaxVersion: version,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		io.WriteString(conn, "hello")
		conn.Close()
	}()
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	conn, err := tls.Dial("tcp", l.Addr().String(), &tls.Config{RootCAs: roots})
	if err != nil {
		return tls.ConnectionState{}, err
	}
	defer conn.Close()
	if b, err := io.ReadAll(conn); string(b) != "hello" {
		t.Errorf("read: got %q, %v", b, err)
	}
	return conn.ConnectionState(), nil
}

// A key of the service is the private key of a TLS server, which signs PKCS#1
// v1.5, PSS (as TLS 1.3 needs it of RSA) and ECDSA.
func TestSigner(t *testing.T) {
	kms := ehsmtest.New(t)
	for _, tt := range []struct {
		spec       api.KeySpec
		algorithms []x509.SignatureAlgorithm
	}{
		{api.RSA2048, []x509.SignatureAlgorithm{x509.SHA256WithRSA, x509.SHA512WithRSA, x509.SHA256WithRSAPSS, x509.SHA384WithRSAPSS}},
		{api.ECP256, []x509.SignatureAlgorithm{x509.ECDSAWithSHA256, x509.ECDSAWithSHA512}},
		{api.ECP384, []x509.SignatureAlgorithm{x509.ECDSAWithSHA384}},
		{api.ECP521, []x509.SignatureAlgorithm{x509.ECDSAWithSHA512}},
	} {
		t.Run(string(tt.spec), func(t *testing.T) {
			t.Parallel()
			signer, err := kms.Client.Signer(t.Context(), newKey(t, kms.Client, tt.spec, api.SignVerify))
			if err != nil {
				t.Fatal(err)
			}
			var cert *x509.Certificate
			for _, algorithm := range tt.algorithms {
				cert = selfSign(t, signer, algorithm)
				if err := cert.CheckSignature(algorithm, cert.RawTBSCertificate, cert.Signature); err != nil {
					t.Errorf("%v: %v", algorithm, err)
				}
			}
			for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
				state, err := handshake(t, signer, cert, version)
				if err != nil || state.Version != version {
					t.Errorf("handshake with %s: got %s, %v", tls.VersionName(version), tls.VersionName(state.Version), err)
				}
			}
		})
	}
}

// What the owner takes away, a server loses at once.
func TestSignerOfADisabledKey(t *testing.T) {
	kms := ehsmtest.New(t)
	id := newKey(t, kms.Client, api.ECP256, api.SignVerify)
	signer, err := kms.Client.Signer(t.Context(), id)
	if err != nil || signer.KeyID() != id {
		t.Fatalf("Signer: got key %s, %v", signer.KeyID(), err)
	}
	cert := selfSign(t, signer, x509.ECDSAWithSHA256)
	if err := kms.Client.DisableKey(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if _, err := handshake(t, signer, cert, tls.VersionTLS13); err == nil {
		t.Error("handshake with a disabled key: got no error")
	}
	digest := sha256.Sum256(nil)
	if _, err := signer.Sign(nil, digest[:], crypto.SHA256); !ehsm.IsKeyDisabled(err) {
		t.Errorf("Sign with a disabled key: got %v", err)
	}
	if _, err := kms.Client.Signer(t.Context(), id); !ehsm.IsKeyDisabled(err) {
		t.Errorf("Signer of a disabled key: got %v", err)
	}
	if _, err := kms.Enroll(t).Signer(t.Context(), id); !ehsm.IsKeyNotFound(err) {
		t.Errorf("Signer of another tenant's key: got %v", err)
	}
	for _, spec := range []api.KeySpec{api.ECP256K, api.SM2} {
		if _, err := kms.Client.Signer(t.Context(), newKey(t, kms.Client, spec, api.SignVerify)); err == nil {
			t.Errorf("Signer of a key of %s: got no error", spec)
		}
	}
}

func TestDecrypter(t *testing.T) {
	kms := ehsmtest.New(t)
	d, err := kms.Client.Decrypter(t.Context(), newKey(t, kms.Client, api.RSA2048, api.EncryptDecrypt))
	if err != nil {
		t.Fatal(err)
	}
	public := d.Public().(*rsa.PublicKey)
	want := []byte("attack at dawn")
	oaep, err := rsa.EncryptOAEP(sha256.New(), rand.Reader, public, want, nil)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 the API has this padding
	pkcs1, err := rsa.EncryptPKCS1v15(rand.Reader, public, want)
	if err != nil {
		t.Fatal(err)
	}
	own, err := kms.Client.AsymmetricEncrypt(t.Context(), d.KeyID(), want, "")
	if err != nil {
		t.Fatal(err)
	}
	byOAEP := &rsa.OAEPOptions{Hash: crypto.SHA256}
	for _, tt := range []struct {
		name       string
		ciphertext []byte
		opts       crypto.DecrypterOpts
	}{
		{"OAEP", oaep, byOAEP},
		{"OAEP of the service", own, byOAEP},
		{"PKCS#1", pkcs1, nil},
		//lint:ignore SA1019 the API has this padding
		{"PKCS#1 with options", pkcs1, &rsa.PKCS1v15DecryptOptions{}},
	} {
		if got, err := d.Decrypt(nil, tt.ciphertext, tt.opts); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: got %q, %v", tt.name, got, err)
		}
	}
	oaep[7] ^= 1
	for name, ct := range map[string][]byte{"flipped": oaep, "other padding": pkcs1, "short": own[1:]} {
		if got, err := d.Decrypt(nil, ct, byOAEP); !ehsm.IsDecryptionFailed(err) {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
}

// Every kind of key signs with the options' zero value, and knows its signatures.
func TestSignMessage(t *testing.T) {
	kms := ehsmtest.New(t)
	message := []byte("pay 10 to Bob")
	for _, spec := range []api.KeySpec{api.RSA2048, api.ECP224, api.ECP256K, api.SM2, api.HMAC} {
		t.Run(string(spec), func(t *testing.T) {
			t.Parallel()
			c := kms.Client
			id := newKey(t, c, spec, api.SignVerify)
			sig, err := c.SignMessage(t.Context(), id, message, ehsm.SignatureOptions{})
			if err != nil {
				t.Fatal(err)
			}
			good, err := c.VerifyMessage(t.Context(), id, message, sig, ehsm.SignatureOptions{})
			if !good || err != nil {
				t.Errorf("Verify: got %v, %v", good, err)
			}
			bad, err := c.VerifyMessage(t.Context(), id, []byte("pay 99 to Bob"), sig, ehsm.SignatureOptions{})
			if bad || err != nil {
				t.Errorf("Verify another message: got %v, %v", bad, err)
			}
			if spec == api.SM2 || spec == api.HMAC {
				return
			}
			digest := sha256.Sum256(message)
			good, err = c.VerifyDigest(t.Context(), id, digest[:], sig, ehsm.SignatureOptions{Digest: api.SHA256})
			if !good || err != nil {
				t.Errorf("VerifyDigest: got %v, %v", good, err)
			}
		})
	}
}

// A key that admits one padding refuses the other.
func TestPaddings(t *testing.T) {
	c := ehsmtest.New(t).Client
	id := newKey(t, c, api.RSA2048, api.SignVerify, api.PKCS1)
	if _, err := c.SignMessage(t.Context(), id, []byte("m"), ehsm.SignatureOptions{Padding: api.PKCS1}); err != nil {
		t.Errorf("Sign with PKCS1: %v", err)
	}
	var refusal *api.Error
	if _, err := c.SignMessage(t.Context(), id, []byte("m"), ehsm.SignatureOptions{}); !errors.As(err, &refusal) || refusal.Message != api.MessageException {
		t.Errorf("Sign with PSS: got %v", err)
	}
}

// A data key leaves for a key pair that only its receiver has.
func TestExportDataKey(t *testing.T) {
	c := ehsmtest.New(t).Client
	id := newKey(t, c, api.AESGCM256, api.EncryptDecrypt)
	want, wrapped, err := c.GenerateDataKey(t.Context(), id, 32, []byte("disk"))
	if err != nil {
		t.Fatal(err)
	}
	receiver, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	text := pem.EncodeToMemory(&pem.Block{Type: "RSA PUBLIC KEY", Bytes: x509.MarshalPKCS1PublicKey(&receiver.PublicKey)})
	to := ehsm.ExportTarget{PublicKey: string(text)}
	exported, err := c.ExportDataKey(t.Context(), id, wrapped, []byte("disk"), to)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := rsa.DecryptOAEP(sha256.New(), nil, receiver, exported, nil); err != nil || !bytes.Equal(got, want) {
		t.Errorf("exported: got %x, %v, want the data key", got, err)
	}
	sm2 := newKey(t, c, api.SM2, api.EncryptDecrypt)
	if exported, err = c.ExportDataKey(t.Context(), id, wrapped, []byte("disk"), ehsm.ExportTarget{KeyID: sm2}); err != nil {
		t.Fatal(err)
	}
	if got, err := c.AsymmetricDecrypt(t.Context(), sm2, exported, ""); err != nil || !bytes.Equal(got, want) {
		t.Errorf("exported to SM2: got %x, %v, want the data key", got, err)
	}
	if _, err := c.ExportDataKey(t.Context(), id, wrapped, nil, to); !ehsm.IsExportFailed(err) {
		t.Errorf("other additional data: got %v", err)
	}
}

func TestImportKey(t *testing.T) {
	c := ehsmtest.New(t).Client
	id, err := c.CreateKey(t.Context(), api.AESGCM256, api.EncryptDecrypt, api.ExternalKey)
	if err != nil {
		t.Fatal(err)
	}
	material := bytes.Repeat([]byte{7}, 32)
	p, err := c.ParametersForImport(t.Context(), id, api.RSA2048)
	if err != nil {
		t.Fatal(err)
	}
	//lint:ignore SA1019 the API has this padding
	wrapped, err := rsa.EncryptPKCS1v15(rand.Reader, p.PublicKey, material[:16])
	if err != nil {
		t.Fatal(err)
	}
	if err := c.ImportKeyMaterial(t.Context(), id, wrapped, api.PKCS1, p.Token); !ehsm.IsImportFailed(err) {
		t.Errorf("16 bytes for AES-256: got %v", err)
	}
	if err := c.ImportKey(t.Context(), id, material); err != nil {
		t.Fatalf("ImportKey: %v", err)
	}
	if err := c.ImportKeyMaterial(t.Context(), id, wrapped, api.PKCS1, p.Token); !ehsm.IsImportToken(err) {
		t.Errorf("old token: got %v", err)
	}
	ct, err := c.Encrypt(t.Context(), id, []byte("hello"), nil)
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Decrypt(t.Context(), id, ct, nil); err != nil || string(got) != "hello" {
		t.Errorf("Decrypt: got %q, %v", got, err)
	}
}

// Any text comes back as it was, and a secret's life ends as planned.
func TestSecrets(t *testing.T) {
	c := ehsmtest.New(t).Client
	ctx := t.Context()
	const name = " db\n\"pass\\word\"=&+%\u00e9\U0001f511\u2028<>"
	first, second := "\r\n\t\v\f\"'\\/\x00\u007f ", "hunter2"
	if err := c.CreateSecret(ctx, name, ehsm.NewSecretValue(first), ehsm.SecretOptions{Description: "d\n", RotationInterval: "7d"}); err != nil {
		t.Fatal(err)
	}
	if err := c.CreateSecret(ctx, name, ehsm.NewSecretValue(first), ehsm.SecretOptions{}); !ehsm.IsSecretExists(err) {
		t.Errorf("second CreateSecret: got %v", err)
	}
	if err := c.PutSecretValue(ctx, name, ehsm.NewSecretValue(second)); err != nil {
		t.Fatal(err)
	}
	for version, want := range map[int]string{0: second, 1: first, 2: second} {
		if s, err := c.GetSecretValue(ctx, name, version); err != nil || s.Value.Expose() != want || s.Name != name {
			t.Errorf("version %d: got %q of %q, %v", version, s.Value.Expose(), s.Name, err)
		}
	}
	if _, err := c.GetSecretValue(ctx, name, 3); !errors.Is(err, ehsm.ErrNoSecretVersion) {
		t.Errorf("version 3: got %v", err)
	}
	if v, err := c.ListSecretVersions(ctx, name); err != nil || len(v) != 2 || v[1].VersionID != 2 {
		t.Errorf("ListSecretVersions: got %v, %v", v, err)
	}
	if d, err := c.DescribeSecret(ctx, name); err != nil || d.Description != "d\n" || d.RotationInterval != "7d" || d.NextRotationDate <= d.LastRotationDate {
		t.Errorf("DescribeSecret: got %+v, %v", d, err)
	}
	if err := c.UpdateSecretDescription(ctx, name, ""); err != nil {
		t.Error(err)
	}
	if err := c.DeleteSecret(ctx, name, 7); err != nil {
		t.Fatal(err)
	}
	if list, err := c.ListSecrets(ctx); err != nil || len(list) != 1 || list[0].PlannedDeleteTime == 0 || list[0].Description != "" {
		t.Errorf("ListSecrets: got %+v, %v", list, err)
	}
	if _, err := c.GetSecretValue(ctx, name, 0); !ehsm.IsSecretNotFound(err) {
		t.Errorf("deleted: got %v", err)
	}
	if err := c.PutSecretValue(ctx, name, ehsm.NewSecretValue("x")); !ehsm.IsSecretDeleted(err) {
		t.Errorf("put after deletion: got %v", err)
	}
	if err := c.RestoreSecret(ctx, name); err != nil {
		t.Error(err)
	}
	if err := c.DeleteSecretNow(ctx, name); err != nil {
		t.Error(err)
	}
	if _, err := c.DescribeSecret(ctx, name); !ehsm.IsSecretNotFound(err) {
		t.Errorf("gone: got %v", err)
	}
	if err := c.RestoreSecret(ctx, name); !ehsm.IsSecretNotFound(err) {
		t.Errorf("restore what is gone: got %v", err)
	}
}
