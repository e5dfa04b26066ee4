package manifest

import (
	"bytes"
	"crypto/ed25519"
	"encoding/base64"
	"fmt"
	"regexp"
	"strings"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// maxPeople is the most members of a quorum.
const maxPeople = 64

// A Person is somebody who holds a key of the domain.
type Person struct {
	// Name is for people: 1 to 64 letters, digits and . _ @ - of ASCII.
	Name string `json:"name"`
	Key  []byte `json:"key"` // public
}

// A Quorum is a group of which Threshold members decide.
type Quorum struct {
	Threshold int      `json:"threshold"`
	Members   []Person `json:"members"` // 1 to 64, each name and each key once
}

// Duty is what a person's key is for.
type Duty string

// The duties.
const (
	Operator      Duty = "operator"      // signs manifests
	Custodian     Duty = "custodian"     // keeps a share of the recovery key
	Administrator Duty = "administrator" // sets up the first tenants
)

// Duties lists the duties.
func Duties() []Duty { return []Duty{Operator, Custodian, Administrator} }

// KeySize is the size of a public key in bytes, 0 for what is no duty.
func (d Duty) KeySize() int {
	switch d {
	case Operator, Administrator:
		return ed25519.PublicKeySize
	case Custodian:
		return wire.HPKEKeySize
	}
	return 0
}

var personName = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._@-]{0,63}$`)

func (p *Person) validate(d Duty) error {
	switch {
	case !personName.MatchString(p.Name):
		return fmt.Errorf("%s has the name %q, want 1 to 64 letters, digits and . _ @ -", d, p.Name)
	case len(p.Key) != d.KeySize():
		return fmt.Errorf("%s %s has a key of %d bytes, want %d", d, p.Name, len(p.Key), d.KeySize())
	case bytes.Equal(p.Key, make([]byte, len(p.Key))):
		return fmt.Errorf("%s %s has a key of zeros", d, p.Name)
	}
	return nil
}

func (q *Quorum) validate(d Duty) error {
	if len(q.Members) < 1 || len(q.Members) > maxPeople {
		return fmt.Errorf("%d %ss, want 1 to %d", len(q.Members), d, maxPeople)
	}
	if q.Threshold < 1 || q.Threshold > len(q.Members) {
		return fmt.Errorf("threshold of %d for %d %ss", q.Threshold, len(q.Members), d)
	}
	for i := range q.Members {
		p := &q.Members[i]
		if err := p.validate(d); err != nil {
			return err
		}
		for _, other := range q.Members[:i] {
			if other.Name == p.Name || bytes.Equal(other.Key, p.Key) {
				return fmt.Errorf("%ss %s and %s share a name or a key", d, other.Name, p.Name)
			}
		}
	}
	return nil
}

// Member returns the member with a key, false if there is none.
func (q *Quorum) Member(key []byte) (Person, bool) {
	for _, p := range q.Members {
		if bytes.Equal(p.Key, key) {
			return p, true
		}
	}
	return Person{}, false
}

// holder names whose Ed25519 key a key is, "" for nobody's.
func (t *Terms) holder(key []byte) string {
	if p, ok := t.Operators.Member(key); ok {
		return "operator " + p.Name
	}
	if bytes.Equal(t.Administrator.Key, key) {
		return "administrator " + t.Administrator.Name
	}
	return ""
}

func (t *Terms) validate() error {
	if t.Root != Seal && t.Root != HSM {
		return fmt.Errorf("root %q, want %s or %s", t.Root, Seal, HSM)
	}
	if t.Settings.HSMWithoutTEE && t.Root != HSM {
		return fmt.Errorf("hsmWithoutTEE with root %s: no HSM is in use", t.Root)
	}
	if err := t.Operators.validate(Operator); err != nil {
		return err
	}
	if err := t.Administrator.validate(Administrator); err != nil {
		return err
	}
	if p, ok := t.Operators.Member(t.Administrator.Key); ok {
		return fmt.Errorf("administrator and operator %s share a key; each duty has its own", p.Name)
	}
	if t.Custodians != nil {
		if err := t.Custodians.validate(Custodian); err != nil {
			return err
		}
	}
	return t.Settings.validate()
}

// PublicText is the line in which a public key is passed on. Layout:
// docs/formats.md#public-key-line-v1.
func (p Person) PublicText(d Duty) string {
	return fmt.Sprintf("ehsm-%s-v1 %s %s\n", d, p.Name, base64.StdEncoding.EncodeToString(p.Key))
}

// ParsePublic reads what PublicText wrote, and nothing else. Errors: ErrInvalid.
func ParsePublic(text []byte) (Person, Duty, error) {
	const limit = 4096 // bytes
	refuse := func(format string, v ...any) (Person, Duty, error) {
		return Person{}, "", fmt.Errorf("%w: public key: %w", ErrInvalid, fmt.Errorf(format, v...))
	}
	if len(text) > limit {
		return refuse("%d bytes, limit %d", len(text), limit)
	}
	words := strings.Split(string(text), " ")
	if len(words) != 3 {
		return refuse("want one line of three words, such as: ehsm-operator-v1 NAME BASE64")
	}
	for _, d := range Duties() {
		if words[0] != "ehsm-"+string(d)+"-v1" {
			continue
		}
		key, err := base64.StdEncoding.Strict().DecodeString(strings.TrimSuffix(words[2], "\n"))
		if err != nil {
			return refuse("key of %q is not in base64", words[1])
		}
		p := Person{words[1], key}
		if err := p.validate(d); err != nil {
			return refuse("%w", err)
		}
		if p.PublicText(d) != string(text) {
			return refuse("the line was changed; it ends with one line feed")
		}
		return p, d, nil
	}
	return refuse("it begins with %.40q, want ehsm-operator-v1, ehsm-custodian-v1 or ehsm-administrator-v1", words[0])
}
