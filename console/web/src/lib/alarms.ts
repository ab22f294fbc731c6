import type { Health, Status } from '../api.gen'

// Alarm is what is wrong with the site or the service, with the way out, in the
// boot service's own words.
export interface Alarm {
  name: string
  text: string
  // grave: machines are not served, or nothing is kept, until somebody acts.
  grave: boolean
}

// A part that only waits for its turn, or is slow, is no reason to act.
const passing = /^(waiting for|starting)|listening for other DHCP servers|^the stick is slow/

// serving are the parts without which no machine is served.
const serving = ['address', 'dhcp', 'tftp', 'netboot', 'machines', 'images', 'output', 'storage']

// alarms are in the order in which they matter. What is wrong with the site
// file is told at its own place.
export function alarms(status: Status): Alarm[] {
  const warnings = status.warnings.filter((w) => !(status.siteProblems.length > 0 && w.startsWith('The site file has problems')))
  const list: Alarm[] = warnings.map((text) => ({ name: '', text, grave: forgetful(text) }))
  for (const h of status.health) {
    if (h.ok || h.name === 'site file' || status.site === '') continue
    // What follows from that nothing is kept needs no alarm of its own.
    if (warnings.some(forgetful) && /nothing is kept/.test(h.text)) continue
    const same = list.find((a) => a.name && a.text === h.text)
    if (same) {
      same.name += `, ${h.name}`
      same.grave ||= grave(h)
    } else {
      list.push({ name: h.name, text: h.text, grave: grave(h) })
    }
  }
  return [...list.filter((a) => a.grave), ...list.filter((a) => !a.grave && a.name), ...list.filter((a) => !a.grave && !a.name)]
}

// forgetful says whether a warning is that nothing is kept.
export const forgetful = (warning: string) => warning.startsWith('Nothing is kept')

const grave = (h: Health) => serving.includes(h.name) && !passing.test(h.text)
