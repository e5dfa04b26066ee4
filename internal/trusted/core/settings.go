package core

import (
	"slices"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/internal/trusted/primitive"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// specOff reports whether the domain makes no new keys of a spec.
func (c *Core) specOff(s primitive.Spec) bool {
	return slices.Contains(c.terms.Load().settings.DisabledKeySpecs, api.KeySpec(s.String()))
}

// paddingOff reports whether the domain refuses a padding.
func (c *Core) paddingOff(p primitive.Padding) bool {
	return slices.Contains(c.terms.Load().settings.DisabledPaddings, api.PaddingMode(p.String()))
}

// admitted returns those of a set of paddings that the domain does not refuse.
func (c *Core) admitted(all primitive.PaddingSet) (left primitive.PaddingSet) {
	for p, bit := range map[primitive.Padding]primitive.PaddingSet{
		primitive.PaddingPKCS1: primitive.AllowPKCS1, primitive.PaddingPSS: primitive.AllowPSS, primitive.PaddingOAEP: primitive.AllowOAEP,
	} {
		if !c.paddingOff(p) {
			left |= all & bit
		}
	}
	return left
}

// syncs reports whether every audit entry is durable before the reply.
func (c *Core) syncs() bool { return c.terms.Load().settings.Audit == manifest.Sync }
