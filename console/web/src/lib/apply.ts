import type { AppliedSite, SiteCheck, SiteText } from '../api.gen'
import { ApiError, request } from './api'

const pause = 300 // ms between two looks
const lookLimit = 5_000 // ms for one look
const limit = 30_000 // ms; the boot service looks every second or two

// apply keeps a site file, and returns once it is in force. Meanwhile links are set
// up anew and commits wait, so that the boot service may be silent or busy for a
// while.
export async function apply(text: string): Promise<void> {
  const kept = await request<SiteCheck>('POST', '/api/setup/keep', { text } satisfies SiteText)
  const wanted = JSON.stringify(kept.site)
  const end = Date.now() + limit
  for (;;) {
    const hindrance = await look(wanted)
    if (hindrance === '') return
    if (Date.now() > end) throw new Error(`The site file is kept, and was not seen in force within ${limit / 1000} s. ${hindrance}`)
    await new Promise((resolve) => setTimeout(resolve, pause))
  }
}

// look says what to do if a site never comes in force; nothing once it is.
async function look(wanted: string): Promise<string> {
  try {
    const now = await request<AppliedSite>('GET', '/api/site', undefined, lookLimit)
    if (now.applied && JSON.stringify(now.site) === wanted) return ''
    return 'If something is wrong with it, that stands at the top of this page. Else the stick is slow: load this page again in a minute.'
  } catch (e) {
    if (!(e instanceof ApiError)) throw e
    if (e.status === 503) return `The boot service says: ${e.message}`
    if (e.status === 0) return 'The boot service does not answer here. If its address is another one now, open the console there (its address stands on the appliance’s screen); else load this page again in a minute.'
    throw e
  }
}
