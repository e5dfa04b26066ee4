package main

import (
	"bufio"
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"github.com/ehsm-kms/ehsm/internal/config"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
	"github.com/ehsm-kms/ehsm/internal/wire/overview"
)

// doorHelp is what all commands that ask a dkeyserver say about it.
const doorHelp = `It asks the dkeyserver of this machine, at its socket: that of --door, else of
EHSM_DKEYSERVER_DOOR, else door.sock in EHSM_DKEYSERVER_DOMAIN (/var/lib/ehsm/domain).
Answers are signed with the domain's key, which TEEs alone have. --domain, or
EHSM_DOMAIN_ID, pins the domain: then the host can withhold answers, but not
invent them.`

// doorTime bounds a request at the door.
const doorTime = 20 * time.Second

// A door is how the commands reach a dkeyserver.
type door struct {
	app      *app
	path     string
	domain   string
	unsigned bool
}

func (d *door) flags(f *pflag.FlagSet) {
	f.StringVar(&d.path, "door", "", "`socket` of the dkeyserver")
	f.StringVar(&d.domain, "domain", "", "`id` that the domain must have, in hex")
	f.BoolVar(&d.unsigned, "unsigned", false, "take answers that are not signed, of a dkeyserver without the DomainKey")
}

// A visit is a connection to a dkeyserver, whose manifests are verified.
type visit struct {
	*door
	conn   net.Conn
	in     *bufio.Reader
	files  [][]byte // the genesis and what follows, as far as it is known
	state  *manifest.State
	pinned bool // the domain is the one that is wanted
	signed bool // all answers were
}

// visit connects and verifies the manifests of the domain.
func (d *door) visit(ctx context.Context) (*visit, error) {
	if want := cmp.Or(d.domain, d.app.getenv("EHSM_DOMAIN_ID")); want != "" {
		if err := new(manifest.Hash).UnmarshalText([]byte(strings.ToLower(want))); err != nil {
			return nil, usageError{fmt.Errorf("--domain or EHSM_DOMAIN_ID: %w", err)}
		}
	}
	path := cmp.Or(d.path, d.app.getenv("EHSM_DKEYSERVER_DOOR"),
		filepath.Join(cmp.Or(d.app.getenv("EHSM_DKEYSERVER_DOMAIN"), "/var/lib/ehsm/domain"), config.DoorFile))
	ctx, stop := context.WithTimeout(ctx, doorTime)
	defer stop()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, doorHint(err, path)
	}
	v := &visit{door: d, conn: conn, in: bufio.NewReader(conn), signed: true}
	if err := v.learn(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return v, nil
}

// doorHint says why nobody opens.
func doorHint(err error, path string) error {
	err = fmt.Errorf("ask the dkeyserver: %w", err)
	switch {
	case errors.Is(err, fs.ErrPermission):
		return withHint(err, "only the user of ehsm-dkeyserver, and root, may ask at "+path)
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return withHint(err, "is ehsm-dkeyserver serve running on this machine? --door names its socket, door.sock in its domain's directory; ehsm dev has none and never changes its domain, ehsm dev --nodes 1 does")
	case errors.Is(err, syscall.EINVAL):
		return withHint(err, "the path of a socket has at most 107 bytes")
	}
	return err
}

func (v *visit) Close() { v.conn.Close() }

// learn fetches the manifests that are not known yet and verifies each.
func (v *visit) learn(ctx context.Context) error {
	for {
		var after uint64
		if v.state != nil {
			after = v.state.Version
		}
		var got [][]byte
		err := v.ask(ctx, overview.AskManifests, binary.BigEndian.AppendUint64(nil, after), func(payload []byte) (err error) {
			if got, err = overview.ParseManifests(payload); err != nil {
				return err
			}
			return v.take(got)
		})
		if err != nil || len(got) == 0 {
			return err
		}
	}
}

// take verifies manifests that follow what is known.
func (v *visit) take(files [][]byte) (err error) {
	for _, f := range files {
		if v.state == nil {
			if v.state, err = manifest.Open(f); err == nil {
				err = v.pin()
			}
		} else {
			v.state, err = v.state.Next(f, time.Now())
		}
		if err != nil {
			return manifestHint(fmt.Errorf("verify the manifests of the dkeyserver: %w", err))
		}
		v.files = append(v.files, f)
	}
	if v.state == nil {
		return fmt.Errorf("%w: there is no genesis in it", overview.ErrDoor)
	}
	return nil
}

