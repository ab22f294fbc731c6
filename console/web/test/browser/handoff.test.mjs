// The boot service's move into the cluster, as a person sees it. Without nodes none
// can be started here: how one goes is shown from answers of the API that are made up.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, afterEach, before, test } from 'node:test'
import { gunzipSync } from 'node:zlib'
import { Lab, until } from './lab.mjs'

let lab
before(async () => (lab = await Lab.open()))
after(() => lab?.close())
afterEach((t) => lab?.explain(t))

const dialog = (page) => page.getByRole('dialog')
const button = (page, name) => page.getByRole('button', { name, exact: true })
const step = (page) => page.getByRole('status', { name: 'Step' })
const move = 'Move the boot service into the cluster'

const ago = (seconds) => new Date(Date.now() - seconds * 1000).toISOString()
const nodes = ['node-1', 'node-2', 'node-3']

const appliance = { id: 'r-0a1b2c3d', name: 'appliance', endpoint: '192.0.2.2:8300', release: 'v1', leads: true, voter: true, member: true, joined: ago(7200), secrets: 'tpm', seen: false }
const replica = (n, changes = {}) => ({
  id: `r-000000${n}0`, name: `node-${n}`, machine: `m-0000000${n}`, endpoint: `192.0.2.1${n}:8300`, release: 'v1',
  leads: false, voter: false, member: true, joined: ago(60), secrets: 'plaintext', seen: true, reachable: true, behind: 0, missing: 0, ...changes,
})
const plan = (step, text, changes = {}) => ({
  id: 'h-1', step, text, since: ago(83), moved: ago(20), from: appliance.id, by: 'operator:ann', over: false, known: true, gates: [], actions: ['abort'],
  targets: nodes.map((name, n) => ({ name, machine: `m-0000000${n + 1}` })), ...changes,
})
const choices = [
  { nodes: 1, text: 'one node alone carries the boot service then: while it is away, no machine is served; of three one may fail' },
  { nodes: 2, refused: true, text: '2 nodes are named, and 1, 3 or 5 are needed: of an even number one more may not fail than without it' },
  { nodes: 3, text: 'three nodes carry the boot service then: one may fail' },
  { nodes: 4, refused: true, text: '4 nodes are named, and 1, 3 or 5 are needed: of an even number one more may not fail than without it' },
]
const candidates = [...nodes, 'node-4', 'node-5'].map((name, n) => ({ name, machine: `m-0000000${n + 1}`, ...(n === 4 && { why: 'node-5 is installing: its node must be Ready' }) }))
const answer = (changes) => ({ nodes: candidates, choices, replicas: [appliance], ready: false, reason: 'one is under way', targets: [], safeToUnplug: false, recoveryKey: true, rootless: false, ...changes })

const catchingUp = answer({
  replicas: [{ ...appliance, seen: true, reachable: true }, replica(1), replica(2, { behind: 480, missing: 312 << 20 }), replica(3, { reachable: false })],
  plan: plan('catching-up', 'the replicas fetch the log and the images', {
    failed: 'making the replica of node-3 a member: dial tcp 192.0.2.13:8300: connect: no route to host',
    gates: [
      { name: 'node-1', ok: true, text: 'replica r-00000010 can be reached' },
      { name: 'node-1 log', ok: true, text: '0 entries behind; it must be within 64 for 30s' },
      { name: 'node-2 log', ok: false, text: '480 entries behind; it must be within 64 for 30s' },
      { name: 'node-2 images', ok: false, text: '3 blobs with 312 MiB are on their way' },
      { name: 'node-3', ok: false, text: 'replica r-00000030 cannot be reached' },
    ],
  }),
})

// shots shows a state on a large page and on a telephone.
async function shots(page, name) {
  for (const [width, height] of [[1280, 860], [390, 844]]) {
    await page.setViewportSize({ width, height })
    assert.equal(await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth), 0, `${name} fits into ${width} px`)
    await lab.screenshot(page, `handoff-${name}-${width}`, { fullPage: width < 700 })
  }
  await page.setViewportSize({ width: 1280, height: 860 })
}

