//go:build tsm

package tsm

import (
	"context"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"testing"
	"time"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/faketsm"

	"github.com/ehsm-kms/ehsm/internal/attest/admission"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/guesttest"
	"github.com/ehsm-kms/ehsm/internal/attest/tdx"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/local"
	"github.com/ehsm-kms/ehsm/internal/wire/manifest"
)

// channelNow is when the channels of the tests are made.
var channelNow = time.Date(2026, 11, 1, 0, 0, 0, 0, time.UTC)

// fakeKernel is a kernel whose reports are signed by a machine of guesttest.
func fakeKernel(provider string, sign func([64]byte) ([]byte, error)) configfsi.Client {
	return &faketsm.Client{Subsystems: map[string]configfsi.Client{"report": &faketsm.ReportSubsystem{
		MakeEntry: func() *faketsm.ReportEntry {
			in := map[string]*faketsm.ReportAttributeState{"inblob": {}, "privlevel": {}}
			return &faketsm.ReportEntry{InAttrs: in, ReadGeneration: 1 << 40}
		},
		ReadAttr: func(e *faketsm.ReportEntry, attr string) ([]byte, error) {
			switch attr {
			case "provider":
				return []byte(provider + "\n"), nil
			case "outblob":
				var d [64]byte
				copy(d[:], e.InAttrs["inblob"].Value)
				return sign(d)
			}
			return nil, fs.ErrNotExist
		},
		CheckInAttr: func(*faketsm.ReportEntry, string, []byte) error { return nil },
		Random:      zeros{},
		Entries:     map[string]*faketsm.ReportEntry{},
	}}}
}

// zeros names the one entry that there is at a time.
type zeros struct{}

func (zeros) Read(b []byte) (int, error) { clear(b); return len(b), nil }

// guestPolicy accepts one guest of each kind, in all roles.
type guestPolicy struct {
	roots    []*x509.Certificate
	machines validate.Policy
	guests   admission.Guests
}

func (guestPolicy) Now() time.Time                          { return channelNow }
func (p guestPolicy) Roots() []*x509.Certificate            { return p.roots }
func (p guestPolicy) Accepts(channel.Role) *validate.Policy { return &p.machines }
func (guestPolicy) Admitted(verify.Platform) bool           { return false }
func (guestPolicy) Manifest() uint64                        { return 1 }
func (p guestPolicy) Guests(channel.Role) *admission.Guests { return &p.guests }

// channelGuests returns a guest of each kind, and the policy that accepts both.
func channelGuests(t *testing.T) (onTDX, onSNP *channel.Config, tdxGuest, snpGuest *Guest) {
	t.Helper()
	intel, err := guesttest.NewTDX(channelNow)
	if err != nil {
		t.Fatal(err)
	}
	amd, err := guesttest.NewSNP(channelNow)
	if err != nil {
		t.Fatal(err)
	}
	r := guesttest.Guest([64]byte{})
	measurement, hostData := guesttest.Measured()
	p := guestPolicy{
		roots:    []*x509.Certificate{intel.Root, amd.Root},
		machines: validate.Policy{Platforms: []validate.Platform{{Name: "tdx", PPID: intel.Terms.Platform.PPID}}},
		guests: admission.Guests{
			TDX:    []manifest.TDXGuest{{MRTD: r.MRTD, RTMR0: r.RTMR[0], RTMR1: r.RTMR[1], RTMR2: r.RTMR[2], RTMR3: r.RTMR[3], MRConfigID: r.MRConfigID}},
			SNP:    []manifest.SNPGuest{{Measurement: measurement, HostData: hostData}},
			Chips:  []manifest.Platform{{Name: "chip", Chip: amd.ID}},
			MinTCB: manifest.SNPTCB{SNP: 8}, AMD: true,
		},
	}
	sure := func() error { return nil }
	tdxGuest, err = open(fakeKernel(tdxProvider, func(d [64]byte) ([]byte, error) { return intel.Quote(guesttest.Guest(d)) }), 2, 1, sure)
	if err != nil {
		t.Fatal(err)
	}
	snpGuest, err = open(fakeKernel(snpProvider, func(d [64]byte) ([]byte, error) { return amd.Report(d, nil) }), 3, 1, sure)
	if err != nil {
		t.Fatal(err)
	}
	tdxCollateral, err := intel.Collateral()
	if err != nil {
		t.Fatal(err)
	}
	snpCollateral, err := amd.Collateral()
	if err != nil {
		t.Fatal(err)
	}
	config := func(g *Guest, own, peer channel.Role, collateral []byte) *channel.Config {
		return &channel.Config{
			Role: own, PeerRoles: []channel.Role{peer}, Domain: [32]byte{1}, Policy: p, Attester: g,
			Collateral: func(context.Context) ([]byte, error) { return collateral, nil },
		}
	}
	return config(tdxGuest, channel.DKeyCache, channel.DKeyServer, tdxCollateral.Append(nil)),
		config(snpGuest, channel.DKeyServer, channel.DKeyCache, snpCollateral.Append(nil)), tdxGuest, snpGuest
}

