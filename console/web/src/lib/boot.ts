import type { Boot, Intent } from '../api.gen'
import { stamp } from './format'

// toldToBoot is what a machine was told to boot last.
export function toldToBoot(b: Boot): string {
  return [`${b.kind}, at ${stamp(b.decided)}`, b.fetched ? `fetched the kernel at ${stamp(b.fetched)}` : '', b.silent ? 'silent since' : '']
    .filter(Boolean)
    .join('; ')
}

// orderWords are what each kind of order is called.
export const orderWords: Record<Intent['kind'], string> = { install: 'install', bootstrap: 'start of the cluster', join: 'join', rescue: 'rescue shell' }

// order is an order in words.
export function order(i: Intent): string {
  const disk = i.disk && Object.entries(i.disk).map(([key, value]) => `${key} ${value}`)
  return (
    `${i.id} is ${i.status}, epoch ${i.epoch}` +
    (disk?.length ? `, disk with ${disk.join(', ')}` : '') +
    (i.erase ? `, may erase ${i.erase}` : '') +
    (i.reason ? `: ${i.reason}` : '')
  )
}
