package core

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/api/ratls"
	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/wire"
)

// ErrNotWholeNode says that the manager is outside of the core's TEE, as far as the core
// knows: it does not vouch for a key that the host has.
var ErrNotWholeNode = errors.New("the manager is not in the TEE of the core")

// Vouch implements wire.Voucher. Whoever reaches the core's socket is vouched for, so the
// socket must be one that nobody outside of the TEE reaches.
func (c *Core) Vouch(ctx context.Context, k wire.TLSKey) (wire.TLSStatement, error) {
	if !c.wholeNode { // check: whole-node
		return nil, ErrNotWholeNode
	}
	s := &ratls.Statement{Domain: c.keys.Domain(), Instance: c.info.Instance, Date: c.clock.micros() / 1e6}
	e, err := c.quoting.evidence(ctx, c.quoting.tenants, attest.ReportData(attest.UseTLS, s.Domain,
		[]byte(api.RoleCore), s.Instance[:], k[:], binary.BigEndian.AppendUint64(nil, uint64(s.Date))))
	if err != nil {
		return nil, fmt.Errorf("vouch for a TLS key: %s", asRefusal(err).reason)
	}
	s.Evidence = e.Append(nil)
	return s.Append(nil), nil
}
