// The site: what is wrong with it, how it is set up and looked at, and how a
// cluster is given up.

import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { Lab, machine, siteFile, until } from './lab.mjs'

let lab
before(async () => (lab = await Lab.open()))
after(() => lab?.close())
afterEach((t) => lab?.explain(t))

const dialog = (page) => page.getByRole('dialog')
const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)

test('that nothing is kept stands above every page', async () => {
  const service = await lab.serve({ args: ['--volatile', 'the medium is a CD'] })
  const page = await lab.setup(service)
  const alarm = page.getByRole('alert').getByText('Nothing is kept: the medium is a CD. So no machine is served')
  await alarm.waitFor()
  // Once, and not for every part that follows from it.
  assert.equal(await page.getByText(/nothing is kept/i).count(), 1)
  await page.getByText('To serve from memory all the same, for a test, set memoryOnly: true in the site file.').waitFor()
  for (const name of ['Images', 'Cluster', 'Site', 'Machines']) {
    await page.getByRole('link', { name, exact: true }).click()
    await alarm.waitFor()
  }
  await lab.screenshot(page, 'volatile')
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

// On loopback there is neither DHCP nor a service address: the real alarms are
// seen in the host tests, and this is what the console makes of them.
test('a foreign DHCP server and an address conflict are alarms, until they are over', async () => {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service)
  const foreign = 'eth0: DHCP server 192.0.2.254 (52:54:00:00:00:aa) answers DHCP too (at 10:00:00 UTC): new machines are not served there. Switch that server off on this network, or take dhcp out of this link in the site file'
  const conflict = 'address 192.0.2.1 on eth0: 52:54:00:00:00:bb has it already; give that host another address, or choose another serviceAddress in the site file'
  let sick = [{ name: 'dhcp', ok: false, kind: 'fault', grave: true, text: foreign }, { name: 'address', ok: false, kind: 'fault', grave: true, text: conflict }, ...['tftp', 'netboot'].map((name) => ({ name, ok: false, kind: 'waiting', text: 'waiting for the service address 192.0.2.1' }))]
  await page.route('**/api/status', async (route) => {
    const answer = await route.fetch()
    const status = await answer.json()
    await route.fulfill({ response: answer, json: { ...status, health: [...status.health, ...sick] } })
  })
  const alarm = (text) => page.getByRole('alert').filter({ hasText: text })
  await alarm(foreign).and(page.locator('.bad')).waitFor()
  await alarm(conflict).and(page.locator('.bad')).waitFor()
  await alarm('tftp, netboot: waiting for the service address').and(page.locator('.ask')).waitFor()
  await lab.screenshot(page, 'alarms')
  await page.setViewportSize({ width: 700, height: 900 })
  assert.equal(await overflow(page), 0, 'alarms fit into 700 px')
  await page.emulateMedia({ colorScheme: 'dark' })
  await lab.screenshot(page, 'alarms-narrow-dark')
  sick = []
  await alarm(foreign).waitFor({ state: 'detached' })
  await alarm(conflict).waitFor({ state: 'detached' })
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

test('without a site file the console sets the site up', async () => {
  const service = await lab.serve({ site: '# nothing yet\n' })
  const page = await lab.page(service)
  // What is on the links is looked at in the host tests: this machine's own are
  // left alone.
  const links = [
    { name: 'eth0', mac: '52:54:00:77:00:01', driver: 'e1000e', carrier: false, offers: [] },
    { name: 'eth1', mac: '52:54:00:77:00:02', driver: 'bnxt_en', mbit: 25000, carrier: true, offers: [{ server: '10.0.0.1', mac: '52:54:00:00:00:aa', address: '10.0.0.23', network: '10.0.0.0/24', router: '10.0.0.1' }] },
    { name: 'eth2', mac: '52:54:00:77:00:03', driver: 'virtio_net', mbit: 1000, carrier: true, offers: [] },
  ]
  const proposals = {
    '52:54:00:77:00:02': { dhcp: false, name: 'rack1', address: '10.0.0.253/24', gateway: '10.0.0.1', service: '10.0.0.254' },
    '52:54:00:77:00:03': { dhcp: true, name: 'rack1', address: '10.77.0.2/24', service: '10.77.0.3', from: '10.77.0.100', to: '10.77.0.199' },
  }
  await page.route('**/api/setup/links', (route) => route.fulfill({ json: { items: links } }))
  await page.route('**/api/setup/propose', (route) => {
    const { mac } = route.request().postDataJSON()
    return route.fulfill({ json: { draft: { mac, ...proposals[mac] }, text: '', problems: [], warnings: [] } })
  })
  await page.getByLabel('Setup code').fill(service.code)
  await page.getByLabel('Name').fill('ann')
  await page.getByLabel('Password').fill('correct horse battery')
  await page.getByRole('button', { name: 'Set up' }).click()

  await page.getByRole('heading', { name: 'Set up the site' }).waitFor()
  await page.getByText('No site file is in force, so no machine is served.').waitFor()
  // The link where nobody answers DHCP is proposed.
  const made = page.getByRole('list', { name: 'Site file' })
  await made.getByText('from: 10.77.0.100').waitFor()
  assert.ok(await page.getByRole('radio', { name: 'eth2' }).isChecked())
  await page.getByRole('cell', { name: 'not asked: no carrier' }).waitFor()
  await page.getByRole('cell', { name: 'nobody' }).waitFor()
  await lab.screenshot(page, 'wizard', { fullPage: true })

  // Where another server answers, it says so, and DHCP is not proposed.
  await page.getByRole('radio', { name: 'eth1' }).check()
  await page.getByRole('alert').getByText('Another DHCP server answers on this network').waitFor()
  await page.getByText('No machine is served on this link until the site file has dhcp for it.').waitFor()
  assert.equal(await page.getByLabel('Be the DHCP server of this network').isChecked(), false)
  await lab.screenshot(page, 'wizard-foreign', { fullPage: true })

  // A slip is told by the rules of the site file, and nothing can be applied.
  await page.getByRole('radio', { name: 'eth2' }).check()
  await made.getByText('from: 10.77.0.100').waitFor()
  await page.getByLabel('Last address of the pool').fill('10.78.0.199')
  await page.getByRole('list', { name: 'Problems' }).getByText('links[0].dhcp').first().waitFor()
  assert.ok(await page.getByRole('button', { name: 'Apply' }).isDisabled())
  await lab.screenshot(page, 'wizard-slip', { fullPage: true })
  await page.getByLabel('Last address of the pool').fill('10.77.0.150')
  await page.getByLabel('Name of the site').fill('room 4')
  await page.getByLabel('Name servers').fill('9.9.9.9, 10.77.0.1')
  await made.getByText('to: 10.77.0.150').waitFor()
  await page.setViewportSize({ width: 700, height: 900 })
  assert.equal(await overflow(page), 0, 'setup fits into 700 px')
  await lab.screenshot(page, 'wizard-narrow', { fullPage: true })
  await page.setViewportSize({ width: 1280, height: 900 })
  await page.getByLabel('Name of the site').fill('room4')
  await made.getByText('name: room4').waitFor()
  await page.getByRole('button', { name: 'Apply' }).click()

  await page.getByRole('status', { name: 'Done' }).getByText('The site file of “room4” is in force.').waitFor()
  await page.getByText('No machine was seen yet.').waitFor()
  await page.getByText('room4', { exact: true }).waitFor()
  const { site } = await page.evaluate(async () => (await fetch('/api/site')).json())
  assert.deepEqual([site.name, site.links[0].mac, site.links[0].dhcp.to, site.links[0].dhcp.dns], ['room4', '52:54:00:77:00:03', '10.77.0.150', ['9.9.9.9', '10.77.0.1']])
  await page.getByRole('region', { name: 'Discovery window' }).getByText('is closed').waitFor()
  await page.getByRole('link', { name: 'Site', exact: true }).click()
  await page.getByText('the one that is kept, as setup made it').waitFor()
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

test('the site file in force, another one checked, the profiles and the images', async () => {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service, { width: 1280, height: 900 })
  await page.getByRole('link', { name: 'Site', exact: true }).click()
  const inForce = page.getByRole('region', { name: 'Site file in force' })
  await inForce.getByText('the given one').waitFor()
  await inForce.getByText('DHCP from 192.0.2.100 to 192.0.2.200').waitFor()
  await inForce.getByRole('list', { name: 'Warnings of the site in force' }).getByText('discovery.always: ANY machine that netboots here is looked at').waitFor()
  for (const name of ['control-plane', 'worker']) await page.getByRole('region', { name: 'Profiles' }).getByRole('cell', { name, exact: true }).first().waitFor()
  await page.getByLabel('Site file', { exact: true }).fill(siteFile({ from: '192.0.2.300' }))
  await page.getByRole('button', { name: 'Check' }).click()
  await page.getByRole('alert').getByText('1 problem:').waitFor()
  await page.getByRole('list', { name: 'Problems' }).getByText(/^line 8, column 13: links\[0\]\.dhcp\.from/).waitFor()
  assert.match(await page.locator('.source .wrong').textContent(), /from: 192\.0\.2\.300/)
  await lab.screenshot(page, 'site', { fullPage: true })
  await page.getByLabel('Site file', { exact: true }).fill(siteFile({ name: 'other' }))
  await page.getByRole('button', { name: 'Check' }).click()
  await page.getByRole('status', { name: 'Check' }).getByText('It is valid: site “other”').waitFor()
  // Valid, and to be looked at before it is written to the stick.
  await page.getByLabel('Site file', { exact: true }).fill(siteFile({ name: 'other' }) + 'machines: [{mac: "52:54:00:00:00:01", name: node-1, profile: worker, approve: true}]\n')
  await page.getByRole('button', { name: 'Check' }).click()
  await page.getByRole('status', { name: 'Warnings of the check' }).waitFor()
  await page.getByRole('list', { name: 'Warnings', exact: true }).getByText('approve').first().waitFor()
  // The stick's is in force: this one could not be.
  assert.equal(await page.getByRole('button', { name: 'Apply…' }).count(), 0)
  assert.equal((await service.ask('/api/site')).body.site.name, 'lab')

  await page.getByRole('link', { name: 'Images', exact: true }).click()
  await page.getByRole('row').filter({ hasText: 'rackseed/node:latest' }).getByText('root.erofs').waitFor()
  await lab.screenshot(page, 'images')

  // A file that setup or the console made is replaced in the console.
  await service.writeSite('# nothing\n')
  await until('the kept one is in force', async () => (await page.evaluate(async () => (await fetch('/api/setup')).json())).source === 'kept')
  await page.getByRole('link', { name: 'Site', exact: true }).click()
  await inForce.getByText('the one that is kept').waitFor()
  await page.getByLabel('Site file', { exact: true }).fill(siteFile({ name: 'other' }))
  await page.getByRole('button', { name: 'Check' }).click()
  await page.getByRole('button', { name: 'Apply…' }).click()
  await dialog(page).getByText('Links that it does not name are no longer served.').waitFor()
  // It takes as long as the boot service does: that is shown, and one click is enough.
  let go
  const held = new Promise((resolve) => (go = resolve))
  await page.route('**/api/setup/keep', async (route) => {
    await held
    await route.continue()
  })
  await dialog(page).getByRole('button', { name: 'Apply' }).click()
  await dialog(page).getByRole('status').getByText('Working on it…').waitFor()
  assert.ok(await dialog(page).getByRole('button', { name: 'Apply' }).isDisabled())
  await lab.screenshot(page, 'working')
  // Links are set up anew by it: until the limit no answer is none that it failed.
  let answer = (route) => route.abort()
  let asked = 0
  await page.route('**/api/site', (route) => {
    asked++
    return answer(route)
  })
  go()
  await until('it is asked for again', () => asked > 2)
  await page.evaluate(() => {
    const now = Date.now
    Date.now = () => now() + 31_000
  })
  await dialog(page).getByRole('alert').getByText('The site file is kept, and was not seen in force within 30 s. The boot service does not answer here. If its address is another one now').waitFor()
  asked = 0
  const answers = [(route) => route.abort(), (route) => route.fulfill({ status: 503, json: { detail: 'no leader' } })]
  answer = (route) => (answers.shift() ?? ((r) => r.continue()))(route)
  await dialog(page).getByRole('button', { name: 'Apply' }).click()
  await page.getByRole('status', { name: 'Done' }).getByText('The site file of “other” is in force.').waitFor()
  assert.deepEqual([answers.length, asked > 2], [0, true])
  await page.getByTitle('Site', { exact: true }).getByText('other').waitFor()
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

test('a cluster whose first machine is lost is abandoned only by its name', async () => {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service, { width: 1280, height: 900 })
  await page.getByRole('link', { name: 'Cluster', exact: true }).click()
  await page.getByText('nothing was begun: no control plane was approved yet').waitFor()
  assert.equal(await page.getByRole('button', { name: 'Abandon…' }).count(), 0)
  lab.machines(service, { first: 1 })
  const { id } = await until('it waits', async () => {
    const m = await machine(service, 1)
    return m?.phase === 'waiting' && m
  })
  await service.ask(`/api/machines/${id}/approve`, { method: 'POST', body: { name: 'lost1' } })
  await until('it is Ready', async () => (await machine(service, 1)).phase === 'ready')
  await page.getByRole('link', { name: 'lost1' }).waitFor()
  const before = (await service.ask('/api/cluster')).body
  await lab.screenshot(page, 'cluster')
  await page.getByRole('button', { name: 'Abandon…' }).click()
  await dialog(page).getByText('kubeconfigs made until now are worth nothing').waitFor()
  await dialog(page).getByText('Ready nodes: 1, installed machines: 1').waitFor()
  await dialog(page).getByLabel('Name of the cluster').fill('lab')
  await dialog(page).getByLabel('Reason').fill('its board burned')
  await dialog(page).getByRole('button', { name: 'Abandon' }).click()
  await until('the name is asked for', () => dialog(page).getByLabel('Name of the lost machine').evaluate((e) => e.matches(':invalid') && document.activeElement === e))
  await dialog(page).getByLabel('Name of the lost machine').fill('lost2')
  await dialog(page).getByRole('button', { name: 'Abandon' }).click()
  await dialog(page).getByRole('alert').getByText('is called "lost1"').waitFor()
  await lab.screenshot(page, 'abandon')
  assert.ok(before.bootstrap && (await service.ask('/api/cluster')).body.bootstrap, 'a wrong name gave nothing up')
  await dialog(page).getByLabel('Name of the lost machine').fill('lost1')
  await dialog(page).getByRole('button', { name: 'Abandon' }).click()
  await page.getByText(/^nothing was begun: the start of the cluster was taken back from/).waitFor()
  assert.equal(await machine(service, 1), undefined)
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})
