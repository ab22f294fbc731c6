// A machine's way from its first packet to Ready, as an operator sees it.

import assert from 'node:assert/strict'
import { readFile } from 'node:fs/promises'
import { after, afterEach, before, test } from 'node:test'
import { events, Lab, machine, siteFile, timeline, until } from './lab.mjs'

let lab, service
before(async () => {
  lab = await Lab.open()
  service = await lab.ready(await lab.serve())
})
after(() => lab?.close())
afterEach((t) => lab?.explain(t))

let page // logged in; the tests go on from each other's

const row = (number) => page.getByRole('row').filter({ hasText: `52:54:00:d0:00:0${number}` })
const dialog = () => page.getByRole('dialog')
const list = () => page.getByRole('navigation', { name: 'Pages' }).getByRole('link', { name: 'Machines' }).click()

test('a machine appears without a reload', async () => {
  page = await lab.setup(service)
  await page.getByText('No machine was seen yet.').waitFor()
  lab.machines(service, { first: 1, pace: '150ms' })
  await row(1).getByText('Waiting', { exact: true }).waitFor()
  await row(1).getByText('Supermicro SYS-110P-WR').waitFor()
  await row(1).getByText('1.7 TiB NVMe').waitFor()
  await page.getByText('1 waiting for approval').waitFor()
  await lab.screenshot(page, 'waiting')
})

test('the approve dialog is left by Esc and Cancel, and sent by Enter', async () => {
  const approve = row(1).getByRole('button', { name: 'Approve…' })
  await approve.focus()
  await page.keyboard.press('Enter')
  await dialog().waitFor()
  const plan = dialog().getByRole('region', { name: 'What would be done' })
  await plan.getByText('is written over; the others are not touched').waitFor()
  await plan.getByText('nothing: the disk is empty').waitFor()
  await plan.getByText('it starts the cluster').waitFor()
  await page.keyboard.press('Escape')
  await dialog().waitFor({ state: 'detached' })
  await approve.click()
  await dialog().getByRole('button', { name: 'Cancel' }).click()
  await dialog().waitFor({ state: 'detached' })
  assert.equal((await machine(service, 1)).phase, 'waiting')

  // What the boot service refuses is said in the dialog, which stays.
  await approve.click()
  await dialog().getByLabel('Host name').fill('Not A Name')
  await dialog().getByRole('button', { name: 'Approve' }).click()
  await dialog().getByRole('alert').getByText('lower-case letters, digits and hyphens').waitFor()
  await lab.screenshot(page, 'approve-refused')
  await dialog().getByLabel('Host name').fill('rack1-u07')
  await page.keyboard.press('Enter')
  await dialog().waitFor({ state: 'detached' })
})

test('its timeline goes from the first packet to Ready, in order and without a gap', async () => {
  await page.getByRole('link', { name: 'rack1-u07' }).first().click()
  await page.getByRole('heading', { name: 'rack1-u07' }).waitFor()
  await page.getByRole('list', { name: 'Progress' }).getByText('Installing').waitFor()
  const progress = page.getByRole('list', { name: 'Progress' }).locator('[aria-current=step]')
  await until('it is Ready', async () => (await progress.textContent()) === 'Ready')
  const { id } = await machine(service, 1)
  // The last event is the page's too, once it came.
  const wanted = await until('the last event is on the page', async () => {
    const all = (await events(service, id)).map((e) => e.seq)
    return (await timeline(page)).at(-1) === all.at(-1) && all
  })
  assert.deepEqual(await timeline(page), wanted)
  const kinds = (await events(service, id)).map((e) => e.kind)
  assert.equal(kinds[0], 'http.script')
  assert.equal(kinds.at(-1), 'node.ready')
  await page.getByText('first packet to Ready:').waitFor()
})

test('its page says what stands on its label, what its firmware is like, and why it is so', async () => {
  const hardware = page.getByRole('region', { name: 'Machine', exact: true })
  for (const text of ['S4718X00001', 'R7-00001', '4c4c4544-0053-4d10-8052-000000000001', '52:54:00:d0:00:01', '52:54:00:d1:00:01', 'UEFI · Secure Boot on · 1.9', 'Boot0003 PXE IPv4 ens1f0']) {
    await hardware.getByText(text).waitFor()
  }
  await page.getByRole('button', { name: 'Why?' }).click()
  const why = page.getByRole('region', { name: 'Why?' })
  await why.getByText((await service.ask(`/api/machines/${(await machine(service, 1)).id}/why`)).body.summary).waitFor()
  await why.getByText('Boots next').waitFor()
  await lab.screenshot(page, 'why')
  await page.getByRole('button', { name: 'Why?' }).click()
  await why.waitFor({ state: 'detached' })
})

