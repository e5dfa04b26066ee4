package api

import (
	"crypto/ed25519"
	"crypto/sha256"
	"fmt"
)

// DomainAppID is the appid of administrators' requests: they are signed with a key
// pair, as Request.Credential says, and every payload names its action. Which key
// pairs the domain has is told by its manifest, and by administrators since.
const DomainAppID = "00000000-0000-0000-0000-000000000000"

// The actions of administrators. No tenant may ask for them, and administrators may
// ask for no others. Nothing among them yields a credential that works for a tenant.
const (
	ListApps   = "ListApps"
	DisableApp = "DisableApp"
	EnableApp  = "EnableApp"
	DeleteApp  = "DeleteApp"

	CreateToken = "CreateToken"
	ListTokens  = "ListTokens"
	RevokeToken = "RevokeToken"

	ListAdministrators  = "ListAdministrators"
	AddAdministrator    = "AddAdministrator"
	RemoveAdministrator = "RemoveAdministrator"
)

// AdminActions lists the actions of administrators, each once.
func AdminActions() []string {
	return []string{
		ListApps, DisableApp, EnableApp, DeleteApp, PrepareRekey, RekeyApp,
		CreateToken, ListTokens, RevokeToken,
		ListAdministrators, AddAdministrator, RemoveAdministrator,
	}
}

// Texts of refusals of administrators' actions.
const (
	MessageAppUnknown   = "appid error"             // no such app, or it is deleted
	MessageTokenUnknown = "tokenid error"           // no such token
	MessageTokenExists  = "tokenid exists"          // it was made before
	MessageAdminUnknown = "administrator error"     // no such administrator
	MessageAdminExists  = "administrator exists"    // the key is one already
	MessageAdminLast    = "last administrator"      // it stays
	MessageAdminMany    = "too many administrators" // there are MaxAdministrators
	MessageAdminKey     = "public key error"        // no Ed25519 public key
)

// Limits of administrators' actions.
const (
	MaxApps           = 1000        // of one ListApps
	MaxTokenUses      = 10000       // of one token
	MaxTokenLifetime  = 366 * 86400 // seconds
	MinTokenLifetime  = 60          // seconds
	MaxAdministrators = 16
	MaxName           = 64 // bytes of printable ASCII: of a tenant or an administrator
)

// AdminCredential returns the id of an administrator's key pair: a UUID that follows
// from its Ed25519 public key, as the first 16 bytes of SHA-256 over
// "ehsm/administrator-id/v1\0" and the key, with the bits of version 8.
func AdminCredential(key ed25519.PublicKey) (id [16]byte) {
	sum := sha256.Sum256(append([]byte("ehsm/administrator-id/v1\x00"), key...))
	id = [16]byte(sum[:])
	id[6] = id[6]&0x0f | 0x80
	id[8] = id[8]&0x3f | 0x80
	return id
}

// AdminCredentialText is AdminCredential as text.
func AdminCredentialText(key ed25519.PublicKey) string {
	b := AdminCredential(key)
	return fmt.Sprintf("%x-%x-%x-%x-%x", b[:4], b[4:6], b[6:8], b[8:10], b[10:])
}

// ListAppsRequest asks for apps in the order of their ids, those above After.
type ListAppsRequest struct {
	After string `json:"after,omitempty"` // appid
	Limit int    `json:"limit,omitempty"` // 1 to MaxApps, which is the default
}

// ListAppsResult has what the host's database shows: it can leave apps out.
type ListAppsResult struct {
	List []App  `json:"list"`
	Next string `json:"next"` // After of the next request, "" at the end
}

// States of an App.
const (
	AppActive    = "active"
	AppSuspended = "suspended"
	AppDeleted   = "deleted"
)

// An App is what administrators see of a tenant.
type App struct {
	AppID       string `json:"appid"`
	Name        string `json:"name"` // of the token it was made with, "" for plain enrollment
	State       string `json:"state"`
	Exposed     bool   `json:"exposed"` // the host could see its API key at enrollment
	Credentials int    `json:"credentials"`
	CreateTime  int64  `json:"createTime"`
	ModifyTime  int64  `json:"modifyTime"`
}

// AppRequest names the app for DisableApp, EnableApp and DeleteApp, whose results are
// Empty. A deleted app does not come back.
type AppRequest struct {
	AppID string `json:"appid"`
}

// Roles of a credential.
const (
	RoleOwner = "owner" // may do everything, and decides about the app's credentials
	RoleUser  = "user"  // uses keys and secrets
)

// CreateTokenRequest states an enrollment token that the administrator has drawn; see
// EnrollToken.
type CreateTokenRequest struct {
	TokenID string `json:"tokenid"`
	Hash    string `json:"hash"`           // 64 hex digits
	Name    string `json:"name,omitempty"` // of the apps that it makes
	Role    string `json:"role"`           // of their first credential
	Uses    int    `json:"uses"`           // 1 to MaxTokenUses
	Seconds int    `json:"seconds"`        // of its life, MinTokenLifetime to MaxTokenLifetime
}

// TokenRequest names the token for RevokeToken, whose result is Empty.
type TokenRequest struct {
	TokenID string `json:"tokenid"`
}

// ListTokensResult has the tokens that were not revoked, at most 4000, oldest first.
type ListTokensResult struct {
	List []Token `json:"list"`
}

// A Token is what administrators see of an enrollment token.
type Token struct {
	TokenID    string `json:"tokenid"`
	Name       string `json:"name"`
	Role       string `json:"role"`
	Uses       int    `json:"uses"`
	Used       int    `json:"used"`
	CreateTime int64  `json:"createTime"`
	ExpireTime int64  `json:"expireTime"`
	By         string `json:"by"` // credential id of the administrator who made it
}

// ListAdministratorsResult has all administrators.
type ListAdministratorsResult struct {
	List []Administrator `json:"list"`
}

// An Administrator is the holder of one of the domain's key pairs.
type Administrator struct {
	ID         string `json:"id"` // AdminCredentialText of the key
	Name       string `json:"name"`
	PublicKey  []byte `json:"publicKey"`  // Ed25519, 32 bytes
	CreateTime int64  `json:"createTime"` // 0: named by the manifest
}

// AddAdministratorRequest makes the holder of a key an administrator.
type AddAdministratorRequest struct {
	Name      string `json:"name"`
	PublicKey []byte `json:"publicKey"` // Ed25519, 32 bytes
}

// AdministratorRequest names the administrator for RemoveAdministrator, whose result
// is Empty. The last one stays.
type AdministratorRequest struct {
	ID string `json:"id"`
}
