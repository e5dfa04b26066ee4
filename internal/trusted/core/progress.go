package core

import (
	"context"

	"github.com/ehsm-kms/ehsm/internal/wire"
)

// Hear implements wire.Listener: what the manager says of its store goes to
// Config.Heard, for operators. No decision of the core rests on it.
func (c *Core) Hear(_ context.Context, p wire.Progress) error {
	if c.heard != nil {
		c.heard(p)
	}
	return nil
}