test('its log is in the terminal, and can be saved', async () => {
  const log = page.getByRole('log', { name: 'Log of the machine' })
  const { id } = await machine(service, 1)
  const lines = async () => (await service.ask(`/api/machines/${id}/output?limit=200`)).body.items.flatMap((c) => c.lines)
  const all = await until('every line is there', async () => {
    const all = await lines()
    return all.at(-1)?.endsWith('is Ready') && Number(await log.getAttribute('data-lines')) === all.length && all
  })
  // What a screen reader is told is what the terminal shows.
  const shown = await until('the last line is shown', async () => {
    const text = await log.getByRole('list').innerText()
    return text.includes(all.at(-1)) && text
  })
  assert.match(shown, /control-plane has initialized successfully/)
  const [saved] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Save' }).click()])
  assert.equal(saved.suggestedFilename(), 'rack1-u07.log')
  const text = await readFile(await saved.path(), 'utf8')
  // In the terminal, streams are told apart by a line of ours, which has the day; a
  // line has its time, and loses its trailing blanks.
  assert.match(text, /^── installer, \d+\/\d+\/\d{4} ──\n/)
  const kept = text.split('\n').filter((l) => !/^── .* ──$/.test(l)).slice(0, -1)
  const { items: chunks } = (await service.ask(`/api/machines/${id}/output?limit=200`)).body
  const clocks = await page.evaluate((times) => times.map((t) => new Date(t).toLocaleTimeString([], { hour12: false })), chunks.flatMap((c) => c.lines.map(() => c.time)))
  assert.deepEqual(kept.map((l) => l.trimEnd()), all.map((l, n) => `${clocks[n]} ${l}`.trimEnd()))
  await lab.screenshot(page, 'machine')
})

test('a kubeconfig is downloaded', async () => {
  const [saved] = await Promise.all([page.waitForEvent('download'), page.getByRole('button', { name: 'Kubeconfig' }).click()])
  assert.equal(saved.suggestedFilename(), 'kubeconfig')
  const text = await readFile(await saved.path(), 'utf8')
  assert.match(text, /^apiVersion: v1$/m)
  assert.match(text, /server: https:\/\/192\.0\.2\.1:6443/)
  assert.match(text, /client-key-data: /)
})

test('a failed install shows its error, and is retried', async () => {
  await list()
  lab.machines(service, { first: 2, pace: '20ms', fail: 'image' })
  await row(2).getByRole('button', { name: 'Approve…' }).click()
  // Two disks, of which one must be chosen.
  await dialog().getByRole('alert').getByText('one must be chosen').waitFor()
  await dialog().getByRole('cell', { name: /^GPT, 3 partitions/ }).waitFor()
  await dialog().getByLabel('/dev/sdb').check()
  await dialog().getByText('nothing: the disk is empty').waitFor()
  await lab.screenshot(page, 'approve')
  await dialog().getByRole('button', { name: 'Approve' }).click()
  await row(2).getByText('Failed', { exact: true }).waitFor()
  await row(2).getByText('/dev/sdb: root.erofs: write at 214 MiB: input/output error').waitFor()
  await page.getByText('1 failed').waitFor()
  await row(2).getByRole('link').click()
  await page.getByRole('alert').getByText('input/output error').waitFor()
  await page.getByText('Installing failed').waitFor()
  await lab.screenshot(page, 'failed')
  await page.getByRole('button', { name: 'Retry…' }).click()
  await dialog().getByText('input/output error').waitFor()
  await dialog().getByRole('button', { name: 'Retry' }).click()
  const progress = page.getByRole('list', { name: 'Progress' }).locator('[aria-current=step]')
  await until('it is Ready', async () => (await progress.textContent()) === 'Ready')
  const { install: intent } = await machine(service, 2)
  await page.getByRole('region', { name: 'Machine', exact: true }).getByText(`${intent.id} is done`).waitFor()
  assert.equal(intent.disk.serial, '31P0A0CF00002')
  assert.equal(intent.status, 'done')
})

