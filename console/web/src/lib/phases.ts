import type { Machine } from '../api.gen'
import type { Phase } from './types'

// The way of a machine, in order; "failed" can follow any of them.
export const way: { phase: Phase; text: string }[] = [
  { phase: 'seen', text: 'Seen' },
  { phase: 'waiting', text: 'Waiting' },
  { phase: 'approved', text: 'Approved' },
  { phase: 'installing', text: 'Installing' },
  { phase: 'installed', text: 'Installed' },
  { phase: 'booted', text: 'Booted' },
  { phase: 'joining', text: 'Joining' },
  { phase: 'ready', text: 'Ready' },
]

export function phaseText(phase: Phase): string {
  if (phase === 'rescue') return 'Rescue shell'
  if (phase === 'local') return 'Own disk'
  return way.find((s) => s.phase === phase)?.text ?? 'Failed'
}

// reached is how far a machine has come, as an index of the way; a failed one
// stands where it failed, one that went to its own disk at the beginning, and one
// with a rescue shell nowhere: -1.
export function reached(m: Machine): number {
  const at = m.phase === 'local' ? 'seen' : m.phase === 'failed' ? (m.install?.status === 'done' ? 'joining' : 'installing') : m.phase
  return way.findIndex((s) => s.phase === at)
}

// tone is how a phase is coloured: what waits for people stands out.
export function tone(phase: Phase): 'ask' | 'busy' | 'good' | 'bad' | 'quiet' {
  switch (phase) {
    case 'waiting':
    case 'rescue':
      return 'ask'
    case 'ready':
      return 'good'
    case 'failed':
      return 'bad'
    case 'seen':
    case 'local':
      return 'quiet'
    default:
      return 'busy'
  }
}
