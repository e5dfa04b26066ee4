package verify_test

import (
	"bytes"
	"crypto/x509"
	"math/big"
	"strings"
	"testing"
	"time"

	"github.com/ehsm-kms/ehsm/internal/attest/dcap/issue"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/quote"
	"github.com/ehsm-kms/ehsm/internal/attest/dcap/verify"
	"github.com/ehsm-kms/ehsm/internal/attest/strictjson"
)

func TestRefusedTCBInfo(t *testing.T) {
	edit := func(f func(d *issue.TCBInfo)) func(s *scene) { return func(s *scene) { s.tcbInfo(f) } }
	text := func(old, new string) func(s *scene) { return func(s *scene) { s.tcbText(old, new) } }
	signer := func(f func(*x509.Certificate)) func(s *scene) { return func(s *scene) { s.reissueSigner(f) } }
	const step = verify.StepTCBInfo
	testRefusals(t, map[string]refusal{
		"missing":        {func(s *scene) { s.collateral.TCBInfo = nil }, step, verify.ErrDocumentMissing},
		"too long":       {func(s *scene) { s.collateral.TCBInfo = make([]byte, verify.MaxDocument+1) }, step, strictjson.ErrTooLong},
		"no chain":       {func(s *scene) { s.collateral.TCBInfoIssuerChain = nil }, step, quote.ErrChainLength},
		"chain of three": {func(s *scene) { s.collateral.TCBInfoIssuerChain = s.machine.Chain }, step, quote.ErrChainLength},
		"chain to another root": {func(s *scene) {
			s.collateral.TCBInfoIssuerChain = quote.EncodeChain(s.fleet.TCBSigner.Cert.Raw, verify.IntelRoot().Raw)
		}, step, verify.ErrUnknownRoot},
		"signer of other fleet": {func(s *scene) {
			s.collateral.TCBInfoIssuerChain = quote.EncodeChain(s.otherFleet().TCBSigner.Cert.Raw, s.fleet.Root.Cert.Raw)
		}, step, verify.ErrCertSignature},
		"PCK CA as signer": {func(s *scene) {
			s.collateral.TCBInfoIssuerChain = quote.EncodeChain(s.fleet.PCKCA.Cert.Raw, s.fleet.Root.Cert.Raw)
		}, step, verify.ErrCertIsCA},
		"PCK leaf as signer": {func(s *scene) {
			s.collateral.TCBInfoIssuerChain = quote.EncodeChain(s.machine.PCK.Cert.Raw, s.fleet.Root.Cert.Raw)
		}, step, verify.ErrCertIssuer},
		"signer of other role": {signer(named("Simulated SGX PCK Certificate")), step, verify.ErrCertRole},
		"signer expired":       {signer(expired), step, verify.ErrCertExpired},
		"signer to come":       {signer(notYet), step, verify.ErrCertNotYetValid},
		"signer may not sign":  {signer(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), step, verify.ErrCertKeyUsage},
		"signer, critical":     {signer(setCritical), step, verify.ErrCertExtension},
		"signer revoked":       {func(s *scene) { s.terms.RevokedCAs = []*big.Int{s.fleet.TCBSigner.Cert.SerialNumber}; s.endorse() }, step, verify.ErrTCBSignerRevoked},
		"byte changed": {func(s *scene) {
			s.collateral.TCBInfo = bytes.Replace(s.collateral.TCBInfo, []byte(`:20,`), []byte(`:21,`), 1)
		}, step, verify.ErrSignatureMismatch},
		"space added":            {func(s *scene) { s.collateral.TCBInfo = append(s.collateral.TCBInfo, ' ') }, step, verify.ErrSignatureMismatch},
		"signature flipped":      {func(s *scene) { s.collateral.TCBInfoSignature[0] ^= 1 }, step, verify.ErrSignatureMismatch},
		"signature of zeros":     {func(s *scene) { s.collateral.TCBInfoSignature = [64]byte{} }, step, verify.ErrSignatureMismatch},
		"signature of the other": {func(s *scene) { s.collateral.TCBInfoSignature = s.collateral.QEIdentitySignature }, step, verify.ErrSignatureMismatch},
		"documents exchanged": {func(s *scene) {
			c := &s.collateral
			c.TCBInfo, c.TCBInfoSignature = c.QEIdentity, c.QEIdentitySignature
		}, step, verify.ErrDocumentVersion},

		"not JSON":              {text("{", "["), step, strictjson.ErrSyntax},
		"two documents":         {text("{", "{}{"), step, strictjson.ErrSyntax},
		"member twice":          {text(`"pceId"`, `"fmspc":"000000000000","pceId"`), step, strictjson.ErrDuplicate},
		"member twice, deep":    {text(`"pcesvn"`, `"pcesvn":0,"pcesvn"`), step, strictjson.ErrDuplicate},
		"twice in a component":  {text(`"svn":5`, `"svn":5,"svn":5`), step, strictjson.ErrDuplicate},
		"other case":            {text(`"fmspc"`, `"FMSPC"`), step, strictjson.ErrMissing},
		"no issue date":         {text(`"issueDate"`, `"x"`), step, strictjson.ErrMissing},
		"no next update":        {text(`"nextUpdate"`, `"x"`), step, strictjson.ErrMissing},
		"no version":            {text(`"version"`, `"x"`), step, strictjson.ErrMissing},
		"no id":                 {text(`"id"`, `"x"`), step, strictjson.ErrMissing},
		"no tcbType":            {text(`"tcbType"`, `"x"`), step, strictjson.ErrMissing},
		"no evaluation number":  {text(`"tcbEvaluationDataNumber"`, `"x"`), step, strictjson.ErrMissing},
		"no PCEID":              {text(`"pceId"`, `"x"`), step, strictjson.ErrMissing},
		"no levels member":      {text(`"tcbLevels"`, `"x"`), step, strictjson.ErrMissing},
		"level without TCB":     {text(`"tcb":`, `"x":`), step, strictjson.ErrMissing},
		"level without PCESVN":  {text(`"pcesvn"`, `"x"`), step, strictjson.ErrMissing},
		"level without status":  {text(`"tcbStatus"`, `"x"`), step, strictjson.ErrMissing},
		"level without a date":  {text(`"tcbDate"`, `"x"`), step, strictjson.ErrMissing},
		"component without SVN": {text(`"svn"`, `"x"`), step, strictjson.ErrMissing},
		"SVN as text":           {text(`"svn":5`, `"svn":"5"`), step, strictjson.ErrType},
		"SVN 256":               {text(`"svn":5`, `"svn":256`), step, strictjson.ErrValue},
		"SVN 5.0":               {text(`"svn":5`, `"svn":5.0`), step, strictjson.ErrValue},
		"SVN below 0":           {text(`"svn":5`, `"svn":-5`), step, strictjson.ErrValue},
		"PCESVN 65536":          {text(`"pcesvn":13`, `"pcesvn":65536`), step, strictjson.ErrValue},
		"FMSPC too short":       {text(`"fmspc":"00`, `"fmspc":"`), step, strictjson.ErrValue},
		"version as text":       {text(`"version":3`, `"version":"3"`), step, strictjson.ErrType},
		"date with an offset":   {text(`Z","nextUpdate"`, `+00:00","nextUpdate"`), step, strictjson.ErrValue},
		"levels as an object":   {text(`"tcbLevels":[`, `"tcbLevels":{},"y":[`), step, strictjson.ErrType},
		"advisories as text":    {text(`"tcbStatus"`, `"advisoryIDs":"A","tcbStatus"`), step, strictjson.ErrType},
		"long advisory":         {edit(func(d *issue.TCBInfo) { d.Levels[0].Advisories = []string{strings.Repeat("A", 65)} }), step, strictjson.ErrTooLong},

		"version 2":             {edit(func(d *issue.TCBInfo) { d.Version = 2 }), step, verify.ErrDocumentVersion},
		"version 0":             {edit(func(d *issue.TCBInfo) { d.Version = 0 }), step, verify.ErrDocumentVersion},
		"version 4":             {edit(func(d *issue.TCBInfo) { d.Version = 4 }), step, verify.ErrDocumentVersion},
		"for TDX":               {edit(func(d *issue.TCBInfo) { d.ID = "TDX" }), step, verify.ErrDocumentID},
		"for nothing":           {edit(func(d *issue.TCBInfo) { d.ID = "" }), step, verify.ErrDocumentID},
		"tcbType 1":             {edit(func(d *issue.TCBInfo) { d.Type = 1 }), step, verify.ErrTCBType},
		"TDX module":            {text(`"tcbType"`, `"tdxModule":{},"tcbType"`), step, verify.ErrTDXMember},
		"TDX module identities": {text(`"tcbType"`, `"tdxModuleIdentities":[],"tcbType"`), step, verify.ErrTDXMember},
		"15 components":         {edit(func(d *issue.TCBInfo) { c := &d.Levels[0].TCB; c.Components = c.Components[:15] }), step, verify.ErrComponents},
		"17 components":         {edit(func(d *issue.TCBInfo) { c := &d.Levels[0].TCB; c.Components = append(c.Components, issue.Component{}) }), step, verify.ErrComponents},
		"no components":         {edit(func(d *issue.TCBInfo) { d.Levels[0].TCB.Components = []issue.Component{} }), step, verify.ErrComponents},
		"no levels":             {edit(func(d *issue.TCBInfo) { d.Levels = []issue.TCBLevel{} }), step, verify.ErrLevels},
		"level twice":           {edit(func(d *issue.TCBInfo) { d.Levels = append(d.Levels, d.Levels[0]) }), step, verify.ErrLevels},
		"unknown status":        {edit(func(d *issue.TCBInfo) { d.Levels[0].Status = "Fine" }), step, verify.ErrUnknownStatus},
		"empty status":          {edit(func(d *issue.TCBInfo) { d.Levels[0].Status = "" }), step, verify.ErrUnknownStatus},
		"status of TDX":         {edit(func(d *issue.TCBInfo) { d.Levels[0].Status = "TDRelaunchAdvised" }), step, verify.ErrUnknownStatus},
		"issued later":          {edit(func(d *issue.TCBInfo) { d.Issued = issue.Time(now.Add(time.Second)) }), step, verify.ErrDocumentNotYetValid},
		"expired":               {edit(func(d *issue.TCBInfo) { d.Next = issue.Time(now.Add(-time.Second)) }), step, verify.ErrDocumentExpired},
		"beyond grace": {func(s *scene) {
			s.options.CollateralGrace = day
			s.tcbInfo(func(d *issue.TCBInfo) { d.Next = issue.Time(now.Add(-day - time.Second)) })
		}, step, verify.ErrDocumentExpired},
		"evaluation below": {func(s *scene) { s.options.MinTCBEvaluation = 21 }, step, verify.ErrEvaluationNumber},
	})
}