test('what is on a disk is lost only when it was named, at approval and at a retry', async () => {
  await list()
  lab.machines(service, { first: 5, pace: '0s', fail: 'image' })
  await row(5).getByRole('button', { name: 'Approve…' }).click()
  await dialog().getByLabel('/dev/sdb').check()
  await dialog().getByText('nothing: the disk is empty').waitFor()
  await dialog().getByLabel('/dev/sda').check()
  const erase = dialog().getByRole('checkbox', { name: 'Erase GPT, 3 partitions: FAT, ext4, LVM on the disk with serial number PHYF149200005' })
  await erase.waitFor()
  // Without it nothing is sent.
  await dialog().getByRole('button', { name: 'Approve' }).click()
  await until('the browser asks for it', () => erase.evaluate((e) => e.matches(':invalid') && document.activeElement === e))
  assert.equal((await machine(service, 5)).phase, 'waiting')
  await erase.check()
  await lab.screenshot(page, 'approve-erase')
  // A confirmation counts for that disk alone.
  await dialog().getByLabel('/dev/sdb').check()
  await erase.waitFor({ state: 'detached' })
  await dialog().getByRole('button', { name: 'Approve' }).click()
  await row(5).getByText('Failed', { exact: true }).waitFor()
  await row(5).getByRole('button', { name: 'Retry…' }).click()
  await dialog().getByLabel('/dev/sda').check()
  await erase.check()
  await lab.screenshot(page, 'retry')
  await dialog().getByRole('button', { name: 'Retry' }).click()
  await row(5).getByText('Ready', { exact: true }).waitFor()
  const { disk, erase: named } = (await machine(service, 5)).install
  assert.deepEqual([disk.serial, named], ['PHYF149200005', 'GPT, 3 partitions: FAT, ext4, LVM'])
})

