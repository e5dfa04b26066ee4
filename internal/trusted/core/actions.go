package core

import (
	"cmp"
	"errors"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/canon"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// action is one row of the API.
type action struct {
	name          string
	cryptographic bool // a missing payload is a missing parameter
	mutates       bool // changes state: strict payload, shared replay entry, durable audit
	strict        bool // a payload with members that it does not know is refused
	named         bool // the payload must name the action
	owner         bool // for owners alone
	discloses     bool // hands out a stored secret: durable audit
	admin         bool // for administrators, and not for tenants
	members       []member
	run           func(*request) (result, error)
	storage       string // message when the store fails, "" for the general one
	storageCode   int    // with it, 0: 400
}

// storageError is the refusal of an action whose writes were not stored.
func (a *action) storageError() *refusal {
	if a.storage == "" {
		return errInternal("not stored")
	}
	return refuse(cmp.Or(a.storageCode, codeBad), a.storage, "not stored")
}

// actions is the whole signed API on one screen. Members are checked in the
// order they stand here.
func actions() map[string]*action {
	keyid := keyIDMember("keyid")
	aad := base64Member("aad", maxBase64).opt()
	// Which keys need these is known only when the key is.
	paddings := paddingNames()
	padding := member{name: "padding_mode", kind: kindName, names: paddings, optional: true}
	messageType := member{name: "message_type", kind: kindName, names: messageTypeNames(), optional: true}
	digest := member{name: "digest_mode", kind: kindName, names: digestNames(), optional: true}
	message := base64Member("message", maxBase64)
	version := versionMember().opt()
	table := []*action{
		{name: "CreateKey", cryptographic: true, mutates: true, run: (*request).createKey, storage: "create cmk failed", members: []member{
			{name: "keyspec", also: []string{"Keyspec"}, kind: kindName, names: primitive.SpecNames()},
			{name: "origin", kind: kindName, names: []string{originInternal, originExternal}},
			// A missing or wrong usage is not a validation error: createKey refuses it.
			{name: "keyusage", kind: kindAny, optional: true},
			{name: "padding_modes", kind: kindNames, names: paddings[1:], optional: true},
		}},
		{name: "Encrypt", cryptographic: true, run: (*request).encrypt, members: []member{
			keyid, base64Member("plaintext", maxBase64), aad, version}},
		{name: "Decrypt", cryptographic: true, run: (*request).decrypt, members: []member{
			keyid, base64Member("ciphertext", maxCiphertextText), aad}},
		{name: "GenerateDataKey", cryptographic: true, run: (*request).generateDataKey, members: []member{
			keyid, {name: "keylen", kind: kindInteger, min: 1, max: maxDataKey}, aad, version}},
		{name: "GenerateDataKeyWithoutPlaintext", cryptographic: true, run: (*request).generateDataKeyBlind, members: []member{
			keyid, {name: "keylen", kind: kindInteger, min: 1, max: maxDataKey}, aad, version}},
		{name: "AsymmetricEncrypt", cryptographic: true, run: (*request).asymmetricEncrypt, members: []member{
			keyid, base64Member("plaintext", maxBase64), padding, version}},
		{name: "AsymmetricDecrypt", cryptographic: true, run: (*request).asymmetricDecrypt, members: []member{
			keyid, base64Member("ciphertext", maxBase64), padding, version}},
		{name: "Sign", cryptographic: true, run: (*request).signMessage, members: []member{
			keyid, message, messageType, digest, padding, version}},
		{name: "Verify", cryptographic: true, run: (*request).verifyMessage, members: []member{
			keyid, message, messageType, digest, padding, base64Member("signature", maxBase64), version}},
		{name: "ExportDataKey", cryptographic: true, run: (*request).exportDataKey, members: []member{
			keyid, textMember("olddatakey_base").or("olddatakey", "old_data_key"),
			textMember("ukeyid").opt(), textMember("upubkey").opt(), aad, padding}},
		{name: "GetPublicKey", cryptographic: true, run: (*request).getPublicKey, members: []member{keyid, version}},
		{name: "GetParametersForImport", cryptographic: true, mutates: true, run: (*request).getParametersForImport,
			storage: textParameters, storageCode: codeInternal, members: []member{
				keyid, {name: "keyspec", also: []string{"Keyspec"}, kind: kindName, names: primitive.SpecNames()}}},
		{name: "ImportKeyMaterial", cryptographic: true, mutates: true, run: (*request).importKeyMaterial,
			storage: textImport, storageCode: codeInternal, members: []member{
				keyid, {name: "padding_mode", kind: kindName, names: paddings}, base64Member("key_material", maxBase64),
				// A missing token is refused like any other that is not genuine.
				textMember("importToken").or("ImportToken", "import_token").opt(),
				// Documented of old, and never of any effect.
				{name: "KeyMaterialExpireUnix", kind: kindAny, optional: true}}},
		{name: "ListKey", run: (*request).listKey, storage: "listKey failed"},
		{name: "EnableKey", mutates: true, run: (*request).enableKey, storage: "enableKey failed", members: []member{keyid}},
		{name: "DisableKey", mutates: true, run: (*request).disableKey, storage: "disableKey failed", members: []member{keyid}},
		{name: "DeleteKey", mutates: true, run: (*request).deleteKey, storage: "deleteKey failed", members: []member{keyid}},
		{name: "DeleteAllKey", mutates: true, run: (*request).deleteAllKey, storage: "deleteALLKey failed"},
	}
	table = append(table, batchActions()...)
	table = append(table, versionActions()...)
	table = append(table, lifeActions()...)
	table = append(table, secretActions()...)
	table = append(table, quoteActions()...)
	table = append(table, adminActions()...)
	table = append(table, credentialActions()...)
	table = append(table, loginActions()...)
	table = append(table, policyActions(table)...)
	byName := make(map[string]*action, len(table)+1)
	for _, a := range table {
		byName[a.name] = a
	}
	byName["DeleteALLKey"] = byName["DeleteAllKey"] // the documented spelling
	return byName
}

// execute runs a call to its result, a refusal or a needError.
func (x *request) execute() (result, error) {
	switch x.call.Action {
	case "GetVersion", "Enroll", "GetEvidence":
		if !x.call.Get {
			return result{}, errAPI() // whatever the signature
		}
		return x.unsigned()
	case api.EnrollFinish:
		if x.call.Get {
			return result{}, errAPI()
		}
		return x.enrollFinish()
	case api.Login, api.LoginChallenge:
		if x.call.Get {
			return result{}, errAPI()
		}
		if x.call.Action == api.Login {
			return x.login()
		}
		return x.loginChallenge()
	}
	x.action = x.core.actions[x.call.Action]
	if err := x.unseal(); err != nil {
		return result{}, err
	}
	v, err := x.authenticate()
	if err != nil {
		return result{}, err
	}
	if err := x.spend(); err != nil {
		return result{}, err
	}
	if x.action == nil || x.call.Get {
		return result{}, errAPI()
	}
	if x.action.admin != (x.tenant == wire.UUID{}) { // check: admin-actions
		return result{}, errAPI()
	}
	if err := x.permit(v); err != nil {
		return result{}, err
	}
	if x.payload, err = validate(v, x.action.members, x.action.mutates || x.action.strict); err != nil {
		return result{}, err
	}
	if err := x.payload.folded(); x.action.named && err != nil { // check: folded-members
		return result{}, err
	}
	if x.action.mutates || x.fitsMutation(v) { // check: shared-replay
		x.once()
	}
	return x.action.run(x)
}

// once has the database take note of the request, so that no core serves it again.
func (x *request) once() {
	x.replay = &wire.Replay{Tenant: x.tenant, Tag: x.tag(), Until: x.timestamp + x.core.terms.Load().window}
}

// unsigned runs an action that anybody may ask for.
func (x *request) unsigned() (result, error) {
	switch x.call.Action {
	case "Enroll":
		return x.enroll()
	case "GetEvidence":
		return x.getEvidence()
	}
	return x.getVersion()
}

// fitsMutation reports whether the body would also pass as a state-changing
// action. The action is not signed by old clients, so such a body must be
// usable only once on all nodes, whatever it was used for and whether that was
// refused.
func (x *request) fitsMutation(v canon.Value) bool {
	if v.Get(memberAction).Kind() != canon.Absent {
		return false
	}
	return x.core.mutations.fit(v)
}

// mutations are the state-changing actions that old clients can be taken for.
type mutations struct {
	actions []*action
	members map[string]bool // names that any of them knows
}

func newMutations(all map[string]*action) *mutations {
	m := &mutations{members: map[string]bool{}}
	for name, a := range all {
		if !a.mutates || a.named || name != a.name {
			continue
		}
		m.actions = append(m.actions, a)
		for i := range a.members {
			m.members[a.members[i].name] = true
			for _, name := range a.members[i].also {
				m.members[name] = true
			}
		}
	}
	return m
}

// fit reports whether a payload passes as that of one of the actions. Most have
// a member that none of them knows.
func (m *mutations) fit(v canon.Value) bool {
	for name := range v.Members() {
		if !m.members[name] {
			return false
		}
	}
	for _, a := range m.actions {
		if (v.Kind() == canon.Object || !a.cryptographic) && couldFit(v, a.members) {
			if _, err := validate(v, a.members, true); err == nil {
				return true
			}
		}
	}
	return false
}

// notRefusal passes refusals and needs on, and makes anything else the
// contract's answer to a failed operation.
func notRefusal(err error, reason string) error {
	var r *refusal
	var n *needError
	if errors.As(err, &r) || errors.As(err, &n) {
		return err
	}
	return errServer(reason)
}
