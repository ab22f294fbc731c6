// Makes docs/console.png, the README's picture: a simulated machine that has
// become Ready.   npm run picture

import { join } from 'node:path'
import { Lab, machine, repository, until } from './lab.mjs'

const lab = await Lab.open()
try {
  const service = await lab.ready(await lab.serve())
  const page = await lab.setup(service, { width: 1280, height: 800 })
  lab.machines(service, { pace: '2s' })
  const { id } = await until('it waits', async () => {
    const m = await machine(service, 1)
    return m?.phase === 'waiting' && m
  })
  await page.goto(`${service.url}/#/machines/${id}`)
  await service.ask(`/api/machines/${id}/approve`, { method: 'POST', body: { name: 'rack1-u07' } })
  await until('it is Ready', async () => (await machine(service, 1)).phase === 'ready', 180_000)
  const { body } = await service.ask(`/api/machines/${id}/output?limit=200`)
  const lines = body.items.reduce((n, c) => n + c.lines.length, 0)
  const log = page.getByRole('log', { name: 'Log of the machine' })
  await until('the log is whole', async () => Number(await log.getAttribute('data-lines')) >= lines)
  await log.getByRole('list').getByText('is Ready').waitFor()
  await page.screenshot({ path: join(repository, 'docs/console.png') })
} finally {
  await lab.close()
}