test('an approval is taken back', async () => {
  lab.machines(service, { first: 6, pace: '0s', fail: 'image' })
  await row(6).getByRole('button', { name: 'Approve…' }).click()
  await dialog().getByText('Cannot be installed on: it is virtual media of the management controller').waitFor()
  assert.ok(await dialog().getByLabel('/dev/sdb').isDisabled())
  await dialog().getByRole('checkbox', { name: 'Erase MBR, 1 partition: NTFS on the disk with serial number W0M2K00006' }).check()
  await dialog().getByRole('button', { name: 'Approve' }).click()
  await row(6).getByText('Failed', { exact: true }).waitFor()
  await row(6).getByRole('link').click()
  await page.getByRole('button', { name: 'Revoke…' }).click()
  await dialog().getByLabel('Reason').fill('the wrong rack')
  await lab.screenshot(page, 'revoke')
  await dialog().getByRole('button', { name: 'Revoke' }).click()
  await page.getByRole('status', { name: 'Done' }).getByText(/^Taken back from .*: the install \(i-/).waitFor()
  await page.getByRole('list', { name: 'Timeline' }).getByText('the wrong rack').waitFor()
  const { install, phase } = await machine(service, 6)
  assert.deepEqual([install.status, install.reason, phase], ['revoked', 'the wrong rack', 'waiting'])
  await page.getByRole('button', { name: 'Forget…' }).click()
  await dialog().getByRole('button', { name: 'Forget' }).click()
  await page.getByText('it may have been forgotten').waitFor()
  await page.getByRole('link', { name: 'All machines' }).click()
})

test('a machine is looked at again, and boots to a rescue shell', async () => {
  const lone = lab.machines(service, { first: 3, pace: '0s' })
  await row(3).getByText(/leaves at \d\d:\d\d/).waitFor()
  await row(3).getByRole('link').click()
  await page.getByText(/It leaves at \d\d:\d\d, in .*: then it goes back to its own disk/).waitFor()
  await page.getByRole('button', { name: 'Look again…' }).click()
  await lab.screenshot(page, 'look')
  await dialog().getByLabel('For how long').selectOption('24 h')
  await dialog().getByRole('button', { name: 'Look again' }).click()
  await page.getByText(/It is looked at when it netboots, until .*\d\d:\d\d: restart it/).waitFor()
  assert.ok(Date.parse((await machine(service, 3)).invited) > Date.now() + 23 * 3600e3)
  await page.getByRole('button', { name: 'Take back' }).click()
  await page.getByText('It is looked at when it netboots').waitFor({ state: 'detached' })

  // A shell that nobody could log in to is not offered, and the button says why.
  const rescue = page.getByRole('button', { name: 'Rescue…' })
  assert.ok(await rescue.isDisabled())
  assert.match(await rescue.getAttribute('title'), /the site file has no sshKeys/)
  await service.writeSite(siteFile({ sshKey: 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl ann@lab' }))
  await until('the key is applied', async () => (await service.ask('/api/site')).body.site.sshKeys?.length === 1)
  await page.getByRole('button', { name: 'Rescue…' }).click()
  await dialog().getByRole('button', { name: 'Rescue' }).click()
  await page.getByText('It boots to a rescue shell when it netboots').waitFor()
  await page.getByRole('button', { name: 'Revoke…' }).click()
  await dialog().getByRole('list', { name: 'What is taken back' }).getByText(/^the rescue shell r-/).waitFor()
  await dialog().getByRole('button', { name: 'Revoke' }).click()
  await page.getByText('It boots to a rescue shell when it netboots').waitFor({ state: 'detached' })
  lone.kill()
  await list()
})

test('a machine is forgotten', async () => {
  lab.machines(service, { first: 3, pace: '0s' })
  await row(3).getByText('Waiting', { exact: true }).waitFor()
  await row(3).getByRole('link').click()
  await page.getByRole('button', { name: 'Forget…' }).click()
  await lab.screenshot(page, 'forget')
  await dialog().getByRole('button', { name: 'Forget' }).click()
  await page.getByText('it may have been forgotten').waitFor()
  await page.getByRole('link', { name: 'All machines' }).click()
  await row(1).waitFor()
})

test('many machines, a narrow window, and the dark', async () => {
  lab.machines(service, { first: 7, n: 9, pace: '0s' })
  await page.getByText('5 waiting for approval').or(page.getByText(/\d+ waiting for approval/)).first().waitFor()
  await until('all wait', async () => (await service.ask('/api/status')).body.machines.waiting >= 9)
  await page.getByLabel('Filter').fill('CZJ64')
  await until('the filter holds', async () => (await page.getByRole('row').count()) < 8)
  await page.getByLabel('Filter').fill('')
  await lab.screenshot(page, 'many', { fullPage: true })
  const overflow = () => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth)
  // As a table, and on a telephone with each row as a block.
  for (const width of [701, 700, 390]) {
    await page.setViewportSize({ width, height: 800 })
    const waits = page.getByRole('row').filter({ hasText: 'Waiting' }).first()
    await waits.scrollIntoViewIfNeeded()
    await lab.screenshot(page, `narrow-list-${width}`)
    assert.equal(await overflow(), 0, `the list fits into ${width} px`)
    const button = await waits.getByRole('button', { name: 'Approve…' }).boundingBox()
    const link = await waits.getByRole('link').boundingBox()
    assert.ok(link.x >= 0 && link.x + link.width <= button.x && button.x + button.width <= width, `${width} px: what to do is in sight, beside what it is about: ${JSON.stringify([link, button])}`)
    const scrolls = await page.getByRole('table').evaluate((e) => e.parentElement.scrollWidth - e.parentElement.clientWidth)
    assert.equal(scrolls, 0, `${width} px: nothing of the list is beside the page`)
  }
  await page.getByRole('row').filter({ hasText: 'Waiting' }).first().getByRole('button', { name: 'Approve…' }).click()
  await dialog().getByRole('button', { name: 'Cancel' }).click()
  await page.getByRole('link', { name: 'rack1-u07' }).first().click()
  await page.getByRole('heading', { name: 'rack1-u07' }).waitFor()
  await until('the log is back', async () => Number(await page.getByRole('log', { name: 'Log of the machine' }).getAttribute('data-lines')) > 0)
  assert.equal(await overflow(), 0, 'a machine fits into 390 px')
  await lab.screenshot(page, 'narrow-machine', { fullPage: true })
  await page.setViewportSize({ width: 1440, height: 900 })
  await page.emulateMedia({ colorScheme: 'dark' })
  await lab.screenshot(page, 'dark')
  assert.deepEqual(page.faults, [])
})
