// Runs the public suite of HTTP cache tests against a real ktrix: the suite's own origin, a ktrix
// in front of it with the configuration below, and the suite's own client.
//
// A required test checks a duty of a cache: all of them have to pass, except those that
// exceptions.txt lists with the reasons. An optional one checks an optimal cache: those in
// optional.txt have to pass, and a test that passes and is not in the list has to be added to it,
// so that the list only grows. A check only observes how a cache behaves; the results are printed
// beside those of other caches, as the suite records them.
//
// With HTTP2 the client speaks HTTP/2 to ktrix.
//
//     [HTTP2=1] node suite.mjs KTRIX [ID ...]

import { spawn } from 'node:child_process'
import { once } from 'node:events'
import fs from 'node:fs/promises'
import net from 'node:net'
import os from 'node:os'
import path from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'

import fetch from 'node-fetch'
import * as http2 from './http2.mjs'
import { getResults, runTests } from 'http-cache-tests/client/runner.mjs'
import peers from 'http-cache-tests/results/index.mjs'
import suites from 'http-cache-tests/tests/index.mjs'

const HERE = path.dirname(fileURLToPath(import.meta.url))
const SUITE = path.join(HERE, 'node_modules', 'http-cache-tests')

// The numbers of required and optional tests that apply to a shared cache.
const REQUIRED = 157
const OPTIONAL = 86

// The time limit for ktrix and the origin to listen.
const START_MS = 20_000

function config (dir, port, origin) {
  return `listen: 127.0.0.1:${port}
workers: 2
log: {access: off, error: stderr}
cache: {path: ${dir}/cache, size: 256 MiB, objects: 10000, rules: {set-cookie: store, vary-language: best}}
upstream: localhost:${origin}
`
}

// The tests that are not for browsers alone.
function applicable (ids) {
  const isWanted = test => ids.length === 0 || ids.includes(test.id)
  return suites
    .map(suite => ({ ...suite, tests: suite.tests.filter(test => !test.browser_only && isWanted(test)) }))
    .filter(suite => suite.tests.length > 0)
}

async function startOrigin (dir) {
  const env = {
    ...process.env,
    npm_config_protocol: 'http',
    npm_config_port: '0',
    npm_config_pidfile: path.join(dir, 'origin.pid')
  }
  const script = path.join(SUITE, 'server', 'server.mjs')
  const child = spawn(process.execPath, [script], { env, stdio: ['ignore', 'pipe', 'inherit'] })
  const lines = createInterface({ input: child.stdout })
  const [line] = await within('the origin to listen', once(lines, 'line'))
  const port = Number(/:(\d+)\/$/.exec(line)[1])
  if (process.argv.length > 3) lines.on('line', text => console.log(text))
  return { child, port }
}

async function startKtrix (binary, dir, origin) {
  const port = await freePort()
  const file = path.join(dir, 'ktrix.yaml')
  await fs.writeFile(file, config(dir, port, origin))
  const child = spawn(path.resolve(binary), [file], { stdio: ['ignore', 'inherit', 'inherit'] })
  const ended = once(child, 'exit').then(([code]) => { throw new Error(`ktrix ended with ${code}`) })
  await within('ktrix to listen', Promise.race([ended, accepts(port)]))
  ended.catch(() => {})
  return { child, port }
}

async function freePort () {
  const server = net.createServer().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address()
  server.close()
  await once(server, 'close')
  return port
}

async function accepts (port) {
  for (;;) {
    const socket = net.connect(port, '127.0.0.1')
    try {
      await once(socket, 'connect')
      return
    } catch {
      await new Promise(resolve => setTimeout(resolve, 20))
    } finally {
      socket.destroy()
    }
  }
}

async function within (what, wait) {
  let timer
  const late = new Promise((resolve, reject) => {
    timer = setTimeout(() => reject(new Error(`waited in vain for ${what}`)), START_MS)
  })
  try {
    return await Promise.race([wait, late])
  } finally {
    clearTimeout(timer)
  }
}

async function stop ({ child }) {
  if (child.exitCode !== null) return
  const ended = once(child, 'exit')
  child.kill('SIGTERM')
  await ended
}

