// Reads one case a line on standard input and writes one verdict a line: what
// @phala/dcap-qvl says of a quote with collateral at a time under a root.
'use strict';

const { createInterface } = require('node:readline');
const { createRequire } = require('node:module');
const { QuoteVerifier } = createRequire(process.argv[2] + '/')('@phala/dcap-qvl');

function verdict(line) {
  const c = JSON.parse(line);
  try {
    const verifier = QuoteVerifier.newWithRootCa(Buffer.from(c.root, 'hex'));
    const r = verifier.verify(Buffer.from(c.quote, 'hex'), c.collateral, c.now);
    return { ok: true, status: r.status, advisories: r.advisory_ids };
  } catch (e) {
    return { ok: false, error: String(e && e.message) };
  }
}

createInterface({ input: process.stdin }).on('line', (line) => {
  process.stdout.write(JSON.stringify(verdict(line)) + '\n');
});
