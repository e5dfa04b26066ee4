package wire

import "github.com/ehsm-kms/ehsm/internal/wire/pack"

// An APIKey is what the host reads of an API key in an app record: not its text.
type APIKey struct {
	ID      UUID  // of the credential; zero: the one that was made with the app
	Created int64 // Unix milliseconds, by the clock of the core that made it
	Expires int64 // Unix milliseconds, 0: never
}

// What the attributes of an app say. Layout: docs/formats.md#app-v2.
const (
	appLayout1, appLayout2 = 1, 2
	appDestroyed           = 6
	apiKeyKind             = 1
	maxAppCredentials      = 16
	leastAppCredential     = 16 + 2 + 1 + 8 + 8 + 16 + 2 + 4 // bytes
)

// SealedAPIKeys returns the API keys of a sealed app record, none of what is no such
// record or belongs to an app that is gone. Nothing of it is authenticated here.
func SealedAPIKeys(sealed []byte) []APIKey {
	r := pack.NewReader(sealed)
	switch format, kind := r.Uint8(), RecordType(r.Uint8()); {
	case kind != App:
		return nil
	case format == sealedV1:
		r.Fixed(headV1 - 2)
	case format == sealedV2:
		r.Fixed(headV2 - 2)
	default:
		return nil
	}
	keys, err := readAPIKeys(pack.NewReader(r.Bytes(MaxRecord)))
	if r.Err() != nil || err != nil {
		return nil
	}
	return keys
}

func readAPIKeys(r *pack.Reader) (keys []APIKey, err error) {
	layout, state := r.Uint8(), r.Uint8()
	r.Bool() // exposed
	created := r.Int64()
	r.Fixed(8 + 4 + 8 + 16) // modified, generation and its time, default key
	switch layout {
	case appLayout1:
		keys = []APIKey{{Created: created}}
	case appLayout2:
		keys = readCredentials(r)
	default:
		r.Fail("layout %d", layout)
	}
	if state == appDestroyed {
		keys = nil
	}
	return keys, r.Close()
}

func readCredentials(r *pack.Reader) (keys []APIKey) {
	r.String(MaxRecord) // name
	for range r.Count(maxAppCredentials, leastAppCredential) {
		var k APIKey
		r.Array(k.ID[:])
		kind := r.Uint8()
		r.Uint8() // role
		r.Bool()  // each request must name its action
		k.Created, k.Expires = r.Int64(), r.Int64()
		r.Fixed(16) // policy
		r.String(MaxRecord)
		r.Bytes(MaxRecord) // public key
		if kind == apiKeyKind {
			keys = append(keys, k)
		}
	}
	return keys
}
