import type { Status, Warning } from '../api.gen'

// Alarm is what is wrong with the site or the service, with the way out, in the
// boot service's own words.
export interface Alarm {
  name: string
  text: string
  // grave: machines are not served, or nothing is kept, until somebody acts.
  grave: boolean
  // where it is mended in the console
  at?: string
}

// alarms are in the order in which they matter. What is wrong with the site
// file is told at its own place.
export function alarms(status: Status): Alarm[] {
  const warnings = status.warnings.filter((w) => !(status.siteProblems.length > 0 && w.kind === 'site-file'))
  const list: Alarm[] = warnings.map((w) => ({ name: '', text: w.text, grave: forgetful(w), at: w.kind === 'recovery-key' ? '#/handoff' : undefined }))
  for (const h of status.health) {
    if (h.ok || h.name === 'site file' || status.site === '') continue
    // What follows from that nothing is kept needs no alarm of its own.
    if (warnings.some(forgetful) && h.kind === 'volatile') continue
    const same = list.find((a) => a.name && a.text === h.text)
    if (same) {
      same.name += `, ${h.name}`
      same.grave ||= h.grave ?? false
    } else {
      list.push({ name: h.name, text: h.text, grave: h.grave ?? false })
    }
  }
  return [...list.filter((a) => a.grave), ...list.filter((a) => !a.grave && a.name), ...list.filter((a) => !a.grave && !a.name)]
}

// forgetful says whether a warning is that nothing is kept.
export const forgetful = (warning: Warning) => warning.kind === 'volatile'
