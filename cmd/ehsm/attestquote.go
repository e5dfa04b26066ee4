package main

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ehsm-kms/ehsm/api"
	"github.com/ehsm-kms/ehsm/client/ehsm"
	"github.com/ehsm-kms/ehsm/client/ehsm/attested"
	"github.com/ehsm-kms/ehsm/internal/attest"
)

func newAttestQuote(a *app) *cobra.Command {
	var challenge, out string
	cmd := &cobra.Command{
		Use:   "quote -o FILE",
		Short: "Have the service make a quote, to verify now or elsewhere",
		Long: `quote has the core of the service make a quote over a challenge, random or yours,
and checks that the quote binds it, and the domain and the HPKE key that the
service names. The reply is signed for you, so the host cannot exchange them.

That does not say that the quote is genuine: "ehsm attest verify" does. To ask a
service before you trust it with anything, use "ehsm attest verify --url", which
needs no credentials.`,
		Example: `  ehsm attest quote -o quote.bin
  ehsm attest quote --challenge $(openssl rand -hex 32) -o quote.bin --output json`,
		Args: args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error { return a.attestQuote(cmd.Context(), challenge, out) },
	}
	cmd.Flags().StringVar(&challenge, "challenge", "", "`bytes` in hex that the quote must bind, instead of random ones")
	cmd.Flags().StringVarP(&out, "out", "o", "", "`file` for the quote")
	return cmd
}

// A madeQuote is what attest quote prints.
type madeQuote struct {
	File       string `json:"file"`
	Kind       string `json:"kind"`
	Size       int    `json:"size"`
	Challenge  string `json:"challenge"`
	Binding    string `json:"reportDataBinding"`
	ReportData string `json:"reportData"`
	DomainID   string `json:"domainId"`
	HPKEKey    string `json:"hpkePublicKey"`
	Next       string `json:"next"`
}

func (a *app) attestQuote(ctx context.Context, challengeHex, out string) error {
	if out == "" {
		return withHint(usagef("no file for the quote"), "ehsm attest quote -o quote.bin")
	}
	challenge, err := parseHexBytes("challenge", challengeHex, api.MaxChallenge)
	if err != nil {
		return err
	}
	client, err := a.client()
	if err != nil {
		return err
	}
	defer client.Close()
	r, err := client.GenerateQuote(ctx, challenge)
	switch {
	case refusalOf(err) == api.MessageException:
		return withHint(fmt.Errorf("the service makes no quotes: %w", err), "its platform has none, or its quote provider failed: its log says more")
	case errors.Is(err, ehsm.ErrQuoteBinding):
		return withHint(err, "the quote was made for another purpose: do not use this service")
	case err != nil:
		return err
	}
	if err := a.write(out, func(w io.Writer) error { _, err := w.Write(r.Quote); return err }); err != nil {
		return err
	}
	m, err := madeQuoteOf(&r, out)
	if err != nil {
		return err
	}
	return a.emit(m, m.text())
}

// refusalOf returns the text with which the service refused, or "".
func refusalOf(err error) string {
	var refusal *api.Error
	if errors.As(err, &refusal) {
		return refusal.Message
	}
	return ""
}

// madeQuoteOf describes a quote whose binding the client has checked.
func madeQuoteOf(r *api.GenerateQuoteResult, file string) (*madeQuote, error) {
	domain, err := attested.ParseDomain(r.DomainID)
	if err != nil {
		return nil, err
	}
	data := attest.NativeReportData(r.Challenge, domain, r.HPKEPublicKey)
	m := &madeQuote{
		File: file, Kind: attest.KindOf(r.Quote).String(), Size: len(r.Quote), Challenge: hex.EncodeToString(r.Challenge),
		Binding: r.ReportDataBinding, ReportData: hex.EncodeToString(data[:]), DomainID: r.DomainID, HPKEKey: hex.EncodeToString(r.HPKEPublicKey),
	}
	m.Next = fmt.Sprintf("%s attest verify %s --collateral collateral.json --policy FILE --report-data %s", program(), shellWord(file), m.ReportData)
	return m, nil
}

func (m *madeQuote) text() string {
	var b strings.Builder
	row(&b, "quote:", "%s, %s of %d bytes", m.File, m.Kind, m.Size)
	row(&b, "challenge:", "%s, which it binds", m.Challenge)
	row(&b, "domain:", "%s", m.DomainID)
	row(&b, "REPORTDATA:", "%s", m.ReportData)
	fmt.Fprintf(&b, "\nThat it binds all this does not say that it is genuine. To verify it:\n  %s attest collateral fetch --service -o collateral.json\n  %s\n", program(), m.Next)
	return b.String()
}

// parseHexBytes reads 1 to max bytes in hex; of no text it makes 32 random ones.
func parseHexBytes(flag, text string, max int) ([]byte, error) {
	if text == "" {
		b := make([]byte, api.EvidenceChallenge)
		rand.Read(b) // never fails
		return b, nil
	}
	b, err := hex.DecodeString(text)
	if err != nil || len(b) > max {
		return nil, usagef("--%s is %q, want an even number of hex digits, at most %d", flag, text, 2*max)
	}
	return b, nil
}
