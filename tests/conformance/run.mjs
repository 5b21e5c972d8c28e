// Runs the public suite for HTTP caches against one base URL and prints the results, with the suite's own verdicts.
//
//     node run.mjs BASE-URL [--one-connection-per-test] [--id TEST-ID]
//
// One connection per test: with several workers, each with a cache of its own, all requests of a test reach the same.

import http from 'node:http'
import fetch from 'node-fetch'
import { runTests, getResults } from 'http-cache-tests/client/runner.mjs'
import { determineTestResult } from 'http-cache-tests/lib/display.mjs'
import tests from 'http-cache-tests/tests/index.mjs'
import surrogate from 'http-cache-tests/tests/surrogate-control.mjs'

tests.push(surrogate) // as the suite's own command line does

const base = process.argv[2]
const isPinned = process.argv.includes('--one-connection-per-test')
const wanted = process.argv.includes('--id') ? process.argv[process.argv.indexOf('--id') + 1] : null

const agents = new Map()

// The second segment of a path names the test's run: /config/RUN, /test/RUN/..., /state/RUN.
function agentOf (url) {
  const run = new URL(url).pathname.split('/')[2]
  if (!agents.has(run)) agents.set(run, new http.Agent({ keepAlive: true, maxSockets: 1 }))
  return agents.get(run)
}

function pinned (url, init) {
  return fetch(url, { ...init, agent: agentOf(url) })
}

function select (suite) {
  return { ...suite, tests: suite.tests.filter(test => test.id === wanted).map(test => ({ ...test, dump: true })) }
}

await runTests(wanted ? tests.map(select) : tests, isPinned ? pinned : fetch, false, base)

const results = getResults()
const report = []
for (const suite of tests) {
  for (const test of suite.tests) {
    if (test.browser_only || !(test.id in results)) continue
    const verdict = determineTestResult(tests, test.id, results, !wanted)[2]
    const message = results[test.id] === true ? '' : results[test.id].join(': ')
    report.push({ suite: suite.id, id: test.id, kind: test.kind || 'required', verdict, message })
  }
}
process.stdout.write(JSON.stringify(report, null, 2) + '\n', () => process.exit(0))
