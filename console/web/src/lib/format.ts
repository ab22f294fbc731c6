import type { Disk, Inventory, Machine } from '../api.gen'

// none stands where there is no value.
export const none = '–'

// bytes are in powers of two everywhere, also of disks: so that the page says
// the same as the events and the log beside it.
export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let i = 0
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024
  return `${n >= 100 || Number.isInteger(n) ? Math.round(n) : n.toFixed(1)} ${units[i]}`
}

export function clock(time: string): string {
  return new Date(time).toLocaleTimeString([], { hour12: false })
}

export function stamp(time: string): string {
  return new Date(time).toLocaleString([], { hour12: false })
}

export function day(time: string): string {
  return new Date(time).toLocaleDateString()
}

// minute is a time of day without its seconds, with the date unless it is today.
export function minute(time: string): string {
  const at = new Date(time)
  const day = at.toDateString() === new Date().toDateString() ? {} : ({ weekday: 'short', day: 'numeric', month: 'short' } as const)
  return at.toLocaleString([], { ...day, hour: '2-digit', minute: '2-digit', hour12: false })
}

// since is the time from one moment to another, as 4 s or 3 min 20 s.
export function since(from: string, to: string): string {
  const seconds = Math.max(0, Math.round((Date.parse(to) - Date.parse(from)) / 1000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
}

export const count = (n: number, what: string) => `${n} ${what}${n === 1 ? '' : 's'}`

// title is what a machine is called: its name, else what stands on its label.
export function title(m: Machine): string {
  return m.name || m.inventory?.serial || m.macs[0] || m.id
}

export function model(i: Inventory): string {
  return [i.manufacturer, i.product].filter(Boolean).join(' ') || 'Unknown model'
}

export function power(i: Inventory): string {
  return `${count(i.cpu.threads, 'CPU')}, ${bytes(i.memoryBytes)}`
}

export function processor(i: Inventory): string {
  const { sockets, cores, threads, model } = i.cpu
  const counts = [sockets && count(sockets, 'socket'), cores && count(cores, 'core'), count(threads, 'thread')].filter(Boolean).join(', ')
  return [model, counts].filter(Boolean).join(' · ')
}

export function diskKind(d: Disk): string {
  const kind = d.transport === 'nvme' ? 'NVMe' : d.transport === 'unknown' ? '' : d.transport.toUpperCase()
  return [kind, d.rotational ? 'hard disk' : '', d.removable ? 'removable' : '', d.readOnly ? 'read-only' : ''].filter(Boolean).join(', ')
}

// diskLabel is what stands on a disk, to find it in the rack.
export function diskLabel(d: Disk): string {
  return d.serial ? `serial number ${d.serial}` : d.wwn ? `WWN ${d.wwn}` : `no serial number, at ${d.path}`
}

// disks are a machine's in a few words: "1.9 TB NVMe" or "2 disks, 4.3 TB".
export function disks(list: Disk[]): string {
  if (list.length === 0) return 'no disk'
  const total = bytes(list.reduce((sum, d) => sum + d.bytes, 0))
  return list.length === 1 ? `${total} ${diskKind(list[0]!)}`.trim() : `${list.length} disks, ${total}`
}

export function speed(mbit: number | undefined): string {
  if (!mbit) return ''
  return mbit >= 1000 ? `${mbit / 1000} Gbit/s` : `${mbit} Mbit/s`
}
