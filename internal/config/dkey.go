package config

import (
	"cmp"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"
)

// Roles of a dkeyserver.
const (
	RoleRoot   = "root"   // has made the DomainKey and never takes another
	RoleWorker = "worker" // has it from another dkeyserver
)

// DKeyServer are the settings of ehsm-dkeyserver. They are paths, addresses and
// sizes, and in which domain the host wants it: what decides security comes from
// the manifest. They come from the environment only.
type DKeyServer struct {
	Listen      string // host:port
	Role        string // RoleRoot or RoleWorker
	Domain      string // directory with the manifests and the sealed DomainKey
	DomainID    [32]byte
	Peers       []string // host:port of other dkeyservers
	Platform    string   // name of the TEE
	Sim         string   // socket of ehsm-simtee
	HSM         string   // stream address of ehsm-hsm; empty: none
	Collateral  string   // file
	Door        string   // path of the socket for operators; empty: none
	Connections int
	Heartbeat   time.Duration
}

// NoDoor is the value of EHSM_DKEYSERVER_DOOR for none.
const NoDoor = "none"

func (c *DKeyServer) table() []setting {
	return []setting{
		{"EHSM_DKEYSERVER_LISTEN", "0.0.0.0:8888", "host:port for dkeycaches and other dkeyservers", endpoint(&c.Listen)},
		{"EHSM_DKEYSERVER_ROLE", RoleRoot, "root: has made the DomainKey, by ehsm-dkeyserver init, and never takes another; worker: has it from the dkeyservers in EHSM_DKEYSERVER_PEERS", oneOf(&c.Role, RoleRoot, RoleWorker)},
		{"EHSM_DKEYSERVER_DOMAIN", "/var/lib/ehsm/domain", "directory with genesis.json, later manifests as manifest-N.json, and domainkey.sealed; new manifests that are put there are taken at once", text(&c.Domain)},
		{"EHSM_DKEYSERVER_DOMAIN_ID", "", "domain id, 64 hex digits; a worker without manifests must have it, and a program of another domain ends", domainID(&c.DomainID)},
		{"EHSM_DKEYSERVER_PEERS", "", "of a worker, and of a root on a platform without seal keys: host:port of other dkeyservers that give it the DomainKey, by commas, best first", endpoints(&c.Peers)},
		{"EHSM_DKEYSERVER_PLATFORM", "sim", "the TEE: gramine, or ego or tsm where built in, or sim, a simulation that protects nothing", text(&c.Platform)},
		{"EHSM_DKEYSERVER_SIM", "", "socket of ehsm-simtee, for platform sim", text(&c.Sim)},
		{"EHSM_DKEYSERVER_HSM", "", "address of ehsm-hsm, for a domain whose root is hsm, and for no other: unix:/PATH or tcp:127.0.0.1:PORT", address(&c.HSM)},
		{"EHSM_DKEYSERVER_COLLATERAL", "", "file with the collateral of this machine's platform, which is sent to peers; read anew for each", text(&c.Collateral)},
		{"EHSM_DKEYSERVER_DOOR", "", "path of the unix socket at which ehsm domain status, admit, remove and submit ask; none: there is none. Without a value it is door.sock in the domain's directory; none in an enclave, whose sockets do not reach the host", text(&c.Door)},
		{"EHSM_DKEYSERVER_CONNECTIONS", "1024", "connections at a time; when there are more, the oldest that has not proved itself yet is closed", number(&c.Connections, 16)},
		{"EHSM_DKEYSERVER_HEARTBEAT", "5s", "of one with EHSM_DKEYSERVER_PEERS: how often it asks the other dkeyserver for what is new", beat(&c.Heartbeat)},
	}
}

// TEE returns where the program runs: the name of the platform, and the socket of
// ehsm-simtee.
func (c DKeyServer) TEE() (platform, socket string) { return c.Platform, c.Sim }

// LoadDKeyServer reads and checks all settings. Errors name each one that is wrong.
func LoadDKeyServer(getenv func(string) string) (DKeyServer, error) {
	var c DKeyServer
	errs := []error{load(c.table(), getenv)}
	switch {
	case c.Role == RoleWorker && len(c.Peers) == 0:
		errs = append(errs, missing("EHSM_DKEYSERVER_PEERS", "name the dkeyservers that a worker has the DomainKey from"))
	}
	errs = append(errs, needs("EHSM_DKEYSERVER", c.Platform, c.Sim, c.Collateral), c.door())
	return c, errors.Join(errs...)
}

// DoorFile is the name of the socket for operators in a domain's directory.
const DoorFile = "door.sock"

// door finds out where the socket for operators is.
func (c *DKeyServer) door() error {
	const longest = 107 // bytes of the path of a unix socket on Linux
	switch {
	case c.Door == NoDoor, c.Door == "" && (c.Platform == "gramine" || c.Platform == "ego"):
		c.Door = ""
		return nil
	case c.Door == "":
		c.Door = filepath.Join(c.Domain, DoorFile)
	}
	if len(c.Door) > longest {
		return fmt.Errorf("%w: EHSM_DKEYSERVER_DOOR: the path %s has %d bytes, and a socket's has at most %d; name a shorter one", ErrSetting, c.Door, len(c.Door), longest)
	}
	return nil
}

// DescribeDKeyServer lists the settings for --help.
func DescribeDKeyServer() string { return describe(new(DKeyServer).table()) }

