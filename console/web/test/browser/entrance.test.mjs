// Who may come in, and what is there before any machine.

import assert from 'node:assert/strict'
import { after, afterEach, before, test } from 'node:test'
import { Lab, machine, password, siteFile, until } from './lab.mjs'

let lab
before(async () => (lab = await Lab.open()))
after(() => lab?.close())
afterEach((t) => lab?.explain(t))

const connection = (page) => page.getByRole('status', { name: 'Connection' })

test('set up once, stay logged in, log out and in', async () => {
  const service = await lab.ready(await lab.serve())
  const page = await lab.page(service)

  await page.getByLabel('Setup code').fill('0000-0000-0000-0000')
  await page.getByLabel('Name').fill('ann')
  await page.getByLabel('Password').fill(password)
  await lab.screenshot(page, 'setup')
  await page.getByRole('button', { name: 'Set up' }).click()
  // The service's own words, as anybody else would get them.
  const refused = await service.ask('/api/setup', { method: 'POST', token: '', body: { code: '0000', name: 'bob', password } })
  assert.ok(refused.status >= 400)
  await page.getByRole('alert').getByText(refused.body.detail).waitFor()

  await page.getByLabel('Setup code').fill(service.code.toLowerCase().replaceAll('-', ' '))
  await page.getByRole('button', { name: 'Set up' }).click()
  await connection(page).getByText('Live').waitFor()
  await page.getByText('No machine was seen yet.').waitFor()
  await page.getByText('nothing is written to its disk before you approve it').waitFor()
  await page.getByText('lab', { exact: true }).waitFor()
  await lab.screenshot(page, 'empty')

  await page.reload()
  await page.getByText('No machine was seen yet.').waitFor()
  await connection(page).getByText('Live').waitFor()

  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByRole('button', { name: 'Log in' }).waitFor()
  assert.equal(await page.getByLabel('Setup code').count(), 0)
  await page.reload()
  await page.getByLabel('Name').fill('ann')
  await page.getByLabel('Password').fill('wrong horse')
  await page.getByRole('button', { name: 'Log in' }).click()
  await page.getByRole('alert').waitFor()
  await lab.screenshot(page, 'login-refused')
  await page.getByLabel('Password').fill(password)
  await page.getByLabel('Password').press('Enter')
  await connection(page).getByText('Live').waitFor()
  await page.getByText('ann', { exact: true }).waitFor()
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

test('where no replica leads, somebody who logs in reads', async () => {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service)
  // What the API says then is in its own tests; here is what people are told.
  await page.route('**/api/session', (route) => route.fulfill({ json: { name: 'ann', reads: true } }))
  await page.reload()
  await page.getByRole('status', { name: 'Reading only' }).getByText('nothing can be changed').waitFor()
  await page.goto(`${service.url}/#/handoff`)
  for (const name of ['Kubeconfig', 'Save a backup']) assert.ok(await page.getByRole('button', { name }).isDisabled(), name)
  await lab.screenshot(page, 'reading')
  lab.machines(service)
  await until('a machine waits', async () => (await machine(service, 1))?.phase === 'waiting')
  await page.goto(`${service.url}/#/`)
  await page.getByRole('button', { name: 'Approve…' }).first().click()
  const dialog = page.getByRole('dialog')
  await dialog.getByText('This login only reads: nothing can be changed.').waitFor()
  assert.ok(await dialog.getByRole('button', { name: 'Approve' }).isDisabled())
  await lab.screenshot(page, 'reading-dialog')
  await page.keyboard.press('Escape')
  await page.unroute('**/api/session')
  await page.getByRole('button', { name: 'Log out' }).click()
  let go
  const held = new Promise((resolve) => (go = resolve))
  await page.route('**/api/login', async (route) => {
    await held
    await route.continue()
  })
  await page.getByLabel('Name').fill('ann')
  await page.getByLabel('Password').fill(password)
  await page.getByRole('button', { name: 'Log in' }).click()
  const waits = page.getByRole('status', { name: 'Waiting' })
  await waits.getByText('you are let in after 10 s, to read').waitFor()
  go()
  await connection(page).getByText('Live').waitFor()
  assert.equal(await waits.count(), 0)
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

test('a site file with mistakes shows line and column, and what is expected', async () => {
  const service = await lab.serve({ site: siteFile() })
  await lab.ready(service)
  const page = await lab.setup(service)
  await service.writeSite(siteFile({ from: '192.0.2.300' }))
  const { body } = await until('the service sees the mistake', async () => {
    const answer = await service.ask('/api/status')
    return answer.body.siteProblems.length > 0 && answer
  })
  assert.match(body.siteProblems[0], /^site\.yaml:8:13: links\[0\]\.dhcp\.from/)
  const alert = page.getByRole('alert').filter({ hasText: 'The site file has' })
  await alert.getByText(body.siteProblems[0]).waitFor()
  await lab.screenshot(page, 'site-problem')
  await service.writeSite(siteFile({ name: 'mended' }))
  await page.getByText('mended', { exact: true }).waitFor()
  await alert.waitFor({ state: 'detached' })
  assert.deepEqual(page.faults, [])
  await page.context().close()
  await service.stop()
})

test('nothing is served to somebody who did not log in', async () => {
  const service = await lab.ready(await lab.serve())
  const { body: spec } = await service.ask('/api/openapi.json')
  const open = []
  for (const [path, operations] of Object.entries(spec.paths)) {
    for (const method of Object.keys(operations)) {
      const at = path.replace('{id}', 'm-00000000')
      const { status } = await service.ask(at, { method: method.toUpperCase(), token: '', body: method === 'post' ? {} : undefined })
      if (status !== 401) open.push(`${method} ${path}`)
      // A token that nobody has is no better than none.
      const forged = await service.ask(at, { method: method.toUpperCase(), token: 'rs_forged', body: method === 'post' ? {} : undefined })
      assert.equal(forged.status === 401, status === 401, `${method} ${path} with a forged token: ${forged.status}`)
    }
  }
  assert.deepEqual(open.sort(), ['get /api/health', 'post /api/login', 'post /api/setup'])
  assert.ok(Object.keys(spec.paths).length > 10, 'the document names the routes')
  for (const path of ['/api/openapi.json', '/api/', '/api/nothing', '/api/../api/machines']) {
    assert.equal((await service.ask(path, { token: '' })).status, 401, path)
  }
  // Of the console there are only its own files.
  for (const path of ['/site.yaml', '/data/setup-code', '/../site.yaml', '/%2e%2e/site.yaml', '/assets/']) {
    const { status, text } = await service.ask(path, { token: '' })
    assert.ok(status >= 400 || !/serviceAddress|[0-9A-Z]{4}-[0-9A-Z]{4}/.test(text), `${path}: ${status} ${text}`)
  }
  await service.stop()
})
