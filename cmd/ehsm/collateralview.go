package main

import (
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
)

// A collateralView is what collateral of one kind of machine says of itself.
type collateralView struct {
	FMSPC      string        `json:"fmspc"`
	CA         string        `json:"ca"`
	Evaluation uint32        `json:"tcbEvaluationDataNumber"`
	InForce    bool          `json:"inForce"`
	Until      time.Time     `json:"until"`
	DaysLeft   int           `json:"daysLeft"` // whole days; negative if they are over
	EndsFirst  string        `json:"endsFirst"`
	Parts      []editionView `json:"parts"`
	CertsUntil time.Time     `json:"certificatesUntil"`
	Simulated  bool          `json:"simulated"`
}

// An editionView is one part of it.
type editionView struct {
	Name       string    `json:"name"`
	Evaluation uint32    `json:"tcbEvaluationDataNumber,omitempty"` // of a document
	Number     string    `json:"crlNumber,omitempty"`               // of a CRL
	Entries    int       `json:"entries"`                           // TCB levels, or revoked certificates
	Issued     time.Time `json:"issued"`
	Next       time.Time `json:"nextUpdate"`
	DaysLeft   int       `json:"daysLeft"`
}

// A namedEdition is a part of collateral with its name.
type namedEdition struct {
	name string
	verify.Edition
}

// editions lists the parts in the order in which they are shown.
func editions(c *verify.Contents) []namedEdition {
	return []namedEdition{{"TCB info", c.TCBInfo}, {"QE identity", c.QEIdentity}, {"root CRL", c.RootCRL}, {"PCK CRL", c.PCKCRL}}
}

// endsFirst returns the part whose nextUpdate comes first.
func endsFirst(c *verify.Contents) namedEdition {
	return slices.MinFunc(editions(c), func(a, b namedEdition) int { return a.Next.Compare(b.Next) })
}

// daysLeft counts whole days from now to t, down: what has ended has less than 0.
func daysLeft(t, now time.Time) int {
	days := int(t.Sub(now) / (24 * time.Hour))
	if t.Before(now) {
		days--
	}
	return days
}

func collateralViews(all []verify.Collateral, now time.Time) ([]collateralView, error) {
	views := []collateralView{} // a list in JSON even if it is empty
	for i := range all {
		c, err := all[i].Contents()
		if err != nil {
			return nil, err
		}
		views = append(views, collateralViewOf(&c, now))
	}
	slices.SortFunc(views, func(a, b collateralView) int { return strings.Compare(a.FMSPC+a.CA, b.FMSPC+b.CA) })
	return views, nil
}

func collateralViewOf(c *verify.Contents, now time.Time) collateralView {
	first := endsFirst(c)
	v := collateralView{
		FMSPC: hex.EncodeToString(c.FMSPC[:]), CA: c.CA, Evaluation: min(c.TCBInfo.Evaluation, c.QEIdentity.Evaluation),
		InForce: !now.After(first.Next), Until: first.Next.UTC(), DaysLeft: daysLeft(first.Next, now), EndsFirst: first.name,
		CertsUntil: c.CertsExpire.UTC(), Simulated: c.Simulated,
	}
	for _, e := range editions(c) {
		if now.Before(e.Issued) {
			v.InForce = false
		}
		part := editionView{
			Name: e.name, Evaluation: e.Evaluation, Entries: e.Entries,
			Issued: e.Issued.UTC(), Next: e.Next.UTC(), DaysLeft: daysLeft(e.Next, now),
		}
		if e.Number != nil {
			part.Number = e.Number.String()
		}
		v.Parts = append(v.Parts, part)
	}
	return v
}

// collateralText renders views for people.
func collateralText(views []collateralView) string {
	var b strings.Builder
	for i := range views {
		if i > 0 {
			b.WriteString("\n")
		}
		views[i].write(&b)
	}
	return b.String()
}

func (v *collateralView) write(b *strings.Builder) {
	row(b, "machine:", "FMSPC %s, PCK certificate of the %s CA", v.FMSPC, v.CA)
	row(b, "in force:", "%s", v.force())
	row(b, "evaluation:", "%d", v.Evaluation)
	for i := range v.Parts {
		v.Parts[i].write(b)
	}
	row(b, "certificates:", "to %s", instant(v.CertsUntil))
	if v.Simulated {
		row(b, "SIMULATED:", "of no real machine; not from Intel")
	}
}

// force says until when all parts are in force.
func (v *collateralView) force() string {
	switch {
	case v.InForce:
		return fmt.Sprintf("until %s, %s; the %s ends first", instant(v.Until), left(v.DaysLeft), v.EndsFirst)
	case v.DaysLeft < 0:
		return fmt.Sprintf("NO: the %s ended at %s; fetch it again", v.EndsFirst, instant(v.Until))
	}
	return "NO: a part of it is issued in the future; is the clock of this machine right?"
}

// left words what daysLeft counted.
func left(days int) string {
	if days < 0 {
		return "over"
	}
	return number(days, "day") + " left"
}

func (e *editionView) write(b *strings.Builder) {
	what := fmt.Sprintf("%d TCB levels, evaluation %d", e.Entries, e.Evaluation)
	if e.Number != "" {
		what = fmt.Sprintf("%d revoked, number %s", e.Entries, e.Number)
	}
	row(b, e.Name+":", "%s to %s, %s; %s", instant(e.Issued), instant(e.Next), left(e.DaysLeft), what)
}
