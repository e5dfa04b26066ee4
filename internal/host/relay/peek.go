package relay

import (
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// names is what a request appears to be about. The relay reads it only to know
// which rows to fetch: a wrong guess costs a round trip, never a decision.
type names struct {
	tenant  wire.UUID
	keys    [3]key    // keyid, ukeyid and encryptionKeyId
	secret  wire.UUID // ID of the record that secretName names; zero: none
	session wire.UUID // ID of the key whose import session is needed; zero: none
	policy  wire.UUID // ID of a quote policy; zero: none
	login   bool      // it is signed by a workload that has logged in: settings of the tenant
	signer  wire.UUID // of a key pair its id, of a login the tenant; zero: an API key, or not told
	n       int       // how many of keys are set
}

// A key is a CMK that a request names.
type key struct {
	id      wire.UUID
	version uint32 // that the request's ciphertext was made with; 0: the primary one
}

// peek reads the names out of a raw request, or out of the outer part of a sealed
// one, which has them in the same places. It reports false where there is
// nothing to fetch: the core has the text for every request that cannot be
// read, so those go to it without records.
func peek(action string, body []byte) (n names, ok bool) {
	var appid, payload, credential []byte
	for name, value := range members(body) {
		switch string(name) {
		case "appid":
			appid = value
		case "payload":
			payload = value
		case api.CredentialMember:
			credential = value
		}
	}
	n.login = strings.HasPrefix(text(credential), api.LoginTokenPrefix)
	var err error
	if n.tenant, err = wire.ParseUUID(text(appid)); err != nil {
		return n, false
	}
	if n.login {
		n.signer = n.tenant
	} else if id, err := wire.ParseUUID(text(credential)); err == nil {
		n.signer = id
	}
	n.look(action, payload)
	return n, true
}

// look reads the names out of a payload. Of several members with one name the
// last one counts, as it does for the core.
func (n *names) look(action string, payload []byte) {
	var ids [len(n.keys)][]byte
	var secretName, secretID, policyID, ciphertext []byte
	for name, value := range members(payload) {
		switch string(name) {
		case "keyid":
			ids[0] = value
		case "ukeyid":
			ids[1] = value
		case "encryptionKeyId":
			ids[2] = value
		case "secretName":
			secretName = value
		case "secretId": // of a sealed request
			secretID = value
		case "policyId":
			policyID = value
		default:
			if opens(action, name) && len(value) > messageText {
				ciphertext = first(value)
			}
		}
	}
	if id, err := wire.ParseUUID(text(ids[0])); err == nil {
		n.add(key{id, messageVersion(text(ciphertext), id)})
		if action == "GetParametersForImport" || action == "ImportKeyMaterial" {
			n.session = id
		}
	}
	for _, value := range ids[1:] {
		if id, err := wire.ParseUUID(text(value)); err == nil {
			n.add(key{id: id})
		}
	}
	if id, err := wire.ParseUUID(text(secretID)); err == nil {
		n.secret = id
	}
	if name := text(secretName); name != "" {
		n.secret = wire.SecretID(n.tenant, name)
	}
	if id, err := wire.ParseUUID(text(policyID)); err == nil {
		n.policy = id
	}
}

// add takes a key, unless it is there already.
func (n *names) add(k key) {
	for _, have := range n.keys[:n.n] {
		if have.id == k.id {
			return
		}
	}
	n.keys[n.n] = k
	n.n++
}

// opens reports whether an action opens, with the key keyid, the ciphertext in the
// member of this name. If it was made with that key it names the version.
func opens(action string, name []byte) bool {
	switch action {
	case api.Decrypt, api.ReEncrypt:
		return string(name) == "ciphertext"
	case api.BatchDecrypt, api.BatchReEncrypt:
		return string(name) == "ciphertexts" // of which the first one tells
	case "ExportDataKey":
		return string(name) == "olddatakey_base" || string(name) == "olddatakey" || string(name) == "old_data_key"
	}
	return false
}

// first returns the first element of an array of texts, and any other value as it is.
func first(value []byte) []byte {
	rest, ok := after(value, '[')
	if !ok {
		return value
	}
	rest = space(rest)
	return rest[:valueLen(rest)]
}

const (
	messageFormat = 1                   // first byte of a symmetric ciphertext
	messageHead   = 1 + 16 + 4          // bytes: format, key id, key version
	messageText   = messageHead / 3 * 4 // characters of base64 that hold them
)

// messageVersion reads the key version from the head of a ciphertext in base64.
// Layout: docs/formats.md#ciphertext-v1.
func messageVersion(text string, id wire.UUID) uint32 {
	if len(text) < messageText {
		return 0
	}
	var head [messageHead]byte
	if _, err := base64.StdEncoding.Decode(head[:], []byte(text[:messageText])); err != nil {
		return 0
	}
	if head[0] != messageFormat || wire.UUID(head[1:17]) != id {
		return 0
	}
	return binary.BigEndian.Uint32(head[17:])
}

// records lists what the request names apart from key versions: the app, the
// keys, the secret, the import session, the quote policy, the tenant's settings.
func (n *names) records(dst []wire.RecordID) []wire.RecordID {
	dst = append(dst, wire.RecordID{Type: wire.App, Tenant: n.tenant, ID: n.tenant})
	for _, k := range n.keys[:n.n] {
		dst = append(dst, wire.RecordID{Type: wire.Key, Tenant: n.tenant, ID: k.id})
	}
	if n.hasSecret() {
		dst = append(dst, n.secretRecord())
	}
	if n.session != (wire.UUID{}) {
		dst = append(dst, wire.RecordID{Type: wire.ImportSession, Tenant: n.tenant, ID: n.session})
	}
	if n.policy != (wire.UUID{}) {
		dst = append(dst, wire.RecordID{Type: wire.QuotePolicy, Tenant: n.tenant, ID: n.policy})
	}
	if n.login {
		dst = append(dst, wire.RecordID{Type: wire.TenantSettings, Tenant: n.tenant, ID: n.tenant})
	}
	return dst
}

// signed names the signer of the request, for its hints.
func (n *names) signed() wire.RecordID {
	return wire.RecordID{Type: wire.Policy, Tenant: n.tenant, ID: n.signer}
}

// hasSecret reports whether the request names a secret.
func (n *names) hasSecret() bool { return n.secret != (wire.UUID{}) }

func (n *names) secretRecord() wire.RecordID {
	return wire.RecordID{Type: wire.Secret, Tenant: n.tenant, ID: n.secret}
}

// material names the key version that the request needs of its key i, whose
// primary version is given. A key without material has none.
func (n *names) material(i int, primary uint32) (wire.RecordID, bool) {
	k := n.keys[i]
	if k.version == 0 {
		k.version = primary
	}
	return wire.RecordID{Type: wire.KeyVersion, Tenant: n.tenant, ID: k.id, Version: k.version}, k.version != 0
}
