// Package provision is what the TEE programs of a domain say to each other over
// attested channels: manifests and dates go both ways, the DomainKey goes from
// dkeyservers to dkeycaches and other dkeyservers, and from a dkeycache to the
// cores of its node.
//
// It trusts what a quorum of operators has signed, and peers that package channel
// has attested under it. The host connects the programs and chooses nothing: it
// can keep them apart, or start them in a domain of its own, whose key is another
// one. The DomainKey is in plaintext only in the memory of a Holder; on its way it
// is sealed to the attested key of the peer, inside the channel.
//
// Protocol and state machine: docs/provisioning.md.
package provision

import (
	"errors"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// Errors of this package, wrapped with what was found.
var (
	// ErrMessage says that a message is malformed or not expected.
	ErrMessage = errors.New("message of the provisioning protocol refused")
	// ErrDomain says that a peer is of another domain than the wanted one.
	ErrDomain = errors.New("peer belongs to another domain")
	// ErrRemoved says that the manifest does not admit this program or machine.
	ErrRemoved = errors.New("the domain's manifest does not admit this program on this machine")
	// ErrNoKeys says that the DomainKey is not here, or not yet.
	ErrNoKeys = errors.New("the DomainKey is not here")
	// ErrForeignKeys says that a DomainKey was offered that does not continue the
	// one that is held.
	ErrForeignKeys = errors.New("another DomainKey than the one that is held")
	// ErrLease says that no dkeyserver was reached for too long.
	ErrLease = errors.New("the lease on the DomainKey has ended")
)

// Timing of the protocol.
const (
	// Heartbeat is how often a client shows that it is there, unless its Client
	// says otherwise.
	Heartbeat = 5 * time.Second
	// silence is for how long a server keeps a client that says nothing.
	silence = time.Minute
	// answerTime bounds the introduction and each answer.
	answerTime = 15 * time.Second
	// attestEvery is how often a peer proves itself again.
	attestEvery = time.Hour
)

// keysLabel is that of sealed keys on a channel.
const keysLabel = "ehsm/provision-keys/v1"

// servers returns the roles that may hand the DomainKey to a role, and clients
// those that may ask a role for it.
func servers(r channel.Role) []channel.Role {
	if r == channel.Core {
		return []channel.Role{channel.DKeyCache}
	}
	return []channel.Role{channel.DKeyServer}
}

func clients(r channel.Role) []channel.Role {
	if r == channel.DKeyCache {
		return []channel.Role{channel.Core}
	}
	return []channel.Role{channel.DKeyCache, channel.DKeyServer}
}
