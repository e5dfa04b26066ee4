package main

import (
	"cmp"
	"fmt"
	"strings"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	judging "github.com/ehsm-kms/ehsm/internal/attest/acceptance/judge"
)

// An acceptanceView is what attest acceptance prints.
type acceptanceView struct {
	Accepted   bool                 `json:"accepted"`
	File       string               `json:"file,omitempty"` // with the report
	Nonce      string               `json:"nonce,omitempty"`
	Time       *time.Time           `json:"time,omitempty"`
	Machine    string               `json:"machine"`
	Processor  string               `json:"processor"`
	Microcode  string               `json:"microcode"`
	BIOS       string               `json:"bios"`
	Kernel     string               `json:"kernel"`
	Checks     []judging.Line       `json:"checks"`
	Throughput []judging.Comparison `json:"throughput,omitempty"`
	Log        string               `json:"coreLog,omitempty"` // of a core that did not start
}

func acceptanceViewOf(h *acceptance.Host, lines []judging.Line) *acceptanceView {
	v := &acceptanceView{
		Accepted: !judging.Failed(lines), Machine: plain(h.Product), Processor: plain(h.Model),
		Microcode: plain(h.Microcode), BIOS: plain(h.BIOS), Kernel: plain(h.Kernel),
	}
	for _, l := range lines {
		l.Detail = plain(l.Detail) // a report comes from anywhere
		v.Checks = append(v.Checks, l)
	}
	return v
}

// emitAcceptance prints what a report is worth and returns the error that it means.
func (a *app) emitAcceptance(file string, r *acceptance.Report, lines []judging.Line) error {
	v := acceptanceViewOf(&r.Host, lines)
	v.File, v.Nonce, v.Time, v.Throughput = file, fmt.Sprintf("%x", []byte(r.Nonce)), &r.Host.Time, judging.Compare(r)
	if err := a.emit(v, v.text()); err != nil {
		return err
	}
	return v.err()
}

// emitNoStart prints what is known of a machine on which the core did not start.
func (a *app) emitNoStart(h *acceptance.Host, err error, log string) error {
	platform := a.getenv("EHSM_CORE_PLATFORM")
	lines := []judging.Line{}
	if platform != "" { // else only the core knows, which did not say it
		lines = append(lines, judging.DeviceLine(h, platform))
	}
	lines = append(lines, judging.Line{
		Check: judging.Start, Outcome: acceptance.Fail, Detail: err.Error(),
		Hint: startHint(h),
	})
	v := acceptanceViewOf(h, lines)
	v.Log = log
	if err := a.emit(v, v.text()); err != nil {
		return err
	}
	return v.err()
}

func startHint(h *acceptance.Host) string {
	if judging.VirtualTPMOnly(h) {
		return "this guest has a virtual TPM and no TEE device: such guests are not supported, docs/hardware.md#guests-with-a-virtual-tpm"
	}
	return "what the core printed says why; docs/hardware.md has the steps of each platform"
}

// err names what failed.
func (v *acceptanceView) err() error {
	var failed []string
	hint := ""
	for _, l := range v.Checks {
		if l.Outcome == acceptance.Fail {
			failed = append(failed, l.Check)
			if hint == "" {
				hint = l.Hint
			}
		}
	}
	if len(failed) == 0 {
		return nil
	}
	err := fmt.Errorf("not accepted: %s", strings.Join(failed, ", "))
	if hint == "" {
		return err
	}
	return withHint(err, hint)
}

// text renders the view for people.
func (v *acceptanceView) text() string {
	var b strings.Builder
	const unknown = "not readable here"
	row(&b, "machine:", "%s", cmp.Or(v.Machine, unknown))
	row(&b, "processor:", "%s, microcode %s", cmp.Or(v.Processor, unknown), cmp.Or(v.Microcode, unknown))
	row(&b, "firmware:", "%s", cmp.Or(v.BIOS, unknown))
	row(&b, "kernel:", "%s", cmp.Or(v.Kernel, unknown))
	if v.Time != nil {
		row(&b, "report:", "%s of %s, nonce %s", v.File, instant(*v.Time), v.Nonce)
	}
	b.WriteString("\n")
	for _, l := range v.Checks {
		fmt.Fprintf(&b, "%-14s %-19s %s\n", strings.ToUpper(string(l.Outcome)), l.Check, l.Detail)
		if l.Hint != "" {
			fmt.Fprintf(&b, "%-14s %-19s hint: %s\n", "", "", l.Hint)
		}
	}
	if len(v.Throughput) > 0 {
		b.WriteString("\n")
		fmt.Fprintf(&b, "%-18s %8s %14s %14s %7s\n", "a second", "threads", "in the TEE", "outside", "ratio")
		for _, c := range v.Throughput {
			fmt.Fprintf(&b, "%-18s %8d %14d %14d %7.2f\n", plain(c.Inside.Operation), c.Inside.Threads, c.Inside.PerSecond, c.Outside, c.Ratio)
		}
	}
	if v.Log != "" {
		b.WriteString("\nthe core printed:\n" + v.Log)
	}
	return b.String()
}
