package diff

import (
	"slices"

	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// domainKey compares the versions of the DomainKey.
func (c *changes) domainKey(old, new *manifest.Settings) {
	const path = "settings.domainKey"
	if was, is := old.DomainKeyVersion(), new.DomainKeyVersion(); was != is {
		e := Stricter
		if is < was {
			e = Weaker
		}
		c.add(path, e, "version %d -> %d: records are wrapped under it", was, is)
	}
	for _, v := range new.DomainKey.Compromised {
		if !slices.Contains(old.DomainKey.Compromised, v) {
			c.add(path, Stricter, "version %d is compromised: what it wraps and wrapped is to be replaced", v)
		}
	}
	for _, v := range old.DomainKey.Compromised {
		if !slices.Contains(new.DomainKey.Compromised, v) {
			c.add(path, Weaker, "version %d is no longer compromised", v)
		}
	}
	for _, v := range new.DomainKey.Forgotten {
		if !slices.Contains(old.DomainKey.Forgotten, v) {
			c.add(path, Neutral, "version %d IS FORGOTTEN: what it still wraps, in backups too, is lost for good", v)
		}
	}
	for _, v := range old.DomainKey.Forgotten {
		if !slices.Contains(new.DomainKey.Forgotten, v) {
			c.add(path, Weaker, "version %d is no longer forgotten", v)
		}
	}
}
