//go:build tsm

package tsm

import (
	"context"
	"crypto/rand"
	"fmt"
	"os"
	"strings"

	"github.com/google/go-configfs-tsm/configfs/configfsi"
	"github.com/google/go-configfs-tsm/configfs/linuxtsm"
	"github.com/google/go-configfs-tsm/report"

	"github.com/ehsm-kms/ehsm/internal/attest"
	"github.com/ehsm-kms/ehsm/internal/trusted/secret"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee"
)

// Names of the kernel's providers, as configfs shows them.
const (
	tdxProvider = "tdx_guest"
	snpProvider = "sev_guest"
)

// attempts is how often a report is asked for when somebody else writes into
// its entry; each attempt makes an entry of its own.
const attempts = 3

// Guest is the confidential guest that this program runs in.
type Guest struct {
	client   configfsi.Client
	provider string
	id       tee.Identity
}

var (
	_ tee.Platform = (*Guest)(nil)
	_ tee.Attester = (*Guest)(nil)
)

// Client returns the kernel's configfs. Errors: tee.ErrNoPlatform.
func Client() (configfsi.Client, error) {
	c, err := linuxtsm.MakeClient()
	if err != nil {
		return nil, fmt.Errorf("%w: mount configfs at /sys/kernel/config and load tdx_guest or sev_guest: %w", tee.ErrNoPlatform, err)
	}
	return c, nil
}

// Detect returns the name of the kernel's provider. Errors: tee.ErrNoPlatform.
func Detect(client configfsi.Client) (string, error) {
	entry, err := report.CreateOpenReport(client)
	if err != nil {
		return "", fmt.Errorf("%w: %w", tee.ErrNoPlatform, err)
	}
	defer entry.Destroy() // only a leftover entry if it fails
	b, err := entry.ReadOption("provider")
	if err != nil {
		return "", fmt.Errorf("%w: %w", tee.ErrNoPlatform, err)
	}
	provider := strings.TrimSuffix(string(b), "\n")
	if provider != tdxProvider && provider != snpProvider {
		return "", fmt.Errorf("%w: the kernel's provider is %q, want %s or %s", tee.ErrNoPlatform, provider, tdxProvider, snpProvider)
	}
	return provider, nil
}

// Open asks the guest's platform for one report and takes the identity from it.
// The measurement is SHA-256 over MRTD, MRCONFIGID and RTMR0 to RTMR3 of TDX, or
// MEASUREMENT and HOST_DATA of SEV-SNP, after a label.
// Errors: tee.ErrNoPlatform, tee.ErrEvidence, tee.ErrEntropy.
func Open(client configfsi.Client, product, svn uint16) (*Guest, error) {
	return open(client, product, svn, checkEntropy)
}

func open(client configfsi.Client, product, svn uint16, checkEntropy func() error) (*Guest, error) {
	provider, err := Detect(client)
	if err != nil {
		return nil, err
	}
	if err := checkEntropy(); err != nil {
		return nil, err
	}
	g := &Guest{client: client, provider: provider}
	var data [64]byte
	rand.Read(data[:]) // never fails
	c, err := g.claims(context.Background(), data)
	if err != nil {
		return nil, fmt.Errorf("ask %s for a report: %w", provider, err)
	}
	g.id = tee.Identity{Measurement: c.measurement, Product: product, SVN: svn, Debug: c.debug}
	return g, nil
}

func checkEntropy() error {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return fmt.Errorf("%w: %w", tee.ErrEntropy, err)
	}
	if err := checkKernel(string(release)); err != nil {
		return err
	}
	return tee.CheckEntropy()
}

// Name implements tee.Platform: tdx or snp.
func (g *Guest) Name() string {
	if g.provider == tdxProvider {
		return "tdx"
	}
	return "snp"
}

// Simulated implements tee.Platform.
func (g *Guest) Simulated() bool { return false }

// Encloses implements tee.Enclosing: the guest is measured as a whole.
func (g *Guest) Encloses() bool { return true }

// Identity implements tee.Platform; see the package comment for what it says.
func (g *Guest) Identity() tee.Identity { return g.id }

// SealKey implements tee.Platform. It always returns tee.ErrNoSealKey.
func (g *Guest) SealKey(tee.KeyRequest) (secret.Bytes, error) {
	return secret.Bytes{}, fmt.Errorf("%w: %s has no seal key", tee.ErrNoSealKey, g.Name())
}

// Evidence implements tee.Attester. Reports of SEV-SNP come without the
// certificates of the processor, which are public and signed. It does not stop
// waiting for the host's quoting service when ctx ends. Errors: tee.ErrEvidence.
func (g *Guest) Evidence(ctx context.Context, reportData [64]byte) (attest.Evidence, error) {
	c, err := g.claims(ctx, reportData)
	return c.evidence, err
}

func (g *Guest) claims(ctx context.Context, reportData [64]byte) (claims, error) {
	out, err := g.ask(ctx, reportData)
	if err != nil {
		return claims{}, err
	}
	parse := parseTDX
	if g.provider == snpProvider {
		parse = parseSNP
	}
	c, err := parse(out)
	if err != nil {
		return claims{}, err
	}
	if c.reportData != reportData {
		return claims{}, fmt.Errorf("%w: REPORTDATA is not what was written", tee.ErrEvidence)
	}
	return c, nil
}

// ask returns the bytes of a report whose entry nobody else wrote into.
func (g *Guest) ask(ctx context.Context, reportData [64]byte) ([]byte, error) {
	request := &report.Request{InBlob: reportData[:]}
	if g.provider == snpProvider {
		request.Privilege = &report.Privilege{Level: 0}
	}
	var err error
	for range attempts {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		var res *report.Response
		res, err = report.Get(g.client, request)
		if report.GetGenerationErr(err) != nil {
			continue
		}
		if err != nil {
			return nil, err
		}
		if p := strings.TrimSuffix(res.Provider, "\n"); p != g.provider {
			return nil, fmt.Errorf("%w: the provider is %q now, was %s", tee.ErrEvidence, p, g.provider)
		}
		return res.OutBlob, nil
	}
	return nil, fmt.Errorf("%w: something else writes into the report's entry: %w", tee.ErrEvidence, err)
}
