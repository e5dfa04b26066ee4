package bench

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// service is the measured server: one process, or two, or one that somebody else
// started.
type service struct {
	url      string
	pids     []int
	children []*child
	platform *child        // the simulated TEE, which is not measured
	first    time.Duration // from start to ready, on an empty data directory
	second   time.Duration // the same, on the directory of the first start
	idle     int64         // bytes in RAM before the first request
}

func (s *service) stop() {
	for i := len(s.children) - 1; i >= 0; i-- {
		s.children[i].stop()
	}
	if s.platform != nil {
		s.platform.stop()
	}
}

// starter starts servers in a directory of their own.
type starter struct {
	program string   // of the command line, which `dev` and `bench-ceiling` belong to
	dir     string   // temporary
	env     []string // of the children
	settle  time.Duration
	limit   int // requests a second of an app; 0: none
}

// newStarter makes the directory. The children see the environment without
// settings of ehsm, and with a home of their own: `ehsm dev` writes a profile.
func newStarter(o Options) (*starter, error) {
	dir, err := os.MkdirTemp("", "ehsm-bench-*")
	if err != nil {
		return nil, err
	}
	s := &starter{program: o.Program, dir: dir, settle: o.settle}
	for _, setting := range o.Environ {
		if !strings.HasPrefix(setting, "EHSM_") {
			s.env = append(s.env, setting)
		}
	}
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME", "XDG_CACHE_HOME"} {
		s.env = append(s.env, name+"="+filepath.Join(dir, "home"))
	}
	return s, nil
}

func (s *starter) close() error { return os.RemoveAll(s.dir) }

// readyPattern is the line in which a server says where it is reached.
var readyPattern = regexp.MustCompile(`^(?:url: +|ehsm-kms: serves )(https?://127\.0\.0\.1:\d+)$`)

// readyURL finds the address in a ready line.
func readyURL(line string) (url string, ok bool) {
	m := readyPattern.FindStringSubmatch(line)
	if m == nil {
		return "", false
	}
	return m[1], true
}

// readyCore finds the ready line of ehsm-core, which has no URL.
func readyCore(line string) (url string, ok bool) {
	return "", strings.HasPrefix(line, "ehsm-core: serves ")
}

// readyPlatform finds the ready line of ehsm-simtee, which has no URL.
func readyPlatform(line string) (url string, ok bool) {
	return "", strings.HasPrefix(line, "ehsm-simtee: serves ")
}

func (s *starter) ceiling(ctx context.Context, plain bool) (*child, error) {
	args := []string{"bench-ceiling"}
	if plain {
		args = append(args, "--http")
	}
	return startChild(ctx, s.env, readyURL, s.program, args...)
}

// dev starts `ehsm dev` twice: the first start makes a domain, the second is the
// one that a user waits for every time.
func (s *starter) dev(ctx context.Context, plain bool) (*service, error) {
	first, err := s.startDev(ctx, plain)
	if err != nil {
		return nil, err
	}
	first.stop()
	second, err := s.startDev(ctx, plain)
	if err != nil {
		return nil, err
	}
	return s.settled(ctx, &service{
		url:      second.url,
		children: []*child{second},
		first:    first.started,
		second:   second.started,
	})
}

func (s *starter) startDev(ctx context.Context, plain bool) (*child, error) {
	args := []string{"dev", "--no-profile", "--data", s.data(), "--listen", "127.0.0.1:0"}
	if plain {
		args = append(args, "--http")
	}
	if s.limit > 0 {
		args = append(args, "--limit", strconv.Itoa(s.limit))
	}
	return startChild(ctx, s.env, readyURL, s.program, args...)
}

// data is the directory that `ehsm dev` makes: domain, simulated machine, store,
// audit trail, certificate.
func (s *starter) data(names ...string) string {
	return filepath.Join(append([]string{s.dir, "data"}, names...)...)
}

// split starts core and manager, which are beside the command line, on the data
// that `ehsm dev` has made. The two talk over a unix socket.
func (s *starter) split(ctx context.Context) (*service, error) {
	first, err := s.startDev(ctx, false)
	if err != nil {
		return nil, err
	}
	first.stop()
	tee := filepath.Join(s.dir, "tee.sock")
	platform, err := startChild(ctx, s.env, readyPlatform, s.beside("ehsm-simtee"), "serve", "--dir", s.data("sim"), "--socket", tee)
	if err != nil {
		return nil, err
	}
	sv := &service{platform: platform}
	if err := s.startParts(ctx, sv, tee); err != nil {
		sv.stop()
		return nil, err
	}
	return s.settled(ctx, sv)
}

// startParts starts core and manager, one after the other, on a simulated TEE.
func (s *starter) startParts(ctx context.Context, sv *service, tee string) error {
	socket := "unix:" + filepath.Join(s.dir, "core.sock")
	core, err := s.startBeside(ctx, "ehsm-core", readyCore,
		"EHSM_CORE_LISTEN="+socket,
		"EHSM_CORE_DOMAIN="+s.data("domain"),
		"EHSM_CORE_SIM="+tee)
	if err != nil {
		return err
	}
	sv.children = append(sv.children, core)
	kms, err := s.startBeside(ctx, "ehsm-kms", readyURL,
		"EHSM_KMS_LISTEN=127.0.0.1:0",
		"EHSM_KMS_CORE="+socket,
		"EHSM_KMS_DATABASE="+s.data("ehsm.db"),
		"EHSM_KMS_AUDIT="+s.data("audit"),
		"EHSM_KMS_TLS_CERT="+s.data("tls", "cert.pem"),
		"EHSM_KMS_TLS_KEY="+s.data("tls", "key.pem"))
	if err != nil {
		return err
	}
	sv.children = append(sv.children, kms)
	sv.url, sv.second = kms.url, core.started+kms.started
	return nil
}

// startBeside starts a program of the directory that the command line is in.
func (s *starter) startBeside(ctx context.Context, name string, ready func(string) (string, bool), settings ...string) (*child, error) {
	return startChild(ctx, slices.Concat(s.env, settings), ready, s.beside(name))
}

func (s *starter) beside(name string) string { return filepath.Join(filepath.Dir(s.program), name) }

// settled completes a service that has just become ready.
func (s *starter) settled(ctx context.Context, sv *service) (*service, error) {
	for _, c := range sv.children {
		sv.pids = append(sv.pids, c.pid)
	}
	err := sleep(ctx, s.settle)
	if err == nil {
		sv.idle, err = residentSize(sv.pids)
	}
	if err != nil {
		sv.stop()
		return nil, fmt.Errorf("start the service: %w", err)
	}
	return sv, nil
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-timer.C:
		return nil
	}
}
