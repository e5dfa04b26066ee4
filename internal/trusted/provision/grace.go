package provision

import (
	"log/slog"
	"time"

	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// warnOfGrace says of a peer that it is accepted for a while only, whose end is then
// the date by which people have to act.
func warnOfGrace(log *slog.Logger, p channel.Peer, now time.Time) {
	for _, g := range []struct {
		what  string
		until time.Time
	}{
		{"platform is out of date and has a grace period", p.Decision.TCBGraceUntil},
		{"collateral has expired and has a grace period", p.Decision.CollateralGraceUntil},
	} {
		if !g.until.IsZero() {
			log.Warn(g.what, "role", p.Role, "platform", platformName(p), "until", g.until.UTC().Format(time.RFC3339), "seconds", int64(g.until.Sub(now)/time.Second))
		}
	}
}
