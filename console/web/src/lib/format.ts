import type { Inventory, Machine } from '../api.gen'

export function bytes(n: number): string {
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB']
  let i = 0
  for (; n >= 1024 && i < units.length - 1; i++) n /= 1024
  return `${n >= 10 || i === 0 ? Math.round(n) : n.toFixed(1)} ${units[i]}`
}

export function clock(time: string): string {
  return new Date(time).toLocaleTimeString([], { hour12: false })
}

export function stamp(time: string): string {
  return new Date(time).toLocaleString([], { hour12: false })
}

// since is the time from one moment to another, as 4 s or 3 min 20 s.
export function since(from: string, to: string): string {
  const seconds = Math.max(0, Math.round((Date.parse(to) - Date.parse(from)) / 1000))
  if (seconds < 60) return `${seconds} s`
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ${seconds % 60} s`
  return `${Math.floor(seconds / 3600)} h ${Math.floor((seconds % 3600) / 60)} min`
}

export function title(m: Machine): string {
  return m.name || m.inventory?.serial || m.macs[0] || m.id
}

export function hardware(i: Inventory | undefined): string {
  if (!i) return 'not looked at yet'
  const make = [i.manufacturer, i.product].filter(Boolean).join(' ') || 'unknown model'
  return `${make}, ${i.cpu.threads} CPU${i.cpu.threads === 1 ? '' : 's'}, ${bytes(i.memoryBytes)}`
}