// DKeyCache are the settings of ehsm-dkeycache, as those of DKeyServer.
type DKeyCache struct {
	Listen      string   // stream address for the cores of the node
	Servers     []string // host:port of dkeyservers
	DomainID    [32]byte
	Platform    string // name of the TEE
	Sim         string // socket of ehsm-simtee
	Collateral  string // file
	Connections int
	Heartbeat   time.Duration
}

func (c *DKeyCache) table() []setting {
	return []setting{
		{"EHSM_DKEYCACHE_LISTEN", defaultDKeyCache, "address for the cores of this machine: unix:/PATH or tcp:127.0.0.1:PORT", address(&c.Listen)},
		{"EHSM_DKEYCACHE_SERVERS", "", "host:port of dkeyservers, by commas, best first", endpoints(&c.Servers)},
		{"EHSM_DKEYCACHE_DOMAIN_ID", "", "domain id, 64 hex digits, as ehsm-dkeyserver init prints it; dkeyservers of other domains are refused", domainID(&c.DomainID)},
		{"EHSM_DKEYCACHE_PLATFORM", "sim", "the TEE: gramine, or ego or tsm where built in, or sim, a simulation that protects nothing", text(&c.Platform)},
		{"EHSM_DKEYCACHE_SIM", "", "socket of ehsm-simtee, for platform sim", text(&c.Sim)},
		{"EHSM_DKEYCACHE_COLLATERAL", "", "file with the collateral of this machine's platform, which is sent to peers; read anew for each", text(&c.Collateral)},
		{"EHSM_DKEYCACHE_CONNECTIONS", "256", "connections of cores at a time; when there are more, the oldest that has not proved itself yet is closed", number(&c.Connections, 16)},
		{"EHSM_DKEYCACHE_HEARTBEAT", "5s", "how often it asks its dkeyserver for what is new", beat(&c.Heartbeat)},
	}
}

// TEE is that of DKeyServer.
func (c DKeyCache) TEE() (platform, socket string) { return c.Platform, c.Sim }

const defaultDKeyCache = "unix:/run/ehsm/dkeycache.sock"

// DKeyCacheAddress returns network and address of this machine's dkeycache, as its
// settings have it; the others are not looked at. Errors: ErrAddress.
func DKeyCacheAddress(getenv func(string) string) (network, address string, err error) {
	return ParseAddress(cmp.Or(getenv("EHSM_DKEYCACHE_LISTEN"), defaultDKeyCache))
}

// LoadDKeyCache reads and checks all settings. Errors name each one that is wrong.
func LoadDKeyCache(getenv func(string) string) (DKeyCache, error) {
	var c DKeyCache
	errs := []error{load(c.table(), getenv)}
	if len(c.Servers) == 0 {
		errs = append(errs, missing("EHSM_DKEYCACHE_SERVERS", "name the dkeyservers of the domain"))
	}
	if c.DomainID == [32]byte{} {
		errs = append(errs, missing("EHSM_DKEYCACHE_DOMAIN_ID", "name the domain"))
	}
	errs = append(errs, needs("EHSM_DKEYCACHE", c.Platform, c.Sim, c.Collateral))
	return c, errors.Join(errs...)
}

// DescribeDKeyCache lists the settings for --help.
func DescribeDKeyCache() string { return describe(new(DKeyCache).table()) }

// needs checks what programs with remote channels must be told of their platform.
func needs(program, platform, sim, collateral string) error {
	var errs []error
	if platform == "sim" && sim == "" {
		errs = append(errs, missing(program+"_SIM", "name the socket of ehsm-simtee, which serves a simulated machine"))
	}
	if collateral == "" {
		errs = append(errs, missing(program+"_COLLATERAL", "name the file, as ehsm attest collateral or ehsm-simtee collateral writes it"))
	}
	return errors.Join(errs...)
}

// MostHeartbeat is the longest time between heartbeats: a server closes channels
// on which none came for a minute.
const MostHeartbeat = 30 * time.Second

func beat(v *time.Duration) func(string) error {
	take := span(v)
	return func(s string) error {
		if err := take(s); err != nil {
			return err
		}
		if *v < 100*time.Millisecond || *v > MostHeartbeat {
			return fmt.Errorf("want 100ms to %v", MostHeartbeat)
		}
		return nil
	}
}

// endpoint takes host:port.
func endpoint(v *string) func(string) error {
	return func(s string) error {
		_, port, err := net.SplitHostPort(s)
		if err == nil && port == "" {
			err = errors.New("no port")
		}
		if err != nil {
			return fmt.Errorf("want host:port: %w", err)
		}
		*v = s
		return nil
	}
}

func endpoints(v *[]string) func(string) error {
	return func(s string) error {
		var all []string
		for e := range strings.SplitSeq(s, ",") {
			var one string
			if err := endpoint(&one)(strings.TrimSpace(e)); err != nil {
				return err
			}
			all = append(all, one)
		}
		*v = all
		return nil
	}
}

func domainID(v *[32]byte) func(string) error {
	return func(s string) error {
		b, err := hex.DecodeString(s)
		if err != nil || len(b) != len(v) || hex.EncodeToString(b) != s {
			return errors.New("want 64 lower-case hex digits")
		}
		*v = [32]byte(b)
		return nil
	}
}
