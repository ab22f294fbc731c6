import type { AppliedSite, SiteCheck, SiteText } from '../api.gen'
import { request } from './api'

const pause = 300 // ms between two looks
const limit = 30_000 // ms; the boot service looks every second or two

// apply keeps a site file, and returns once it is in force.
export async function apply(text: string): Promise<void> {
  const kept = await request<SiteCheck>('POST', '/api/setup/keep', { text } satisfies SiteText)
  const wanted = JSON.stringify(kept.site)
  for (const end = Date.now() + limit; ; ) {
    const now = await request<AppliedSite>('GET', '/api/site')
    if (now.applied && JSON.stringify(now.site) === wanted) return
    if (Date.now() > end) throw new Error(`It is kept, and not in force after ${limit / 1000} s: what is wrong with the site file stands above.`)
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
}