async function names (file) {
  const text = await fs.readFile(path.join(HERE, file), 'utf8')
  return text.split('\n').filter(line => line !== '' && !line.startsWith('#'))
}

function printChecks (checks, results, others) {
  console.log('\nBehaviour that no rule decides; after ktrix, as the suite records them:')
  console.log(others.map(other => other.name).join(', '))
  const mark = result => result === undefined ? '-' : result === true ? 'y' : 'n'
  for (const test of checks) {
    const row = others.map(other => mark(other.results[test.id])).join(' ')
    console.log(`  ${results[test.id] === true ? 'yes' : 'no '}  ${row}  ${test.id}`)
  }
}

async function recorded () {
  const isPeer = peer => peer.type === 'rev-proxy'
  return Promise.all(peers.filter(isPeer).map(async peer => {
    const text = await fs.readFile(path.join(SUITE, 'results', peer.file), 'utf8')
    return { name: `${peer.name} ${peer.version}`, results: JSON.parse(text) }
  }))
}

// Prints the results; returns whether they are good.
async function judge (tests, results) {
  const kind = test => test.kind ?? 'required'
  const of = wanted => tests.filter(test => kind(test) === wanted)
  const passes = test => results[test.id] === true
  const why = test => results[test.id]?.join(': ') ?? 'not run'
  const [required, optional] = [of('required'), of('optimal')]
  const faults = []
  const excepted = await names('exceptions.txt')
  for (const test of required) {
    const isExcepted = excepted.includes(test.id)
    if (!isExcepted && !passes(test)) faults.push(`required: ${test.id}: ${why(test)}`)
    if (isExcepted && passes(test)) faults.push(`required: ${test.id} passes: remove it from exceptions.txt`)
    if (isExcepted && !passes(test)) console.log(`required, excepted: ${test.id}: ${why(test)}`)
  }
  const listed = await names('optional.txt')
  for (const test of optional) {
    const isListed = listed.includes(test.id)
    if (isListed && !passes(test)) faults.push(`optional: ${test.id}: ${why(test)}`)
    if (!isListed && passes(test)) faults.push(`optional: ${test.id} passes: add it to optional.txt`)
    if (!isListed && !passes(test)) console.log(`optional, not passed: ${test.id}: ${why(test)}`)
  }
  for (const [ids, among] of [[listed, optional], [excepted, required]]) {
    const isKnown = id => among.some(test => test.id === id)
    ids.filter(id => !isKnown(id)).forEach(id => faults.push(`${id} is listed and is no such test`))
  }
  printChecks(of('check'), results, await recorded())
  const count = tests => tests.filter(passes).length
  console.log(`\nrequired: ${count(required)} of ${required.length}`)
  console.log(`optional: ${count(optional)} of ${optional.length}`)
  if (required.length !== REQUIRED || optional.length !== OPTIONAL) {
    faults.push(`the suite should have ${REQUIRED} required and ${OPTIONAL} optional tests`)
  }
  faults.forEach(fault => console.error(fault))
  return faults.length === 0
}

async function main () {
  const [binary, ...ids] = process.argv.slice(2)
  const dir = await fs.mkdtemp(path.join(os.tmpdir(), 'ktrix-http-cache.'))
  const running = []
  try {
    const origin = await startOrigin(dir)
    running.push(origin)
    const ktrix = await startKtrix(binary, dir, origin.port)
    running.push(ktrix)
    const chosen = applicable(ids)
    const tests = chosen.flatMap(suite => suite.tests)
    if (ids.length > 0) tests.forEach(test => { test.dump = true })
    const client = process.env.HTTP2 ? http2.fetch : fetch
    await runTests(chosen, client, false, `http://localhost:${ktrix.port}`, tests.length)
    const results = getResults()
    if (ids.length > 0) {
      console.log(JSON.stringify(results, null, 2))
      return true
    }
    return await judge(tests, results)
  } finally {
    http2.close()
    for (const child of running.reverse()) await stop(child)
    await fs.rm(dir, { recursive: true, force: true })
  }
}

process.exitCode = await main() ? 0 : 1
