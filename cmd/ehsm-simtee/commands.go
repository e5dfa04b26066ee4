package main

import (
	"encoding/hex"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/harden"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim"
	"github.com/ehsm-kms/ehsm/internal/trusted/tee/sim/daemon"
)

// rootFile is what collateral calls the root certificate.
const rootFile = "root.pem"

func serve(e env, args []string) error {
	f := newFlags("serve")
	dir, socket, fleet := f.String("dir", "", ""), f.String("socket", "", ""), f.String("fleet", "", "")
	noSeal := f.Bool("no-seal-key", false, "")
	if _, err := parse(f, args, 0, "dir", "socket"); err != nil {
		return err
	}
	fmt.Fprintln(e.stderr, "ehsm-simtee: simulated TEE: nothing is protected by hardware; whoever reads the files of this machine has all keys")
	p, err := sim.OpenProcessor(*dir, sim.Options{Fleet: *fleet, NoSealKey: *noSeal})
	if err != nil {
		return err
	}
	ln, err := daemon.Listen(*socket)
	if err != nil {
		return err
	}
	if err := confine(e); err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "ehsm-simtee: serves %s on %s\n", *dir, *socket)
	return daemon.Serve(e.ctx, ln, p, slog.New(slog.NewTextHandler(e.stderr, nil)))
}

// confine takes from the process what the daemon does not need: it opens files of
// all programs, but no sockets.
func confine(e env) error {
	if !e.confined {
		return nil
	}
	hidden, err := harden.Hide()
	if err != nil {
		return err
	}
	filtered, err := harden.Filter(harden.Calls{})
	if err != nil {
		return err
	}
	fmt.Fprintf(e.stderr, "ehsm-simtee: %s\n", harden.Join(hidden, filtered))
	return nil
}

func sign(e env, args []string) error {
	f := newFlags("sign")
	var product, svn number
	f.Var(&product, "product", "")
	f.Var(&svn, "svn", "")
	key, debug, newKey := f.String("key", "", ""), f.Bool("debug", false, ""), f.Bool("new-key", false, "")
	operands, err := parse(f, args, 1, "key", "product", "svn")
	if err != nil {
		return err
	}
	if *newKey {
		if err := sim.NewSigner(*key); err != nil {
			return err
		}
	}
	if _, err := sim.SignFile(operands[0], *key, uint16(product), uint16(svn), *debug); err != nil {
		return err
	}
	m, err := describe(operands[0])
	if err != nil {
		return err
	}
	m.print(e)
	return nil
}

// A measured is what measure prints.
type measured struct {
	Program     string `json:"program"`
	MREnclave   string `json:"mrenclave"`
	Development bool   `json:"development_signer"` // nobody signed the program, and the rest is the machine's
	MRSigner    string `json:"mrsigner,omitempty"`
	Product     uint16 `json:"product"`
	SVN         uint16 `json:"svn"`
	Debug       bool   `json:"debug"`
}

func describe(path string) (measured, error) {
	p, err := sim.MeasureFile(path)
	if err != nil {
		return measured{}, err
	}
	m := measured{Program: path, MREnclave: hex.EncodeToString(p.Measurement[:]), Development: p.Signature == nil}
	if s := p.Signature; s != nil {
		id := sim.SignerID(s.Signer)
		m.MRSigner, m.Product, m.SVN, m.Debug = hex.EncodeToString(id[:]), s.Product, s.SVN, s.Debug
	}
	return m, nil
}

func (m measured) print(e env) {
	fmt.Fprintf(e.stdout, "MRENCLAVE: %s\n", m.MREnclave)
	if m.Development {
		fmt.Fprintln(e.stdout, "MRSIGNER:  the development signer of each machine: nobody signed this program")
		return
	}
	fmt.Fprintf(e.stdout, "MRSIGNER:  %s\nproduct:   %d\nSVN:       %d\n", m.MRSigner, m.Product, m.SVN)
	if m.Debug {
		fmt.Fprintln(e.stdout, "debug:     yes, the host can read the program's memory")
	}
}

func measure(e env, args []string) error {
	f := newFlags("measure")
	output := f.String("output", "text", "")
	operands, err := parse(f, args, 1)
	if err != nil {
		return err
	}
	if *output != "text" && *output != "json" {
		return fmt.Errorf("%w: measure: --output %q, want text or json", errUsage, *output)
	}
	m, err := describe(operands[0])
	if err != nil {
		return err
	}
	if *output == "json" {
		return json.NewEncoder(e.stdout).Encode(m)
	}
	m.print(e)
	return nil
}

func collateral(e env, args []string) error {
	f := newFlags("collateral")
	dir, fleet, out := f.String("dir", "", ""), f.String("fleet", "", ""), f.String("out", "collateral.bin", "")
	if _, err := parse(f, args, 0, "dir"); err != nil {
		return err
	}
	if _, err := os.Stat(*dir); err != nil { // or a new machine would be made
		return fmt.Errorf("simulated machine: %w", err)
	}
	p, err := sim.OpenProcessor(*dir, sim.Options{Fleet: *fleet})
	if err != nil {
		return err
	}
	c, err := p.Issue(p.Terms(time.Now()))
	if err != nil {
		return err
	}
	root := filepath.Join(filepath.Dir(*out), rootFile)
	if err := os.WriteFile(*out, c.Append(nil), 0o644); err != nil {
		return fmt.Errorf("write collateral: %w", err)
	}
	if err := os.WriteFile(root, quote.EncodeChain(p.Root().Raw), 0o644); err != nil {
		return fmt.Errorf("write the root certificate: %w", err)
	}
	fmt.Fprintf(e.stderr, "ehsm-simtee: wrote %s and %s, of a simulated fleet\n", *out, root)
	return nil
}