func TestRefusedQEIdentity(t *testing.T) {
	edit := func(f func(d *issue.QEIdentity)) func(s *scene) { return func(s *scene) { s.qeIdentity(f) } }
	text := func(old, new string) func(s *scene) { return func(s *scene) { s.qeText(old, new) } }
	qe := func(f func(r *quote.Report)) func(s *scene) { return func(s *scene) { s.qe(f) } }
	const step = verify.StepQEIdentity
	testRefusals(t, map[string]refusal{
		"missing":  {func(s *scene) { s.collateral.QEIdentity = nil }, step, verify.ErrDocumentMissing},
		"too long": {func(s *scene) { s.collateral.QEIdentity = make([]byte, verify.MaxDocument+1) }, step, strictjson.ErrTooLong},
		"no chain": {func(s *scene) { s.collateral.QEIdentityIssuerChain = nil }, step, quote.ErrChainLength},
		"chain to another root": {func(s *scene) {
			s.collateral.QEIdentityIssuerChain = quote.EncodeChain(s.fleet.TCBSigner.Cert.Raw, verify.IntelRoot().Raw)
		}, step, verify.ErrUnknownRoot},
		"PCK CA as signer": {func(s *scene) {
			s.collateral.QEIdentityIssuerChain = quote.EncodeChain(s.fleet.PCKCA.Cert.Raw, s.fleet.Root.Cert.Raw)
		}, step, verify.ErrCertIsCA},
		"byte changed": {func(s *scene) {
			s.collateral.QEIdentity = bytes.Replace(s.collateral.QEIdentity, []byte(`:20,`), []byte(`:21,`), 1)
		}, step, verify.ErrSignatureMismatch},
		"signature flipped": {func(s *scene) { s.collateral.QEIdentitySignature[63] ^= 1 }, step, verify.ErrSignatureMismatch},
		"TCB info in its place": {func(s *scene) {
			c := &s.collateral
			c.QEIdentity, c.QEIdentitySignature = c.TCBInfo, c.TCBInfoSignature
		}, step, verify.ErrDocumentVersion},
		"not JSON":             {text("{", "["), step, strictjson.ErrSyntax},
		"member twice":         {text(`"isvprodid"`, `"isvprodid":1,"isvprodid"`), step, strictjson.ErrDuplicate},
		"no MRSIGNER":          {text(`"mrsigner"`, `"x"`), step, strictjson.ErrMissing},
		"no attributes mask":   {text(`"attributesMask"`, `"x"`), step, strictjson.ErrMissing},
		"no ISVSVN in a level": {text(`"isvsvn"`, `"x"`), step, strictjson.ErrMissing},
		"no status in a level": {text(`"tcbStatus"`, `"x"`), step, strictjson.ErrMissing},
		"product 65536":        {text(`"isvprodid":1`, `"isvprodid":65536`), step, strictjson.ErrValue},
		"short mask":           {text(`"miscselectMask":"ff`, `"miscselectMask":"`), step, strictjson.ErrValue},
		"version 3":            {edit(func(d *issue.QEIdentity) { d.Version = 3 }), step, verify.ErrDocumentVersion},
		"version 0":            {edit(func(d *issue.QEIdentity) { d.Version = 0 }), step, verify.ErrDocumentVersion},
		"for the QVE":          {edit(func(d *issue.QEIdentity) { d.ID = "QVE" }), step, verify.ErrDocumentID},
		"for TDX":              {edit(func(d *issue.QEIdentity) { d.ID = "TD_QE" }), step, verify.ErrDocumentID},
		"issued later":         {edit(func(d *issue.QEIdentity) { d.Issued = issue.Time(now.Add(time.Second)) }), step, verify.ErrDocumentNotYetValid},
		"expired":              {edit(func(d *issue.QEIdentity) { d.Next = issue.Time(now.Add(-time.Second)) }), step, verify.ErrDocumentExpired},
		"evaluation below": {func(s *scene) {
			s.options.MinTCBEvaluation = 20
			s.qeIdentity(func(d *issue.QEIdentity) { d.Evaluation = 19 })
		}, step, verify.ErrEvaluationNumber},
		"no levels":      {edit(func(d *issue.QEIdentity) { d.Levels = []issue.QELevel{} }), step, verify.ErrLevels},
		"level twice":    {edit(func(d *issue.QEIdentity) { d.Levels = append(d.Levels, d.Levels[0]) }), step, verify.ErrLevels},
		"unknown status": {edit(func(d *issue.QEIdentity) { d.Levels[0].Status = "Fine" }), step, verify.ErrUnknownStatus},
		"empty status":   {edit(func(d *issue.QEIdentity) { d.Levels[0].Status = "" }), step, verify.ErrUnknownStatus},

		"MISCSELECT":      {qe(func(r *quote.Report) { r.MiscSelect = 1 }), step, verify.ErrQEMiscSelect},
		"flags":           {qe(func(r *quote.Report) { r.Attributes.Flags |= quote.FlagKSS }), step, verify.ErrQEAttributes},
		"no provisioning": {qe(func(r *quote.Report) { r.Attributes.Flags &^= quote.FlagProvisionKey }), step, verify.ErrQEAttributes},
		"debug":           {qe(func(r *quote.Report) { r.Attributes.Flags |= quote.FlagDebug }), step, verify.ErrQEDebug},
		"debug, mask allows it": {func(s *scene) {
			s.qeIdentity(func(d *issue.QEIdentity) { d.AttributesMask = "f9" + d.AttributesMask[2:] })
			s.qe(func(r *quote.Report) { r.Attributes.Flags |= quote.FlagDebug })
		}, step, verify.ErrQEDebug},
		"other signer":           {qe(func(r *quote.Report) { r.MRSigner[31] ^= 1 }), step, verify.ErrQESigner},
		"other product":          {qe(func(r *quote.Report) { r.ISVProdID++ }), step, verify.ErrQEProduct},
		"SVN below all":          {qe(func(r *quote.Report) { r.ISVSVN-- }), step, verify.ErrQELevel},
		"level revoked":          {func(s *scene) { s.terms.QEStatus = verify.Revoked; s.endorse() }, step, verify.ErrQERevoked},
		"bits outside the mask":  {edit(func(d *issue.QEIdentity) { d.Attributes = "15" + d.Attributes[2:] }), step, verify.ErrQEAttributes},
		"misc outside the mask":  {edit(func(d *issue.QEIdentity) { d.MiscMask, d.MiscSelect = "00000000", "00000001" }), step, verify.ErrQEMiscSelect},
		"identity of an enclave": {edit(func(d *issue.QEIdentity) { d.MRSigner = strings.Repeat("02", 32) }), step, verify.ErrQESigner},
	})
}

func TestRefusedPlatforms(t *testing.T) {
	edit := func(f func(d *issue.TCBInfo)) func(s *scene) { return func(s *scene) { s.tcbInfo(f) } }
	const step = verify.StepTCBLevel
	testRefusals(t, map[string]refusal{
		"other FMSPC":   {edit(func(d *issue.TCBInfo) { d.FMSPC = "000000000000" }), step, verify.ErrFMSPC},
		"other PCEID":   {edit(func(d *issue.TCBInfo) { d.PCEID = "0001" }), step, verify.ErrPCEID},
		"below in one":  {edit(func(d *issue.TCBInfo) { d.Levels[0].TCB.Components[15].SVN++ }), step, verify.ErrNoTCBLevel},
		"below in PCE":  {edit(func(d *issue.TCBInfo) { d.Levels[0].TCB.PCESVN++ }), step, verify.ErrNoTCBLevel},
		"level revoked": {func(s *scene) { s.terms.Status = verify.Revoked; s.endorse() }, step, verify.ErrPlatformRevoked},
	})
}
