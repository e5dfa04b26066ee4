package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/internal/wire"
	"github.com/ehsm-kms/ehsm/internal/wire/trail"
)

func newAuditShow(a *app) *cobra.Command {
	var action, key string
	cmd := &cobra.Command{
		Use:   "show DIR|FILE...",
		Short: "Print the entries of a trail, one a line",
		Long: `show prints what is in the files, instance by instance. It checks nothing: see
ehsm audit verify.`,
		Example: "  ehsm audit show trail/\n  ehsm audit show --action Decrypt --output json trail/ | jq .code",
		Args:    args(1, -1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			return a.showTrail(cmd.Context(), paths, func(e *trail.Entry) bool {
				return (action == "" || e.Kind == trail.Request && e.Action == action) && (key == "" || e.Key.String() == key)
			})
		},
	}
	cmd.Flags().StringVar(&action, "action", "", "only requests of this `action`")
	cmd.Flags().StringVar(&key, "key", "", "only requests that name the key with this `id`")
	return cmd
}

// showTrail prints the wanted entries of the files, which are named so that
// those of an instance follow each other.
func (a *app) showTrail(ctx context.Context, paths []string, wanted func(*trail.Entry) bool) error {
	files, closeAll, err := openTrail(paths)
	if err != nil {
		return err
	}
	defer closeAll()
	buf := make([]byte, trail.MaxFrame)
	for _, f := range files {
		r := bufio.NewReader(io.NewSectionReader(f.Data, 0, f.Size))
		for ctx.Err() == nil {
			frame, err := trail.ReadFrame(r, buf)
			switch {
			case errors.Is(err, io.EOF):
			case errors.Is(err, trail.ErrTorn):
				a.warn("%s ends within an entry", f.Name)
			case errors.Is(err, trail.ErrUnused):
				a.warn("%s goes on with zeros, as in a file that is in use, or was at a crash", f.Name)
			case err != nil:
				return fmt.Errorf("read %s: %w", f.Name, err)
			}
			if err != nil {
				break
			}
			e, err := trail.Parse(frame.Entry)
			if err != nil {
				return fmt.Errorf("read %s: %w", f.Name, err)
			}
			if !wanted(&e) {
				continue
			}
			if err := a.printEntry(&e); err != nil {
				return err
			}
		}
	}
	return context.Cause(ctx)
}

// shown is an entry in JSON.
type shown struct {
	Instance   string  `json:"instance"`
	Sequence   uint64  `json:"sequence"`
	Time       string  `json:"time"`
	Kind       string  `json:"kind"`
	Domain     string  `json:"domain,omitempty"`
	Platform   string  `json:"platform,omitempty"`
	RequestID  string  `json:"requestId,omitempty"`
	Tenant     string  `json:"tenant,omitempty"`
	Action     *string `json:"action,omitempty"`
	Key        string  `json:"key,omitempty"`
	KeyVersion uint32  `json:"keyVersion,omitempty"`
	Code       uint16  `json:"code,omitempty"`
	Reason     string  `json:"reason,omitempty"`
	Head       string  `json:"head,omitempty"`
	Of         uint64  `json:"of,omitempty"`
}

// named returns an id as text, "" if there is none.
func named(id wire.UUID) string {
	if id == (wire.UUID{}) {
		return ""
	}
	return id.String()
}

func shownOf(e *trail.Entry) shown {
	s := shown{Instance: e.Instance.String(), Sequence: e.Sequence, Time: stamp(e.Time), Kind: e.Kind.String()}
	switch e.Kind {
	case trail.Start:
		s.Domain, s.Platform = hex.EncodeToString(e.Domain[:]), e.Platform
	case trail.Request:
		s.RequestID, s.Tenant, s.Action, s.Key = e.RequestID, named(e.Tenant), &e.Action, named(e.Key)
		s.KeyVersion, s.Code, s.Reason = e.KeyVersion, e.Code, e.Reason
	case trail.Checkpoint:
		s.Head = hex.EncodeToString(e.Head[:])
	case trail.Aborted:
		s.Of = e.Of
	}
	return s
}

// text renders an entry as one line. What a client chose is quoted.
func (s shown) text() string {
	line := fmt.Sprintf("%s %.8s %d %s", s.Time, s.Instance, s.Sequence, s.Kind)
	switch {
	case s.Action != nil:
		line += fmt.Sprintf(" %q tenant=%s key=%s code=%d %q request=%q", *s.Action, cmp.Or(s.Tenant, "-"), cmp.Or(s.Key, "-"), s.Code, s.Reason, s.RequestID)
	case s.Domain != "":
		line += fmt.Sprintf(" domain=%s platform=%q", s.Domain, s.Platform)
	case s.Of != 0:
		line += fmt.Sprintf(" of=%d", s.Of)
	}
	return line + "\n"
}

// printEntry prints an entry as a line of text or of JSON.
func (a *app) printEntry(e *trail.Entry) error {
	s := shownOf(e)
	if a.output == outputText {
		return a.print(s.text())
	}
	b, err := json.Marshal(s)
	if err != nil {
		return err
	}
	return a.print(string(b) + "\n")
}
