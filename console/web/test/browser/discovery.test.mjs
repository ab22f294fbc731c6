// The discovery window: whether a machine that nobody listed is looked at.

import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { Lab, machine, siteFile, until } from './lab.mjs'

let lab
before(async () => (lab = await Lab.open()))
after(() => lab?.close())
afterEach((t) => lab?.explain(t))

const bar = (page) => page.getByRole('region', { name: 'Discovery window' })

test('it is opened for a time, counts down, and is closed', async () => {
  const service = await lab.ready(await lab.serve({ site: siteFile({ always: false }) + 'machines:\n  - mac: 52:54:00:d0:00:08\n    name: rack1-u08\n' }))
  const page = await lab.setup(service)
  await bar(page).getByText('The discovery window is closed: machines that are not listed boot their own disks.').waitFor()
  // Closed, it leaves a strange machine alone.
  lab.machines(service, { first: 1 })
  await page.getByRole('row').filter({ hasText: '52:54:00:d0:00:01' }).getByText('Own disk', { exact: true }).waitFor()
  assert.equal((await machine(service, 1)).nextBoot.kind, 'local')
  // Who is listed and was never seen is shown, and is no machine.
  await page.getByRole('row').filter({ hasText: 'rack1-u08' }).getByText('Expected', { exact: true }).waitFor()
  await page.getByText('1 known, 1 expected, 0 ready').waitFor()
  assert.equal(await machine(service, 8), undefined)
  await lab.screenshot(page, 'window-closed')

  await bar(page).getByRole('button', { name: 'Open for 1 h' }).click()
  await bar(page).getByText(/is open until .*\d\d:\d\d, for (1 h 0 min|59 min \d+ s) more/).waitFor()
  const { open, until: end } = (await service.ask('/api/discovery')).body
  assert.ok(open && Math.abs(Date.parse(end) - Date.now() - 3600e3) < 120e3, `open until ${end}`)
  await until('it counts down', async () => /59 min \d+ s/.test(await bar(page).textContent()))
  lab.machines(service, { first: 4 })
  await page.getByRole('row').filter({ hasText: '52:54:00:d0:00:04' }).getByText('Waiting', { exact: true }).waitFor()
  await lab.screenshot(page, 'window-open')

  await bar(page).getByRole('button', { name: 'Open for 8 h' }).click()
  await bar(page).getByText(/for (8 h 0|7 h 59) min more/).waitFor()
  // Others see it without a reload, and may close it elsewhere.
  await service.ask('/api/discovery/close', { method: 'POST' })
  await bar(page).getByText('The discovery window is closed').waitFor()
  assert.equal(await bar(page).getByRole('button', { name: 'Close' }).count(), 0)
  await bar(page).getByRole('button', { name: 'Open for 1 h' }).click()
  await bar(page).getByRole('button', { name: 'Close' }).click()
  await bar(page).getByText('The discovery window is closed').waitFor()
  assert.equal((await service.ask('/api/discovery')).body.open, false)

  // The site file has the last word.
  await service.writeSite(siteFile())
  await bar(page).getByText('The discovery window is open: the site file keeps it so (discovery.always).').waitFor()
  assert.equal(await bar(page).getByRole('button').count(), 0)
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})
