package api

// What a request about a key's life is refused with.
const (
	MessageKeyVersion       = "keyversion error" // no such version, or one below the least
	MessagePrimaryVersion   = "The primary version cannot be changed."
	MessageLeastVersion     = "The primary version is the highest that can be the least."
	MessageVersionLimit     = "The limit of versions is reached."
	MessageImportedMaterial = "The key's material is imported."
	MessageKeyProtected     = "The key is protected from deletion."
)

// Limits of a key's life.
const (
	MaxKeyDescription = 1024 // bytes of UTF-8
	MaxTags           = 50
	MaxTagName        = 64   // bytes of UTF-8
	MaxTagValue       = 256  // bytes of UTF-8
	MaxRotationDays   = 2560 // days between two rotations
	MaxDeletionDays   = 30   // days that something deleted can be had back
)

// RotateKeyResult has the number of the new version, which protects new data from
// now on.
type RotateKeyResult struct {
	KeyID      string `json:"keyid"`
	KeyVersion uint32 `json:"keyversion"`
}

// KeyVersionRequest names one version of a key.
type KeyVersionRequest struct {
	KeyID      string `json:"keyid"`
	KeyVersion uint32 `json:"keyversion"`
}

// KeyVersion describes one version of a key. Times are Unix milliseconds.
type KeyVersion struct {
	KeyVersion   uint32 `json:"keyversion"`
	State        string `json:"state"`   // active, suspended, destroyed and so on, after SP 800-57
	Primary      bool   `json:"primary"` // it protects new data
	Created      int64  `json:"created"`
	DeletionDate int64  `json:"deletionDate"` // when its material is destroyed, 0: not planned
}

// ListKeyVersionsResult has all versions of a key, the oldest first.
type ListKeyVersionsResult struct {
	Versions []KeyVersion `json:"versions"`
}

// KeyDescription is all there is to know of a key. Times are Unix milliseconds.
type KeyDescription struct {
	KeyID              string            `json:"keyid"`
	Description        string            `json:"description"`
	Tags               map[string]string `json:"tags"`
	KeySpec            KeySpec           `json:"keyspec"`
	KeyUsage           KeyUsage          `json:"keyusage"`
	Origin             Origin            `json:"origin"`
	PaddingModes       []PaddingMode     `json:"paddingModes"` // those that an RSA key admits
	State              string            `json:"state"`        // as of a version, or pending-deletion
	Created            int64             `json:"created"`
	Modified           int64             `json:"modified"`
	Expires            int64             `json:"expires"` // 0: never
	DeletionProtection bool              `json:"deletionProtection"`
	DeletionDate       int64             `json:"deletionDate"` // when the material is destroyed, 0: not planned
	Primary            uint32            `json:"primary"`      // version that protects new data
	LeastEncrypt       uint32            `json:"leastEncrypt"` // least version that may protect new data, 0: any
	LeastDecrypt       uint32            `json:"leastDecrypt"` // least version that may process what is protected, 0: any
	RotationDays       int               `json:"rotationDays"` // 0: only when asked
	NextRotation       int64             `json:"nextRotation"` // 0: none
	Versions           []KeyVersion      `json:"versions"`
}

// UpdateKeyRequest changes what it has, and leaves the rest. Clear names what to
// take away: description, tags, rotation, leastEncrypt, leastDecrypt. Tags replace
// all that the key has; their values are not empty.
type UpdateKeyRequest struct {
	KeyID              string            `json:"keyid"`
	Description        string            `json:"description,omitempty"`
	Tags               map[string]string `json:"tags,omitempty"`
	DeletionProtection string            `json:"deletionProtection,omitempty"` // on or off
	LeastEncrypt       uint32            `json:"leastEncrypt,omitempty"`
	LeastDecrypt       uint32            `json:"leastDecrypt,omitempty"`
	RotationDays       int               `json:"rotationDays,omitempty"` // 1 to MaxRotationDays
	Clear              []string          `json:"clear,omitempty"`
}

// ScheduleDeletionRequest deletes a key, or a version of it, which can be had back
// for Days, 1 to MaxDeletionDays; 0: for as long as the domain has it; not at all with
// Immediately.
type ScheduleDeletionRequest struct {
	KeyID       string `json:"keyid"`
	KeyVersion  uint32 `json:"keyversion,omitempty"` // of ScheduleKeyVersionDeletion only
	Days        int    `json:"days,omitempty"`
	Immediately bool   `json:"immediately,omitempty"`
}

// ScheduleDeletionResult says when the material is destroyed, in Unix milliseconds.
type ScheduleDeletionResult struct {
	KeyID        string `json:"keyid"`
	KeyVersion   uint32 `json:"keyversion,omitempty"`
	DeletionDate int64  `json:"deletionDate"`
}
