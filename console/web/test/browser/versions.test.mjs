// Which releases of the boot service run on nodes, and an upgrade, as a person sees it.
// There is no node here: what is shown are answers of the API that are made up.

import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { Lab, until } from './lab.mjs'

let lab
before(async () => (lab = await Lab.open()))
after(() => lab?.close())
afterEach((t) => lab?.explain(t))

const button = (page, name) => page.getByRole('button', { name, exact: true })
const ago = (seconds) => new Date(Date.now() - seconds * 1000).toISOString()
const old = `sha256:${'a'.repeat(64)}`
const newer = `sha256:${'b'.repeat(64)}`
const replica = (n, changes = {}) => ({
  id: `r-000000${n}0`, name: `node-${n}`, machine: `m-0000000${n}`, release: '2026-11-01T00:00:00Z', image: old, featureLevel: 1,
  leads: n === 1, voter: true, newest: false, ...changes,
})
const answer = (changes) => ({ replicas: [1, 2, 3].map((n) => replica(n)), published: newer, featureLevel: 1, supports: 1, ready: false, alone: false, ...changes })
const plan = (changes) => ({
  id: 'o-1', step: 'rolling', over: false, text: 'one replica after another runs the new image, the one that leads last', image: newer,
  by: 'operator:ann', since: ago(70), within: '5m0s', done: [], known: true, gates: [], ...changes,
})

test('an upgrade is started, watched, and stopped', async () => {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service)
  const orders = []
  let now = answer({ ready: true, alone: true })
  await page.route('**/api/service', (route) => route.fulfill({ json: now }))
  await page.route('**/api/service/*', (route) => {
    orders.push(route.request().url().split('/').at(-1))
    return route.fulfill({ json: now })
  })
  await page.goto(`${service.url}/#/handoff`)
  const releases = page.getByRole('region', { name: 'Releases' })
  await releases.getByText('Another image of the boot service is published: bbbbbbbbbbbb.').waitFor()
  assert.equal(await releases.getByRole('row').count(), 4)
  await button(page, 'Upgrade the boot service').click()
  const dialog = page.getByRole('dialog')
  await dialog.getByText('the boot service is away for about a minute').waitFor()
  now = answer({
    replicas: [replica(1), replica(2, { image: newer, release: '2027-03-01T00:00:00Z', fallBack: '2026-11-01T00:00:00Z', newest: true }), replica(3, { ordered: newer })],
    plan: plan({ turn: 'node-3', done: ['node-2'], gates: [{ name: 'node-3', ok: false, text: 'it cannot be reached just now' }] }),
  })
  await button(dialog, 'Upgrade').click()
  const said = page.getByRole('status', { name: 'Upgrade' })
  await said.getByText('Now: node-3.').waitFor()
  await releases.getByText('node-3: it cannot be reached just now').waitFor()
  await releases.getByRole('row').filter({ hasText: 'node-3' }).getByText('→ bbbbbbbbbbbb').waitFor()
  for (const width of [1280, 390]) {
    await page.setViewportSize({ width, height: 860 })
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, `it fits into ${width} px`)
    await lab.screenshot(page, `versions-${width}`, { fullPage: width < 700 })
  }
  await button(page, 'Stop…').click()
  now = answer({ plan: plan({ step: 'stopped', over: true, reason: 'an operator stopped it' }), ready: true })
  await button(dialog, 'Stop it').click()
  await said.getByText('was stopped: an operator stopped it. The other replicas stay as they are.').waitFor()
  await until('it is told to stop', () => orders.length > 1) // the page looks by itself, too
  assert.deepEqual(orders, ['upgrade', 'stop'])
  await said.getByText('It is still the published image').waitFor()
  await button(page, 'Upgrade the boot service').click()
  await dialog.getByText('It is the image whose upgrade was stopped: an operator stopped it.').waitFor()
  await page.keyboard.press('Escape')
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})
