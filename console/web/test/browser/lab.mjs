// A live boot service on loopback, simulated machines, and a browser before it.
// Everything is built here from the sources, and taken down with the test.

import { spawn } from 'node:child_process'
import { mkdtemp, mkdir, rm, writeFile } from 'node:fs/promises'
import https from 'node:https'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { fileURLToPath } from 'node:url'
import { createHash } from 'node:crypto'
import { chromium } from 'playwright-core'

export const repository = fileURLToPath(new URL('../../../../', import.meta.url))
const web = join(repository, 'console/web')
const screenshots = join(repository, 'out/screenshots')

export const operatorToken = 'token of the browser tests'
export const password = 'correct horse battery'

// waitLimit bounds each wait for something to come true, in ms. It is long
// because it only costs when something is wrong.
export const waitLimit = 60_000

// siteFile is a site whose discovery window is always open, unless it is told
// otherwise.
export function siteFile(changes = {}) {
  const { from = '192.0.2.100', name = 'lab', always = true, sshKey } = changes
  return `version: 1
name: ${name}
serviceAddress: 192.0.2.1
links:
  - interface: eth0
    address: 192.0.2.2/24
    dhcp:
      from: ${from}
      to: 192.0.2.200
discovery:
  always: ${always}
operators:
  - name: tests
    tokenSHA256: ${createHash('sha256').update(operatorToken).digest('hex')}
${sshKey ? `sshKeys:\n  - ${sshKey}\n` : ''}`
}

// until calls look until it returns something true, and returns that. An error
// of look counts as not yet.
export async function until(what, look, limit = waitLimit) {
  const end = Date.now() + limit
  for (let last; ; ) {
    try {
      const found = await look()
      if (found) return found
      last = undefined
    } catch (e) {
      last = e
    }
    if (Date.now() > end) throw new Error(`${what}: not within ${limit} ms`, { cause: last })
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

// run runs a program to its end and returns what it printed.
async function run(program, args, cwd = repository) {
  const child = spawn(program, args, { cwd, stdio: ['ignore', 'pipe', 'pipe'] })
  let out = ''
  child.stdout.on('data', (d) => (out += d))
  child.stderr.on('data', (d) => (out += d))
  const code = await new Promise((resolve, reject) => child.on('error', reject).on('close', resolve))
  if (code !== 0) throw new Error(`${program} ${args.join(' ')} ended with ${code}:\n${out}`)
  return out
}

const given = new Set() // ports on which nobody may listen yet

// freePort is one that nobody listens on now, each time another one. It is asked for so
// that a service can be started again at the same address. Linux gives connections that
// go out ports from 32768 on (net.ipv4.ip_local_port_range): one of those is taken by the
// next that comes.
async function freePort() {
  for (let tries = 0; ; tries++) {
    const port = 20_000 + Math.floor(Math.random() * 12_000)
    if (given.has(port) && tries < 100) continue
    given.add(port)
    const server = createServer()
    try {
      await new Promise((resolve, reject) => server.once('error', reject).listen(port, '127.0.0.1', resolve))
    } catch (e) {
      if (e.code !== 'EADDRINUSE' || tries > 100) throw e
      continue
    }
    await new Promise((resolve) => server.close(resolve))
    return port
  }
}

// ended resolves with what a child's exit was.
const ended = (child) =>
  child.exitCode !== null || child.signalCode !== null
    ? Promise.resolve(child.exitCode ?? child.signalCode)
    : new Promise((resolve) => child.once('exit', (code, signal) => resolve(code ?? signal)))

export class Lab {
  #children = new Set()
  log = [] // the newest lines of all programs

  // open builds the programs, the page and the images.
  static async open() {
    const lab = new Lab()
    lab.dir = await mkdtemp(join(tmpdir(), 'rackseed-browser-'))
    await run('go', ['build', '-buildvcs=false', '-o', lab.dir + '/', '.', './vm-test/cmd/simulate'])
    await run('npm', ['exec', '--offline', '--', 'vite', 'build', '--logLevel', 'warn', '--emptyOutDir', '--outDir', join(lab.dir, 'console')], web)
    await run(join(lab.dir, 'simulate'), ['-images', join(lab.dir, 'images')])
    await mkdir(screenshots, { recursive: true })
    lab.browser = await chromium.launch({
      executablePath: '/usr/bin/chromium',
      args: [
        '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
        '--disable-background-networking', '--disable-component-update', '--disable-sync',
      ],
    })
    return lab
  }

  async close() {
    await this.browser?.close()
    for (const child of this.#children) {
      child.kill('SIGCONT')
      child.kill('SIGKILL')
      await ended(child)
    }
    await rm(this.dir, { recursive: true, force: true })
  }

  #spawn(program, args) {
    const child = spawn(join(this.dir, program), args, { cwd: this.dir, stdio: ['ignore', 'pipe', 'pipe'] })
    this.#children.add(child)
    child.once('exit', () => this.#children.delete(child))
    // What it logs explains a failure; the newest of it is enough.
    createInterface({ input: child.stderr }).on('line', (line) => {
      this.log.push(`${program}: ${line}`)
      if (this.log.length > 400) this.log.shift()
    })
    return child
  }

  // serve starts the boot service on a data folder of its own, or starts one
  // again. It returns when machines can be served.
  async serve(service = {}) {
    service.lab = this
    service.dir ??= await mkdtemp(join(this.dir, 'service-'))
    service.https ??= await freePort()
    service.http ??= await freePort()
    service.url = `https://127.0.0.1:${service.https}`
    service.site ??= siteFile()
    service.writeSite = (text) => writeFile(join(service.dir, 'site.yaml'), text)
    await service.writeSite(service.site)
    service.process = this.#spawn('rackseed', [
      'serve', '--dev', '--data', join(service.dir, 'data'), '--site', join(service.dir, 'site.yaml'),
      '--images', join(this.dir, 'images'), '--console', join(this.dir, 'console'),
      '--https', `127.0.0.1:${service.https}`, '--http', `127.0.0.1:${service.http}`, ...(service.args ?? []),
    ])
    const told = {}
    createInterface({ input: service.process.stdout }).on('line', (line) => {
      const [, name, value] = /^([^:]+):\s+(.*)$/.exec(line) ?? []
      told[name] = value
    })
    await until('the boot service says where it is', () => {
      if (service.process.exitCode !== null) throw new Error(this.log.join('\n'))
      return told.Fingerprint
    })
    service.fingerprint = told.Fingerprint
    if (!service.code) service.code = await until('the setup code is told', () => told['Setup code'])
    service.stop = async (signal = 'SIGTERM') => {
      service.process.kill(signal)
      await ended(service.process)
    }
    service.ask = (path, options) => ask(service, path, options)
    return service
  }

  // ready waits until the site is applied and the images are published.
  async ready(service) {
    await until('the boot service is healthy', async () => {
      const status = await service.ask('/api/status')
      return status.body.health.filter((h) => ['site file', 'images', 'netboot'].includes(h.name) && h.ok).length === 3
    })
    return service
  }

  // machines powers simulated machines on.
  machines(service, { n = 1, first = 1, pace = '0s', fail = '' } = {}) {
    const args = ['-url', `http://127.0.0.1:${service.http}`, '-n', `${n}`, '-first', `${first}`, '-pace', pace]
    if (fail) args.push('-fail', fail)
    return this.#spawn('simulate', args)
  }

  // page opens the console in a browser of its own, without cookies.
  async page(service, { width = 1440, height = 900 } = {}) {
    const context = await this.browser.newContext({ ignoreHTTPSErrors: true, viewport: { width, height }, reducedMotion: 'reduce' })
    context.setDefaultTimeout(waitLimit)
    const page = await context.newPage()
    page.faults = []
    page.on('pageerror', (e) => page.faults.push(e.stack ?? e.message))
    page.on('console', (m) => m.type() === 'error' && !/Failed to load resource|WebSocket connection/.test(m.text()) && page.faults.push(m.text()))
    await page.goto(service.url)
    return page
  }

  // setup opens the console as the first person who ever came.
  async setup(service, options) {
    const page = await this.page(service, options)
    await page.getByLabel('Setup code').fill(service.code)
    await page.getByLabel('Name').fill('ann')
    await page.getByLabel('Password').fill(password)
    await page.getByRole('button', { name: 'Set up' }).click()
    await page.getByRole('status', { name: 'Connection' }).getByText('Live').waitFor()
    return page
  }

  // explain prints, after a test that failed, what the programs said.
  explain(test) {
    if (!test.passed) console.error(this.log.slice(-60).join('\n'))
    this.log.length = 0
  }

  async screenshot(page, name, options = {}) {
    await page.screenshot({ path: join(screenshots, `${name}.png`), ...options })
  }
}

