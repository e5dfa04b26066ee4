package api

// Limits of secrets, in UTF-16 units, and of their lists.
const (
	MaxSecretName        = 64
	MaxSecretData        = 4096
	MaxSecretDescription = 4096
	MaxSecrets           = 4000 // entries of a list
	MaxRecoveryPeriod    = 365  // days
)

// CreateSecretRequest asks for a secret with its first version. Name and value
// are any text; a name is unique in the tenant until the secret is gone.
type CreateSecretRequest struct {
	SecretName       string `json:"secretName"`
	SecretData       string `json:"secretData"`
	EncryptionKeyID  string `json:"encryptionKeyId,omitempty"` // symmetric; the tenant's default key without it
	Description      string `json:"description,omitempty"`
	RotationInterval string `json:"rotationInterval,omitempty"` // 1 to 4 digits and d, h, m or s; 6 to 8760 hours
}

// SecretRequest names the secret for DescribeSecret, RestoreSecret and
// ListSecretVersionIds. ListSecrets takes it too, and without a name lists all.
type SecretRequest struct {
	SecretName string `json:"secretName,omitempty"`
}

// PutSecretValueRequest asks for a new version, which becomes the current one.
type PutSecretValueRequest struct {
	SecretName string `json:"secretName"`
	SecretData string `json:"secretData"`
}

// UpdateSecretDescRequest sets the description, or clears it if it is "".
type UpdateSecretDescRequest struct {
	SecretName  string `json:"secretName"`
	Description string `json:"description,omitempty"`
}

// DeleteSecretRequest plans a deletion in RecoveryPeriod days, 1 to
// MaxRecoveryPeriod, 30 if it is 0; or has the secret be gone at once.
type DeleteSecretRequest struct {
	SecretName     string `json:"secretName"`
	RecoveryPeriod int    `json:"recoveryPeriod,omitempty"`
	ForceDelete    bool   `json:"forceDelete,omitempty"`
}

// GetSecretValueRequest asks for a version of a secret, the current one if
// VersionID is 0.
type GetSecretValueRequest struct {
	SecretName string `json:"secretName"`
	VersionID  int    `json:"versionId,omitempty"`
}

// GetSecretValueResult has the value, which this type does not protect from being
// printed. All members are zero if the secret has no such version.
type GetSecretValueResult struct {
	SecretName string `json:"secretName"`
	SecretData string `json:"secretData"`
	VersionID  int    `json:"versionId"`
	CreateTime int64  `json:"createTime"`
}

// ListSecretsResult has the tenant's secrets, the oldest first, at most
// MaxSecrets, those that are to be deleted included.
type ListSecretsResult struct {
	TotalCount int      `json:"totalCount"` // of SecretList
	SecretList []Secret `json:"secretList"`
}

// Secret describes a secret in a listing.
type Secret struct {
	SecretName        string `json:"secretName"`
	Description       string `json:"description,omitempty"`
	CreateTime        int64  `json:"createTime"`
	PlannedDeleteTime int64  `json:"plannedDeleteTime,omitempty"` // 0 if none
}

// ListSecretVersionIDsResult has the newest versions of a secret in their order,
// at most MaxSecrets; none if it is unknown or to be deleted.
type ListSecretVersionIDsResult struct {
	SecretName string          `json:"secretName"`
	TotalCount int             `json:"totalCount"` // of VersionIDs
	VersionIDs []SecretVersion `json:"versionIds"`
}

// SecretVersion is a version of a secret. Numbers start at 1.
type SecretVersion struct {
	VersionID  int   `json:"versionId"`
	CreateTime int64 `json:"createTime"`
}

// DescribeSecretResult has all about a secret but its value. Dates are 0 where
// there is none; rotation dates say when a rotation is due, nothing rotates by
// itself. All members are zero if the secret is unknown.
type DescribeSecretResult struct {
	SecretName        string `json:"secretName"`
	Description       string `json:"description"`
	CreateTime        int64  `json:"createTime"`
	PlannedDeleteTime int64  `json:"plannedDeleteTime"`
	RotationInterval  string `json:"rotationInterval"`
	RationalInterval  string `json:"rationalInterval"` // the same, for old clients
	LastRotationDate  int64  `json:"lastRotationDate"`
	NextRotationDate  int64  `json:"nextRotationDate"`
}
