// What setup says of links and of what answers on them: the words of the
// appliance's form.

import type { Draft, Found, Offer, Problem } from '../api.gen'
import { speed } from './format'

export function describeLink(l: Found): string {
  return [l.driver, l.carrier ? 'carrier' : 'no carrier', l.carrier ? speed(l.mbit) : ''].filter(Boolean).join(' · ')
}

// answers says what answers DHCP on a link, a line each.
export function answers(l: Found): string[] {
  if (!l.carrier) return ['not asked: no carrier']
  if (l.fault) return [`not asked: ${l.fault}`]
  return l.offers.length === 0 ? ['nobody'] : l.offers.map(describeOffer)
}

export function describeOffer(o: Offer): string {
  if (o.rackseed) return `another Rackseed appliance, ${o.server} (${o.mac}), of site "${o.site ?? ''}"`
  const text = `DHCP server ${o.server} (${o.mac})`
  if (!o.address) return `${text} offers no address, only netboot (ProxyDHCP)`
  return [
    `${text} offers ${o.address}${o.network ? '/' + o.network.split('/')[1] : ''}`,
    o.router ? `router ${o.router}` : '',
    o.dns?.length ? `DNS ${o.dns.join(', ')}` : '',
  ].filter(Boolean).join(', ')
}

// names says whether a draft is of this link.
export function names(d: Draft, l: Found): boolean {
  return d.mac ? d.mac === l.mac : !!d.interface && d.interface === l.name
}

// best is the link that is most likely the machines': where nobody else answers.
export function best(links: Found[]): Found | undefined {
  return links.find((l) => l.carrier && !l.fault && l.offers.length === 0) ?? links.find((l) => l.carrier) ?? links[0]
}

// problemText is a problem of a site file in one line, with its place.
export function problemText(p: Problem): string {
  return [p.line ? `line ${p.line}, column ${p.column}` : '', p.path, p.text + (p.expected ? ` (expected ${p.expected})` : '')].filter(Boolean).join(': ')
}