// ask asks the API as the operator of the site file does, or as nobody
// (token: ''), and returns the status and the body. Only the certificate whose
// fingerprint was printed is believed.
function ask(service, path, { method = 'GET', token = operatorToken, body, headers = {} } = {}) {
  return new Promise((resolve, reject) => {
    const request = https.request(service.url + path, {
      method, rejectUnauthorized: false, timeout: 10_000, agent: false,
      headers: {
        ...(token ? { Authorization: `Bearer ${token}` } : {}),
        ...(body ? { 'Content-Type': 'application/json' } : {}),
        ...headers,
      },
    })
    request.on('socket', (socket) =>
      socket.on('secureConnect', () => {
        const got = socket.getPeerCertificate().fingerprint256
        if (got !== service.fingerprint) request.destroy(new Error(`fingerprint ${got}, not ${service.fingerprint}`))
      }),
    )
    request.on('timeout', () => request.destroy(new Error(`${path}: no answer`)))
    request.on('error', reject)
    request.on('response', (response) => {
      let text = ''
      response.on('data', (d) => (text += d))
      response.on('error', reject)
      response.on('end', () => {
        const json = /json/.test(response.headers['content-type'] ?? '')
        resolve({ status: response.statusCode, text, body: json && text ? JSON.parse(text) : undefined })
      })
    })
    request.end(body ? JSON.stringify(body) : undefined)
  })
}

// events are all of a machine's, or of everything, oldest first.
export async function events(service, machine = '') {
  const all = []
  for (;;) {
    const { status, body } = await service.ask(`/api/events?limit=1000&after=${all.at(-1)?.seq ?? 0}&machine=${machine}`)
    if (status !== 200) throw new Error(`events: status ${status}`)
    all.push(...body.items)
    if (body.items.length < 1000) return all
  }
}

// machine finds the one whose boot NIC is number's of the simulation.
export async function machine(service, number) {
  const mac = `52:54:00:d0:${hex(number >> 8)}:${hex(number & 0xff)}`
  const { body } = await service.ask('/api/machines')
  return body.items.find((m) => m.macs.includes(mac))
}

const hex = (n) => n.toString(16).padStart(2, '0')

// timeline are the sequence numbers that the page shows, in its order.
export const timeline = (page) =>
  page.getByRole('list', { name: 'Timeline' }).getByRole('listitem').evaluateAll((items) => items.map((i) => Number(i.dataset.seq)))