test('without a node that is Ready it says why none can be started', async () => {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service)
  await page.getByRole('link', { name: 'Handoff', exact: true }).click()
  // On loopback, no node could join it either: that is said first.
  await page.getByText('It cannot be started: no other replica can join the boot service: that takes a site file').waitFor()
  await page.getByText('Here alone: no other replica can join.').waitFor()
  for (const name of [move, 'Abort…', 'Go forward…', 'The appliance is destroyed…']) assert.equal(await button(page, name).count(), 0, name)
  await shots(page, 'none')

  // After the setup it is said on every page that there is no recovery key, and where
  // to make it. It is shown once.
  await page.getByText('None was made yet.').waitFor()
  await page.getByRole('link', { name: 'Machines', exact: true }).click()
  await page.getByText('There is no recovery key').waitFor()
  await page.getByRole('link', { name: 'Go there' }).click()
  await button(page, 'Make it…').click()
  await button(dialog(page), 'Make it').click()
  const key = page.getByRole('status', { name: 'Recovery key' })
  await key.getByText(/^AGE-SECRET-KEY-1[0-9A-Z]{58}$/).waitFor()
  await button(page, 'It is written down').click()
  await page.getByText('There is one.').waitFor()
  await page.getByText('There is no recovery key').waitFor({ state: 'detached' })
  const [saved] = await Promise.all([page.waitForEvent('download'), button(page, 'Save a backup').click()])
  const text = gunzipSync(readFileSync(await saved.path())).toString()
  assert.match(saved.suggestedFilename(), /^rackseed-\d{4}-\d\d-\d\d\.backup$/)
  assert.ok(text.includes('ann') && !text.includes('AGE-SECRET-KEY'), 'the backup has the users, and not the key')
  await shots(page, 'recovery-key')
  await page.reload()
  await button(page, 'Replace it…').click()
  await dialog(page).getByText('The one before opens older backups only.').waitFor()
  await page.keyboard.press('Escape')
  assert.equal(await page.getByText('AGE-SECRET-KEY').count(), 0)
  await button(page, 'Replace it…').click()
  await button(dialog(page), 'Replace it').click()
  await key.getByText(/^AGE-SECRET-KEY-1[0-9A-Z]{58}$/).waitFor()
  await button(page, 'It is written down').click()
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

test('a handoff is started, watched, given up, and done', async () => {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service)
  let now = answer({ ready: true, reason: undefined, targets: nodes })
  const orders = []
  let refusal
  await page.route('**/api/handoff', (route) => route.fulfill({ json: now }))
  await page.route('**/api/handoff/*', (route) => {
    orders.push([route.request().url().split('/').at(-1), route.request().postDataJSON()])
    return refusal
      ? route.fulfill({ status: 409, contentType: 'application/problem+json', json: { status: 409, detail: refusal } })
      : route.fulfill({ json: now })
  })
  await page.goto(`${service.url}/#/handoff`)
  const choice = page.getByRole('status', { name: 'Choice' })
  await choice.getByText('Three nodes carry the boot service then: one may fail.').waitFor()
  const box = (name) => page.getByRole('checkbox', { name })
  for (const name of nodes) assert.ok(await box(name).isChecked(), name)
  assert.ok(!(await box('node-4').isChecked()))
  assert.ok(await box('node-5 is installing: its node must be Ready').isDisabled())
  await shots(page, 'ready')
  // Nothing is sent that would be refused.
  await box('node-2').uncheck()
  await choice.getByText('2 nodes are named, and 1, 3 or 5 are needed').waitFor()
  assert.ok(await button(page, move).isDisabled())
  await shots(page, 'even')
  for (const name of ['node-1', 'node-3']) await box(name).uncheck()
  await choice.getByText('No node is chosen: 1, 3 or 5 are needed.').waitFor()
  assert.ok(await button(page, move).isDisabled())
  await box('node-4').check()
  await choice.getByText('One node alone carries the boot service then: while it is away, no machine is served').waitFor()
  await button(page, move).click()
  await dialog(page).getByText('It moves to node-4').waitFor()
  await page.keyboard.press('Escape')
  await box('node-4').uncheck()
  for (const name of nodes) await box(name).check()

  await button(page, move).click()
  await dialog(page).getByText('It moves to node-1, node-2, node-3').waitFor()
  await shots(page, 'start')
  refusal = 'handoff: which replica leads is not known just now: try again in some seconds'
  await button(dialog(page), 'Move it').click()
  await dialog(page).getByRole('alert').getByText(refusal).waitFor()
  refusal = undefined
  now = answer({ plan: plan('preflight', 'looks whether the nodes are Ready', { known: false }) })
  await button(dialog(page), 'Move it').click()
  await page.getByText('The boot service moves to node-1, node-2, node-3.').waitFor()
  assert.deepEqual(orders.at(-1), ['start', { nodes }])
  await page.getByText('What it waits for is not known here yet').waitFor()
  assert.equal(await button(page, move).count(), 0)

  // It keeps itself current.
  now = catchingUp
  await step(page).getByText('Catching up: the replicas fetch the log and the images.').waitFor()
  const steps = page.getByRole('list', { name: 'Steps' })
  assert.deepEqual(await steps.getByRole('listitem').allTextContents(), ['Preflight', 'Deploying', 'Catching up', 'Promoting', 'Transferring', 'Watching', 'Sealing', 'Done'])
  assert.equal(await steps.locator('[aria-current=step]').textContent(), 'Catching up')
  const waits = page.getByRole('list', { name: 'Waits for' }).getByRole('listitem')
  assert.equal(await waits.count(), 3)
  await waits.getByText('node-2 images: 3 blobs with 312 MiB are on their way').waitFor()
  assert.equal(await page.getByRole('list', { name: 'Holds' }).getByRole('listitem').count(), 2)
  await page.getByText('no route to host; it is tried again').waitFor()
  await page.getByRole('row').filter({ hasText: 'node-2' }).getByText('312 MiB').waitFor()
  await page.getByRole('row').filter({ hasText: 'node-2' }).getByText('not protected (plaintext)').waitFor()
  await page.getByRole('row').filter({ hasText: 'appliance' }).getByText('tpm', { exact: true }).waitFor()
  await page.getByRole('row').filter({ hasText: 'node-3' }).getByText('member without a vote, cannot be reached').waitFor()
  await shots(page, 'gates')
  // Without the table's head each number says what it counts.
  await page.setViewportSize({ width: 390, height: 844 })
  assert.match(await page.getByRole('table').innerText(), /480 entries\sbehind[^]*312 MiB\sto copy/)

  now = answer({
    replicas: [{ ...appliance, seen: true, reachable: true }, replica(1, { voter: true }), replica(2), replica(3)],
    plan: plan('promoting', 'one after another gets a vote, with proof', { doing: 'giving node-2 a vote, with proof' }),
  })
  await page.getByText('Two replicas have a vote just now').waitFor()
  await page.getByText('giving node-2 a vote, with proof').waitFor()
  await shots(page, 'running')
  await button(page, 'Abort…').click()
  await dialog(page).getByText('The appliance takes the lead again').waitFor()
  await shots(page, 'abort')
  now = answer({
    replicas: [{ ...appliance, leads: false, voter: false, seen: true, reachable: false }, replica(1, { voter: true, leads: true }), replica(2, { voter: true }), replica(3, { voter: true })],
    plan: plan('aborting', 'it is given up: the appliance takes the lead again, and the replicas on nodes leave', {
      reason: 'an operator gave it up', actions: ['resume'],
      gates: [{ name: 'appliance', ok: false, text: 'it must lead again before the others leave, and cannot be reached: plug it in and boot it again, or let the handoff go on (rackseed handoff resume)' }],
    }),
  })
  await button(dialog(page), 'Give it up').click()
  await step(page).getByText('Reason: an operator gave it up.').waitFor()
  await until('it is told to give it up', () => orders.at(-1)[0] === 'abort') // the page looks by itself, too
  assert.deepEqual(orders.at(-1), ['abort', null])
  assert.equal(await button(page, 'Abort…').count(), 0)
  await shots(page, 'aborting')
  await button(page, 'Go forward…').click()
  await button(dialog(page), 'Go forward').click()
  await until('it is told to go forward', () => orders.at(-1)[0] === 'resume')

  const auto = 'it was given up (node-2 is away), and is not started again by itself: start it with rackseed handoff start'
  now = answer({ auto, ready: true, reason: undefined, targets: nodes, plan: plan('aborted', 'it was given up, and all is as it was', { over: true, known: false, actions: [], reason: 'catching-up stood still for 15m0s: node-2 images: 3 blobs with 312 MiB are on their way' }) })
  await step(page).getByText('The handoff was given up: catching-up stood still').waitFor()
  await page.getByRole('status', { name: 'Site file' }).getByText(`The site file says handoff: auto: ${auto}.`).waitFor()
  assert.ok(await button(page, move).isEnabled())
  await shots(page, 'aborted')

  // The stick is gone before it said that it is over for it.
  now = answer({
    replicas: [{ ...appliance, leads: false, voter: false, seen: true, reachable: false }, replica(1, { voter: true, leads: true }), replica(2, { voter: true }), replica(3, { voter: true })],
    plan: plan('sealing', 'the appliance writes that it is over for it, and is removed', {
      actions: ['lost'],
      gates: [{ name: 'appliance', ok: false, text: 'it must acknowledge that it is over for it, and cannot be reached: plug it in and boot it again, or declare it destroyed (rackseed handoff lost)' }],
    }),
  })
  await page.reload()
  await button(page, 'The appliance is destroyed…').click()
  await shots(page, 'lost')
  for (const typed of ['', 'yes']) {
    await dialog(page).getByRole('textbox').fill(typed)
    await button(dialog(page), 'It is destroyed').click()
    assert.ok(await dialog(page).isVisible())
    assert.notEqual(orders.at(-1)[0], 'lost', `typed “${typed}”`)
  }
  await dialog(page).getByRole('textbox').fill('destroyed')
  await button(dialog(page), 'It is destroyed').click()
  await until('it is declared destroyed', () => orders.at(-1)[0] === 'lost')

  now = answer({
    replicas: [replica(1, { voter: true, leads: true, seen: false }), replica(3, { voter: true, seen: false }), replica(2, { voter: true, seen: false })],
    reason: 'the boot service runs on nodes already; name those that shall carry it too, with --node', safeToUnplug: true,
    plan: plan('done', 'the boot service has moved', { over: true, known: false, actions: [] }),
  })
  const unplug = page.getByRole('status', { name: 'Unplug' })
  await unplug.getByText('Safe to unplug', { exact: true }).waitFor()
  await unplug.getByText('The boot service runs on node-1, node-2, node-3. The stick can be pulled.').waitFor()
  assert.equal(await button(page, move).count(), 0)
  await page.getByText('The appliance is removed without its word.').waitFor({ state: 'detached' })
  await shots(page, 'done')
  // A node is dead for good. The one that leads stays.
  now = { ...now, replicas: [replica(1, { voter: true, leads: true }), replica(2, { voter: true }), replica(3, { voter: true, reachable: false })] }
  await page.reload()
  const away = (name) => button(page, `Take ${name} away`)
  await away('node-3').click()
  await dialog(page).getByText('It loses its vote: 2 voters are left, of which none may fail').waitFor()
  await shots(page, 'remove')
  assert.equal(await away('node-1').count(), 0)
  now = { ...now, replicas: now.replicas.slice(0, 2) }
  await button(dialog(page), 'Take it away').click()
  await page.getByText('The replica of node-3 was taken away.').waitFor()
  assert.deepEqual(orders.at(-1), ['remove', { replica: 'r-00000030' }])
  // From one node to three, in one plan.
  now = answer({
    replicas: [replica(1, { voter: true, leads: true, seen: false })], safeToUnplug: true, plan: now.plan,
    nodes: [candidates[1], candidates[2], { ...candidates[0], why: 'node-1 carries a replica already' }],
    choices: [
      { nodes: 1, text: 'two nodes carry the boot service then, and both are needed: none may fail; of three one may' },
      { nodes: 2, text: 'three nodes carry the boot service then: one may fail' },
    ],
  })
  for (const name of ['node-2', 'node-3']) await box(name).check()
  await choice.getByText('Three nodes carry the boot service then: one may fail.').waitFor()
  assert.ok(await box('node-1 carries a replica already').isDisabled())
  await shots(page, 'more')
  await button(page, 'Start replicas there').click()
  await button(dialog(page), 'Start them').click()
  await until('two more are started', () => JSON.stringify(orders.at(-1)) === JSON.stringify(['start', { nodes: ['node-2', 'node-3'] }]))
  await page.emulateMedia({ colorScheme: 'dark' })
  await shots(page, 'done-dark')
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

test('nothing is ordered while the boot service is silent', async () => {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service)
  let now = answer({ ready: true, reason: undefined, targets: nodes })
  let dead = false
  await page.route('**/api/handoff', (route) => (dead ? route.abort() : route.fulfill({ json: now })))
  await page.goto(`${service.url}/#/handoff`)
  assert.ok(await button(page, move).isEnabled())
  now = catchingUp
  await page.reload()
  await button(page, 'Abort…').click()
  assert.ok(await button(dialog(page), 'Give it up').isEnabled())
  dead = true
  await service.stop('SIGKILL')
  await dialog(page).getByText('No answer from the boot service since').waitFor()
  assert.ok(await button(dialog(page), 'Give it up').isDisabled())
  await page.keyboard.press('Escape')
  assert.ok(await button(page, 'Abort…').isDisabled())
  // What was known last stays in sight.
  await step(page).getByText('Catching up').waitFor()
  await lab.screenshot(page, 'handoff-silent')
  assert.deepEqual(page.faults, [])
  await page.context().close()
})