type ended struct {
	conn *channel.Conn
	err  error
}

// TestChannels has the driver on a fake kernel be the attester of channels: from the
// write of REPORTDATA to what the peer takes the guest for.
func TestChannels(t *testing.T) {
	cache, server, onTDX, onSNP := channelGuests(t)
	a, b := net.Pipe()
	done := make(chan ended)
	go func() {
		c, err := channel.Server(t.Context(), b, server)
		done <- ended{c, err}
	}()
	c, err := channel.Client(t.Context(), a, cache)
	s := <-done
	if err != nil || s.err != nil {
		t.Fatal(err, s.err)
	}
	if got, want := s.conn.Peer().Identity.Measurement, onTDX.Identity().Measurement; got != want {
		t.Errorf("TDX: the peer takes it for %x, it says %x", got, want)
	}
	if got, want := c.Peer().Identity.Measurement, onSNP.Identity().Measurement; got != want {
		t.Errorf("SEV-SNP: the peer takes it for %x, it says %x", got, want)
	}
	if err := s.conn.Reattest(t.Context()); err != nil {
		t.Errorf("Reattest: %v", err)
	}
	go c.Close()
	s.conn.Close()
}

// TestLocalChannels has a core and the dkeycache of its node in one guest, which has
// no local reports: they run the remote protocol.
func TestLocalChannels(t *testing.T) {
	cache, _, guest, _ := channelGuests(t)
	core := *cache
	core.Role, core.PeerRoles = channel.Core, []channel.Role{channel.DKeyCache}
	served := *cache
	served.PeerRoles = []channel.Role{channel.Core}
	a, b := net.Pipe()
	done := make(chan ended)
	go func() {
		c, err := local.Server(t.Context(), b, guest, &served)
		done <- ended{c, err}
	}()
	c, err := local.Client(t.Context(), a, guest, &core)
	s := <-done
	if err != nil || s.err != nil {
		t.Fatal(err, s.err)
	}
	if p := s.conn.Peer(); p.Role != channel.Core || p.Identity.Product != channel.Core.Product() || p.Identity.Measurement != guest.Identity().Measurement {
		t.Errorf("got %+v", p)
	}
	go c.Close()
	s.conn.Close()
}

// TestChannelOfAnotherImage has a guest with another RTMR.
func TestChannelOfAnotherImage(t *testing.T) {
	cache, server, _, _ := channelGuests(t)
	p := server.Policy.(guestPolicy)
	p.guests.TDX[0].RTMR2[0] ^= 1
	a, b := net.Pipe()
	done := make(chan ended)
	go func() {
		c, err := channel.Server(t.Context(), b, server)
		done <- ended{c, err}
	}()
	if _, err := channel.Client(t.Context(), a, cache); err == nil {
		t.Error("the guest has a channel")
	}
	if s := <-done; !errors.Is(s.err, tdx.ErrGuest) {
		t.Errorf("got %v, want ErrGuest", s.err)
	}
}
