// A connection that is cut comes back, and nothing is missing or told twice.

import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { events, Lab, machine, timeline, until } from './lab.mjs'

let lab
before(async () => (lab = await Lab.open()))
after(() => lab?.close())
afterEach((t) => lab?.explain(t))

const connection = (page) => page.getByRole('status', { name: 'Connection' })

const silence = (page) => page.getByRole('alert').filter({ hasText: 'No answer from the boot service since' })

// whole waits until the machine is Ready and the page shows all of it, and
// compares: events and log lines, each once and in order.
async function whole(service, page, id) {
  const all = await until('the machine is Ready, and the page knows', async () => {
    const all = await events(service, id)
    return all.at(-1).kind === 'node.ready' && (await timeline(page)).at(-1) === all.at(-1).seq && all
  })
  assert.deepEqual(await timeline(page), all.map((e) => e.seq))
  // Its last lines come after the event.
  await until('the log is whole', async () => {
    const lines = (await service.ask(`/api/machines/${id}/output?limit=200`)).body.items.flatMap((c) => c.lines)
    const shown = Number(await page.getByRole('log', { name: 'Log of the machine' }).getAttribute('data-lines'))
    return lines.at(-1)?.endsWith('is Ready') && shown === lines.length
  })
}

// begin has a machine on its way, and its page open.
async function begin() {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service)
  lab.machines(service, { pace: '400ms' })
  const { id } = await until('it waits', async () => {
    const m = await machine(service, 1)
    return m?.phase === 'waiting' && m
  })
  await page.goto(`${service.url}/#/machines/${id}`)
  await service.ask(`/api/machines/${id}/approve`, { method: 'POST', body: {} })
  await until('it installs', async () => (await machine(service, 1)).phase === 'installing')
  return { service, page, id }
}

test('the service is killed and started again', async () => {
  const { service, page, id } = await begin()
  await page.getByRole('button', { name: 'Revoke…' }).click()
  const revoke = page.getByRole('dialog').getByRole('button', { name: 'Revoke' })
  assert.ok(await revoke.isEnabled())
  await service.stop('SIGKILL')
  const killed = Date.now()
  await connection(page).getByText('Reconnecting…').waitFor()
  const noticed = Date.now() // until then the page hears what was on its way
  await lab.screenshot(page, 'reconnecting')
  // What is shown is old: that is said, with its time, and nothing can be ordered.
  await silence(page).first().waitFor()
  const since = Date.parse(await silence(page).locator('time').first().getAttribute('datetime'))
  assert.ok(since <= noticed && since > killed - 10_000, `no answer since ${new Date(since).toISOString()}, killed at ${new Date(killed).toISOString()}, noticed at ${new Date(noticed).toISOString()}`)
  await page.getByRole('dialog').getByText('(what is shown is from then). Trying again.').waitFor()
  assert.ok(await revoke.isDisabled())
  await lab.screenshot(page, 'silent-dialog')
  await page.keyboard.press('Escape')
  assert.ok(await page.getByRole('button', { name: 'Kubeconfig' }).isDisabled())
  await lab.screenshot(page, 'silent')
  await lab.serve(service)
  await connection(page).getByText('Live').waitFor()
  await silence(page).first().waitFor({ state: 'detached' })
  await whole(service, page, id)
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

test('the service is frozen, so that its connections only look alive', async () => {
  const { service, page, id } = await begin()
  service.process.kill('SIGSTOP')
  await connection(page).getByText('Reconnecting…').waitFor()
  await silence(page).waitFor()
  service.process.kill('SIGCONT')
  await connection(page).getByText('Live').waitFor()
  await silence(page).waitFor({ state: 'detached' })
  await whole(service, page, id)
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

test('the service stops in good order', async () => {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service)
  await service.stop()
  await connection(page).getByText('Reconnecting…').waitFor()
  await lab.serve(service)
  await connection(page).getByText('Live').waitFor()
  await page.getByText('No machine was seen yet.').waitFor()
  await page.context().close()
  await service.stop()
})
