package config

import (
	"errors"
	"fmt"
	"strings"
)

// Core are the settings of ehsm-core. They are paths and sizes: what decides
// security comes from the manifest. They come from the environment only.
type Core struct {
	Listen   string // stream address for the manager
	Domain   string // directory with the genesis, later manifests and the sealed DomainKey
	Platform string // name of the TEE
	Sim      string // socket of ehsm-simtee

	DKeyCache  string   // stream address of the node's dkeycache; empty: a node of its own
	DomainID   [32]byte // that the domain must have; zero: any
	Collateral string   // file

	WholeNode bool // the manager is in the core's TEE

	Apps, Keys                int // opened records in memory
	ReplaysPerTenant, Replays int // remembered requests
	Seen                      int // changed records whose revision is remembered
	Facts                     int // records that negative facts are about
	Pending                   int // answers whose writes are being stored
	Workers                   int // expensive calls of one tenant at a time, 0: one per processor
}

func (c *Core) table() []setting {
	return []setting{
		{"EHSM_CORE_LISTEN", "unix:/run/ehsm/core.sock", "address for the manager: unix:/PATH or tcp:127.0.0.1:PORT", address(&c.Listen)},
		{"EHSM_CORE_DOMAIN", "/var/lib/ehsm/domain", "directory with genesis.json, manifest-N.json and domainkey.sealed; not with EHSM_CORE_DKEYCACHE", text(&c.Domain)},
		{"EHSM_CORE_DKEYCACHE", "", "address of this machine's ehsm-dkeycache, from which the core has the DomainKey and all manifests: unix:/PATH or tcp:127.0.0.1:PORT", address(&c.DKeyCache)},
		{"EHSM_CORE_DOMAIN_ID", "", "with EHSM_CORE_DKEYCACHE: domain id, 64 hex digits; a dkeycache of another domain is refused", domainID(&c.DomainID)},
		{"EHSM_CORE_COLLATERAL", "", "with EHSM_CORE_DKEYCACHE, on platforms without local reports (tsm): file with the collateral of this machine's platform", text(&c.Collateral)},
		{"EHSM_CORE_PLATFORM", "sim", "the TEE: gramine, or ego or tsm where built in, or sim, a simulation that protects nothing", text(&c.Platform)},
		{"EHSM_CORE_SIM", "", "socket of ehsm-simtee, for platform sim", text(&c.Sim)},
		{"EHSM_CORE_WHOLE_NODE", "no", "yes: the manager is in the same TEE, a virtual machine that is measured as a whole, and the core vouches for its TLS key; with platform tsm or sim, and a unix socket to listen on", yes(&c.WholeNode)},
		{"EHSM_CORE_APPS", "16384", "opened tenants kept in memory", number(&c.Apps, 16)},
		{"EHSM_CORE_KEYS", "65536", "opened keys kept in memory", number(&c.Keys, 16)},
		{"EHSM_CORE_REPLAYS_PER_TENANT", "1572864", "requests remembered for one tenant, 16 bytes each", number(&c.ReplaysPerTenant, 1024)},
		{"EHSM_CORE_REPLAYS", "2097152", "requests remembered in total", number(&c.Replays, 1024)},
		{"EHSM_CORE_SEEN", "262144", "changed records whose newest revision is remembered", number(&c.Seen, 1024)},
		{"EHSM_CORE_FACTS", "4194304", "records that may have been disabled or deleted: the core remembers all of them, about 80 bytes each; when there are more, it refuses to disable and delete others, and one that starts serves nothing", number(&c.Facts, 1024)},
		{"EHSM_CORE_PENDING", "4096", "changes that wait for the store at a time", number(&c.Pending, 16)},
		{"EHSM_CORE_WORKERS", "0", "expensive calls of one tenant at a time, one more for several tenants; 0: one for each processor", number(&c.Workers, 0)},
	}
}

// TEE is that of DKeyServer.
func (c Core) TEE() (platform, socket string) { return c.Platform, c.Sim }

// LoadCore reads and checks all settings. Errors name each one that is wrong.
func LoadCore(getenv func(string) string) (Core, error) {
	var c Core
	errs := []error{load(c.table(), getenv)}
	if c.Platform == "sim" && c.Sim == "" {
		errs = append(errs, missing("EHSM_CORE_SIM", "name the socket of ehsm-simtee, which serves a simulated machine such as ehsm dev makes"))
	}
	switch {
	case c.WholeNode && c.Platform != "tsm" && c.Platform != "sim":
		errs = append(errs, fmt.Errorf("%w: EHSM_CORE_WHOLE_NODE is for guests; the manager of an enclave is outside of it and its TLS key is the host's", ErrSetting))
	case c.WholeNode && !strings.HasPrefix(c.Listen, "unix:"):
		errs = append(errs, fmt.Errorf("%w: EHSM_CORE_WHOLE_NODE needs a unix socket in EHSM_CORE_LISTEN; others may be reached from outside of the TEE", ErrSetting))
	}
	switch {
	case c.DKeyCache != "" && getenv("EHSM_CORE_DOMAIN") != "":
		errs = append(errs, fmt.Errorf("%w: EHSM_CORE_DOMAIN and EHSM_CORE_DKEYCACHE are both set; the DomainKey comes from one of them", ErrSetting))
	case c.DKeyCache == "" && c.DomainID != [32]byte{}:
		errs = append(errs, fmt.Errorf("%w: EHSM_CORE_DOMAIN_ID is for EHSM_CORE_DKEYCACHE, which is not set", ErrSetting))
	case c.DKeyCache == "" && c.Collateral != "":
		errs = append(errs, fmt.Errorf("%w: EHSM_CORE_COLLATERAL is for EHSM_CORE_DKEYCACHE, which is not set", ErrSetting))
	case c.DKeyCache != "" && c.Platform == "tsm" && c.Collateral == "":
		errs = append(errs, missing("EHSM_CORE_COLLATERAL", "name the file, as ehsm attest collateral writes it"))
	}
	return c, errors.Join(errs...)
}

// DescribeCore lists the settings for --help.
func DescribeCore() string { return describe(new(Core).table()) }
