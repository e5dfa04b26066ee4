package channel_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
)

// listing is a policy that has admitted all machines since a date.
type listing struct {
	*policy
	since time.Time
}

func (l listing) ListedSince(verify.Platform) time.Time { return l.since }

// TestGraceOfListedMachines has programs that have just started judge a machine that
// has fallen behind: what counts is whether it was admitted before that.
func TestGraceOfListedMachines(t *testing.T) {
	const day = 24 * time.Hour
	w := newWorld(t)
	behind := w.now.Add(-10 * day)
	outOfDate := func(x *issue.Terms) { x.Status, x.NewerDate = verify.OutOfDate, behind }
	expired := func(x *issue.Terms) { x.Issued, x.Next = w.now.Add(-40*day), behind }
	for name, row := range map[string]struct {
		terms func(*issue.Terms)
		since time.Time
		grace time.Duration
		want  error
	}{
		"admitted before the recovery":    {outOfDate, behind.Add(-day), 30 * day, nil},
		"on its day":                      {outOfDate, behind, 30 * day, nil},
		"a second later":                  {outOfDate, behind.Add(time.Second), 30 * day, validate.ErrStatus},
		"not by name":                     {outOfDate, time.Time{}, 30 * day, validate.ErrStatus},
		"the grace is over":               {outOfDate, behind.Add(-day), 9 * day, validate.ErrGraceOver},
		"no grace":                        {outOfDate, behind.Add(-day), 0, validate.ErrGraceOver},
		"revoked":                         {func(x *issue.Terms) { x.Status = verify.Revoked }, behind.Add(-day), 30 * day, verify.ErrPlatformRevoked},
		"hardening needed":                {func(x *issue.Terms) { x.Status, x.Advisories = verify.SWHardeningNeeded, []string{"INTEL-SA-00615"} }, behind.Add(-400 * day), 30 * day, validate.ErrStatus},
		"up to date, admitted just now":   {func(*issue.Terms) {}, w.now, 30 * day, nil},
		"admitted before its end":         {expired, behind.Add(-day), 30 * day, nil},
		"admitted after its end":          {expired, behind.Add(day), 30 * day, validate.ErrStale},
		"collateral's grace is over":      {expired, behind.Add(-day), 9 * day, verify.ErrCRLExpired},
		"expired, and behind before that": {func(x *issue.Terms) { expired(x); outOfDate(x); x.NewerDate = behind.Add(-5 * day) }, behind.Add(-day), 30 * day, validate.ErrStale},
	} {
		t.Run(name, func(t *testing.T) {
			cc, cp := config(t, w, w.one, channel.DKeyCache, channel.DKeyServer)
			sc, _ := config(t, w, w.two, channel.DKeyServer, channel.DKeyCache)
			p := cp.accepts[channel.DKeyServer]
			p.TCBGrace, p.CollateralGrace = row.grace, row.grace
			cc.Policy = listing{cp, row.since}
			terms := w.two.Terms(w.now)
			row.terms(&terms)
			b := encoded(t, w.two, terms)
			sc.Collateral = func(context.Context) ([]byte, error) { return b, nil }
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			c, s := handshake(ctx, cc, sc)
			if !errors.Is(c.err, row.want) {
				t.Fatalf("got %v, want %v", c.err, row.want)
			}
			if row.want != nil {
				if s.err == nil {
					t.Error("the machine has a channel")
				}
				return
			}
			go s.conn.Close()
			defer c.conn.Close()
			d := c.conn.Peer().Decision
			if terms.Status == verify.OutOfDate && !d.TCBGraceUntil.Equal(behind.Add(row.grace)) {
				t.Errorf("the grace ends %v", d.TCBGraceUntil)
			}
		})
	}
}
