package config

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"time"
)

// KMS are the settings of ehsm-kms.
type KMS struct {
	Listen           string // host:port for clients
	Core             string // stream address of the core
	Database         string // SQLite file, or URL of a PostgreSQL database
	DatabasePassword string // file, for PostgreSQL
	Audit            string // directory of the audit trail
	Metrics          string // host:port of /metrics, "" for none
	TLSCert          string // PEM file, certificate first
	TLSKey           string // PEM file
	TLSAttested      bool   // the core vouches for a key that is made at each start

	MaxBody             int // bytes of a request
	MaxBatchBody        int // bytes of a batch
	Connections         int // from clients
	Concurrent          int // requests at a time
	CachedRows          int // rows of the store in memory
	DatabaseConnections int // to PostgreSQL

	RewrapShare int // percent of the time

	StaleGrace time.Duration // for which remembered rows count, with PostgreSQL

	Collateral Collateral // for verifying quotes

	HeaderTimeout, BodyTimeout, IdleTimeout, ShutdownTimeout, StoreTimeout time.Duration

	certPEM, keyPEM []byte // from the variables of earlier servers
}

func (c *KMS) table() []setting {
	return append([]setting{
		{"EHSM_KMS_LISTEN", "0.0.0.0:9000", "host:port for clients, HTTPS", text(&c.Listen)},
		{"EHSM_KMS_CORE", "unix:/run/ehsm/core.sock", "address of the core: unix:/PATH or tcp:127.0.0.1:PORT", address(&c.Core)},
		{"EHSM_KMS_DATABASE", "/var/lib/ehsm/ehsm.db", "where the sealed records are: the path of a SQLite file, for one node, or postgres://USER@HOST/DATABASE for several; TLS that proves the host's name is the default (sslmode=verify-full)", text(&c.Database)},
		{"EHSM_KMS_DATABASE_PASSWORD_FILE", "", "file with the password of the PostgreSQL database, if its URL has none", text(&c.DatabasePassword)},
		{"EHSM_KMS_DATABASE_CONNECTIONS", "16", "connections to the PostgreSQL database for requests; two more follow its changes, and three are for background work", number(&c.DatabaseConnections, 2)},
		{"EHSM_KMS_STALE_GRACE", "1s", "with PostgreSQL: how long after it was last asked for the changes of other nodes remembered rows count; the bound on how late a disabled key is refused here", span(&c.StaleGrace)},
		{"EHSM_KMS_REWRAP_SHARE", "20", "percent of the time that may go into wrapping records anew after the DomainKey was rotated, 1 to 100", number(&c.RewrapShare, 1)},
		{"EHSM_KMS_AUDIT", "/var/lib/ehsm/audit", "directory of the audit trail", text(&c.Audit)},
		{"EHSM_KMS_METRICS", "", "host:port for /metrics, plain HTTP; empty: there are none", text(&c.Metrics)},
		{"EHSM_KMS_TLS_CERT", "", "PEM file of the server's certificate and its chain", text(&c.TLSCert)},
		{"EHSM_KMS_TLS_KEY", "", "PEM file of its private key", text(&c.TLSKey)},
		{"EHSM_KMS_TLS_ATTESTED", "no", "yes: in place of these files, a key that is made at each start and a certificate with evidence of the core (RA-TLS); only in a guest with a core of EHSM_CORE_WHOLE_NODE", yes(&c.TLSAttested)},
		{"EHSM_CONFIG_OPENSSL_CRT", "", "the certificate itself, base64 of PEM, in place of EHSM_KMS_TLS_CERT", encoded(&c.certPEM)},
		{"EHSM_CONFIG_OPENSSL_KEY", "", "the private key itself, base64 of PEM, in place of EHSM_KMS_TLS_KEY", encoded(&c.keyPEM)},
		{"EHSM_KMS_MAX_BODY", "102400", "bytes of a request body", number(&c.MaxBody, 1024)},
		{"EHSM_KMS_MAX_BATCH_BODY", "8388608", "bytes of the body of a batch, at most 8 MiB", number(&c.MaxBatchBody, 1024)},
		{"EHSM_KMS_CONNECTIONS", "4096", "connections from clients; further ones are closed", number(&c.Connections, 1)},
		{"EHSM_KMS_CONCURRENT", "1024", "requests at a time, of which half of one tenant may wait for its turn; further ones get code 429", number(&c.Concurrent, 1)},
		{"EHSM_KMS_CACHED_ROWS", "65536", "rows of the store kept in memory, about 200 bytes each", number(&c.CachedRows, 32)},
		{"EHSM_KMS_HEADER_TIMEOUT", "5s", "for the header of a request", span(&c.HeaderTimeout)},
		{"EHSM_KMS_BODY_TIMEOUT", "15s", "for its body", span(&c.BodyTimeout)},
		{"EHSM_KMS_IDLE_TIMEOUT", "2m", "between two requests of a connection", span(&c.IdleTimeout)},
		{"EHSM_KMS_SHUTDOWN_TIMEOUT", "15s", "for requests in flight when the program ends", span(&c.ShutdownTimeout)},
		{"EHSM_KMS_STORE_TIMEOUT", "10s", "for all that one request reads and changes in the database; 2s at most while that does not answer", span(&c.StoreTimeout)},
	}, c.Collateral.table()...)
}

// encoded takes base64 of a PEM text.
func encoded(v *[]byte) func(string) error {
	return func(s string) (err error) {
		if *v, err = base64.StdEncoding.DecodeString(s); err != nil {
			return errors.New("not base64") // the text is not repeated: it may be a private key
		}
		return nil
	}
}

// LoadKMS reads and checks all settings. Errors name each one that is wrong.
func LoadKMS(getenv func(string) string) (KMS, error) {
	var c KMS
	errs := []error{load(c.table(), getenv), c.Collateral.check()}
	if c.TLSAttested {
		if c.TLSCert != "" || c.TLSKey != "" || c.certPEM != nil || c.keyPEM != nil {
			errs = append(errs, fmt.Errorf("%w: EHSM_KMS_TLS_ATTESTED with a certificate or key: the core vouches for none that was anywhere before", ErrSetting))
		}
		return c, errors.Join(errs...)
	}
	if c.TLSCert == "" && c.certPEM == nil {
		errs = append(errs, missing("EHSM_KMS_TLS_CERT", "name the PEM file of the server's certificate"))
	}
	if c.TLSKey == "" && c.keyPEM == nil {
		errs = append(errs, missing("EHSM_KMS_TLS_KEY", "name the PEM file of its private key"))
	}
	return c, errors.Join(errs...)
}

// Certificate returns certificate chain and private key in PEM; not with TLSAttested.
func (c *KMS) Certificate() (cert, key []byte, err error) {
	read := func(inline []byte, path string) ([]byte, error) {
		if inline != nil {
			return inline, nil
		}
		return os.ReadFile(path)
	}
	if cert, err = read(c.certPEM, c.TLSCert); err != nil {
		return nil, nil, fmt.Errorf("read the TLS certificate: %w", err)
	}
	if key, err = read(c.keyPEM, c.TLSKey); err != nil {
		return nil, nil, fmt.Errorf("read the TLS key: %w", err)
	}
	return cert, key, nil
}

// DescribeKMS lists the settings for --help.
func DescribeKMS() string { return describe(new(KMS).table()) }
