// Package acceptance runs, inside a TEE, the checks that show whether the
// platform can carry a core: identity, randomness, evidence, seal keys, local
// reports, clock, memory and throughput.
//
// It trusts the platform no more than a core does, and its request not at all. It
// opens no domain: the keys it asks for seal a text that everybody knows, and it
// erases them. What it returns is public.
package acceptance

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/acceptance"
	"github.com/ehsm-kms/ehsm/internal/attest/acceptance/speed"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// Config is the program that is accepted, on its platform.
type Config struct {
	Platform     tee.Platform
	Product, SVN uint16           // that the program is built with
	Version      string           // of the program
	Entropy      func() error     // tests the randomness; tee.CheckEntropy
	Now          func() time.Time // time.Now, with its monotonic part
}

// errNone says that the platform does not have what a check is about.
var errNone = errors.New("this platform has none")

// A run is one acceptance run.
type run struct {
	Config
	request *acceptance.Request
	result  acceptance.Result
}

// Run does the checks that the request asks for and returns the signed result,
// which says what failed. Errors: those of ctx, and of a machine that is too
// broken to sign.
func Run(ctx context.Context, c Config, q *acceptance.Request) (*acceptance.Statement, error) {
	id := c.Platform.Identity()
	r := &run{Config: c, request: q, result: acceptance.Result{
		Nonce: q.Nonce, Version: c.Version, Go: runtime.Version(), Processors: runtime.GOMAXPROCS(0),
		Started: c.Now().UTC(),
		Platform: acceptance.Platform{
			Name: c.Platform.Name(), Simulated: c.Platform.Simulated(),
			Measurement: id.Measurement[:], Signer: id.Signer[:], Product: id.Product, SVN: id.SVN, Debug: id.Debug,
		},
	}}
	for _, row := range []struct {
		name  acceptance.Name
		asked bool
		do    func(context.Context) (detail string, err error)
	}{
		{acceptance.Identity, true, r.identity},
		{acceptance.Randomness, true, r.randomness},
		{acceptance.Evidence, true, r.evidence},
		{acceptance.SealKeys, true, r.sealKeys},
		{acceptance.Restart, len(q.Seals) > 0, r.openSeals},
		{acceptance.LocalReport, true, r.localReport},
		{acceptance.Clock, true, r.clock},
		{acceptance.Memory, q.Memory > 0, r.memory},
		{acceptance.Throughput, q.Each > 0, r.throughput},
	} {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if row.asked {
			detail, err := row.do(ctx)
			r.add(row.name, detail, err)
		}
	}
	r.result.Finished = c.Now().UTC()
	attester, _ := c.Platform.(tee.Attester)
	return acceptance.State(ctx, r.result, attester)
}

func (r *run) add(name acceptance.Name, detail string, err error) {
	c := acceptance.NewCheck(name, acceptance.Pass, detail)
	switch {
	case errors.Is(err, errNone), errors.Is(err, tee.ErrNoSealKey):
		c = acceptance.NewCheck(name, acceptance.NotAvailable, err.Error())
	case err != nil:
		c = acceptance.NewCheck(name, acceptance.Fail, err.Error())
	}
	r.result.Checks = append(r.result.Checks, c)
}

func (r *run) identity(context.Context) (string, error) {
	id := r.Platform.Identity()
	switch {
	case id.Measurement == [32]byte{}:
		return "", errors.New("the measurement is zero")
	case id.Debug:
		return "", errors.New("a debug TEE: the host reads all memory")
	}
	if err := id.Check(r.Product, r.SVN); err != nil {
		return "", err
	}
	return fmt.Sprintf("measurement %x, product %d, version %d, no debug", id.Measurement, id.Product, id.SVN), nil
}

func (r *run) randomness(context.Context) (string, error) {
	return "RDRAND and RDSEED are there, and what the program draws is no constant", r.Entropy()
}

// evidence asks for two pieces, which must differ as what they bind does. Whether
// they are genuine is for others to say.
func (r *run) evidence(ctx context.Context) (string, error) {
	a, ok := r.Platform.(tee.Attester)
	if !ok {
		return "", errNone
	}
	var quotes [2]string
	var took [2]time.Duration
	var kind string
	for i := range quotes {
		start := r.Now()
		e, err := a.Evidence(ctx, acceptance.TrialReportData(r.request.Nonce))
		if err != nil {
			return "", err
		}
		quotes[i], took[i], kind = string(e.Quote), r.Now().Sub(start), e.Kind.String()
	}
	if quotes[0] == quotes[1] || quotes[0] == "" {
		return "", errors.New("evidence over different REPORTDATA is the same")
	}
	return fmt.Sprintf("%s of %d bytes; %v for the first, %v for the next", kind, len(quotes[1]),
		took[0].Round(time.Microsecond), took[1].Round(time.Microsecond)), nil
}

func (r *run) throughput(ctx context.Context) (detail string, err error) {
	r.result.Throughput, err = speed.Measure(ctx, r.request.Each)
	return fmt.Sprintf("%d operations, each for %v", len(speed.Names()), r.request.Each), err
}
