// Package local makes attested channels between two TEEs of one machine, such as
// a dkeycache and the cores of its node. In place of a quote each side shows a
// report that its platform has made for the other side: it proves "same machine",
// so that collateral and relaying are no concern. Who the peer is is judged by
// the same policy as on a remote channel. Everything else is package channel.
//
// It trusts the platform to make and verify reports; the stream, be it a unix
// socket or loopback TCP, is not trusted, and nothing rests on who the kernel says
// is at its other end.
//
// Protocol: docs/channel.md#local-channel.
package local

import (
	"context"
	"crypto/subtle"
	"errors"
	"fmt"
	"net"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/validate"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel"
	"github.com/ehsm-kms/ehsm/internal/trusted/channel/internal/session"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// Protocol is the name of the local channel in TLS ALPN.
const Protocol = "ehsm-local/1"

// ErrReportData says that a report was made for another channel, side or use.
var ErrReportData = errors.New("report was made for another purpose or peer")

// Client makes a channel of a connection that it has made to another program of
// this machine, and closes conn when that fails. ctx bounds the handshake only.
// The config needs no Attester, unless the platform has no local reports: the
// remote protocol then runs over the same stream. Both ends are on one platform
// and so decide alike. Errors: those of package channel.
func Client(ctx context.Context, conn net.Conn, p tee.Platform, cfg *channel.Config) (*channel.Conn, error) {
	if r, ok := p.(tee.LocalReporter); ok {
		return session.Run(ctx, conn, session.Client, reports{r, p.Simulated()}, cfg)
	}
	return channel.Client(ctx, conn, cfg)
}

// Server is Client for a connection that was accepted.
func Server(ctx context.Context, conn net.Conn, p tee.Platform, cfg *channel.Config) (*channel.Conn, error) {
	if r, ok := p.(tee.LocalReporter); ok {
		return session.Run(ctx, conn, session.Server, reports{r, p.Simulated()}, cfg)
	}
	return channel.Server(ctx, conn, cfg)
}

// reports is the method of local channels.
type reports struct {
	platform  tee.LocalReporter
	simulated bool
}

// Kind implements session.Method.
func (r reports) Kind() session.Kind {
	return session.Kind{Name: Protocol, Use: attest.UseLocal, Open: true}
}

// Target implements session.Method.
func (r reports) Target() ([]byte, error) { return r.platform.Target() }

// Prove implements session.Method.
func (r reports) Prove(_ context.Context, target []byte, reportData [64]byte) ([]byte, error) {
	return r.platform.Report(target, reportData)
}

// Endorse implements session.Method: a report needs no collateral.
func (r reports) Endorse(context.Context) ([]byte, error) { return nil, nil }

// Judge implements session.Method.
func (r reports) Judge(_ context.Context, c session.Claim) (v session.Verdict, err error) {
	if len(c.Collateral) != 0 { // check: local-collateral
		return v, fmt.Errorf("%w: collateral for a report", session.ErrProtocol)
	}
	id, reportData, err := r.platform.VerifyReport(c.Evidence)
	if err != nil { // check: report-genuine
		return v, err
	}
	if subtle.ConstantTimeCompare(reportData[:], c.ReportData[:]) != 1 { // check: report-bound
		return v, ErrReportData
	}
	if r.simulated && !c.Policy.AllowSim { // check: report-simulated
		return v, validate.ErrSimulated
	}
	body := quote.Report{MREnclave: id.Measurement, MRSigner: id.Signer, ISVProdID: id.Product, ISVSVN: id.SVN}
	if id.Debug {
		body.Attributes.Flags = quote.FlagDebug
	}
	enclave, err := c.Policy.CheckEnclave(&body)
	if err != nil { // check: report-wanted
		return v, err
	}
	return session.Verdict{Identity: id, Decision: validate.Decision{Enclave: enclave}}, nil
}