// pin refuses another domain than the one that is wanted.
func (v *visit) pin() error {
	want := cmp.Or(v.domain, v.app.getenv("EHSM_DOMAIN_ID"))
	v.pinned = want != ""
	return pinned("the dkeyserver", v.state, want)
}

// ask sends a request, verifies the answer and has take read its payload. Only the
// first answer is read before it is verified: it brings the genesis, whose hash is
// the domain id, with the key.
func (v *visit) ask(ctx context.Context, k overview.DoorKind, body []byte, take func(payload []byte) error) error {
	stop := context.AfterFunc(ctx, func() { v.conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	v.conn.SetDeadline(time.Now().Add(doorTime))
	q := overview.NewDoorRequest(k, body)
	if err := overview.WriteFrame(v.conn, q.Encode()); err != nil {
		return fmt.Errorf("ask the dkeyserver: %w", err)
	}
	b, err := overview.ReadFrame(v.in, overview.MaxAnswer)
	if err != nil {
		return fmt.Errorf("read the answer of the dkeyserver: %w", err)
	}
	a, err := overview.ParseDoorAnswer(b)
	if err != nil {
		return err
	}
	first := v.state == nil && !a.Refused
	if first {
		if err := take(a.Payload); err != nil {
			return err
		}
	}
	switch err := v.verify(a, q); {
	case err != nil:
		return err
	case a.Refused:
		return fmt.Errorf("%w: %s", overview.ErrRefused, overview.Cut(string(a.Payload)))
	case first:
		return nil
	}
	return take(a.Payload)
}

// verify checks the signature of an answer.
func (v *visit) verify(a *overview.DoorAnswer, q *overview.DoorRequest) error {
	var key []byte
	if v.state != nil {
		key = v.state.DomainKey
	}
	err := a.Verify(q, key)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, overview.ErrUnsigned) && v.unsigned:
		v.signed = false
		return nil
	case errors.Is(err, overview.ErrUnsigned) && a.Refused:
		// What it says is no more than a text, and helps.
		return withHint(fmt.Errorf("%w: %s (not signed)", overview.ErrRefused, overview.Cut(string(a.Payload))), "once it has the DomainKey, it signs what it says")
	case errors.Is(err, overview.ErrUnsigned):
		return withHint(fmt.Errorf("%w: the dkeyserver has no DomainKey, or it is not the dkeyserver that answers", err),
			"read its log; --unsigned shows what it says, which may be the host's invention")
	}
	return withHint(err, "another program answers at this socket, or the answer was changed: do not believe this host")
}

// status asks for all of it.
func (v *visit) status(ctx context.Context) (s *overview.Status, err error) {
	err = v.ask(ctx, overview.AskStatus, nil, func(payload []byte) (err error) {
		if s, err = overview.ParseStatus(payload); err == nil && s.Domain.ID != manifest.Hash(v.state.Domain) {
			err = fmt.Errorf("%w: it is of the domain %s", overview.ErrForged, s.Domain.ID)
		}
		return err
	})
	return s, err
}

// last is the manifest in force, as a file.
func (v *visit) last() []byte { return v.files[len(v.files)-1] }

// lastName is how a file with the manifest in force is called.
func (v *visit) lastName() string {
	if v.state.Version == 1 {
		return manifest.GenesisFile
	}
	return manifest.FileName(v.state.Version)
}

// trust says in words what an answer rests on.
func (v *visit) trust() string {
	var parts []string
	if v.signed {
		parts = append(parts, "signed with the domain's key")
	} else {
		parts = append(parts, "NOT SIGNED: all of this may be the host's invention")
	}
	if v.pinned {
		parts = append(parts, "of the domain that you pinned")
	} else {
		parts = append(parts, "of whatever domain it is: --domain or EHSM_DOMAIN_ID pins yours")
	}
	return strings.Join(parts, ", ")
}
