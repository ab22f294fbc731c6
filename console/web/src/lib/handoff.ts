import type { Handoff, HandoffPlan, Replica } from '../api.gen'

export type Step = HandoffPlan['step']

// steps are those of a handoff, in order; it can be given up from any before
// sealing.
export const steps: { step: Step; text: string }[] = [
  { step: 'preflight', text: 'Preflight' },
  { step: 'deploying', text: 'Deploying' },
  { step: 'catching-up', text: 'Catching up' },
  { step: 'promoting', text: 'Promoting' },
  { step: 'transferring', text: 'Transferring' },
  { step: 'watching', text: 'Watching' },
  { step: 'sealing', text: 'Sealing' },
  { step: 'done', text: 'Done' },
]

export function stepText(step: Step): string {
  return steps.find((s) => s.step === step)?.text ?? (step === 'aborting' ? 'Aborting' : 'Aborted')
}

// role is what a replica counts for, in the command line's words.
export function role(r: Replica): string {
  const counts = r.voter ? 'voter' : r.member ? 'member without a vote' : 'joining, no member yet'
  return [r.leads && 'leads', counts, r.seen && !r.reachable && 'cannot be reached'].filter(Boolean).join(', ')
}

// secrets says how safe the secrets on a replica's disk are.
export const secrets = (r: Replica) => (r.secrets === 'plaintext' ? 'not protected (plaintext)' : (r.secrets ?? ''))

// leavesText is what is lost by taking a replica away, in the command line's words.
export function leavesText(h: Handoff, r: Replica): string {
  const text = `It leaves for good; if its node only restarts, wait for it instead. Its disk keeps the data keys: erase it.`
  const left = h.replicas.filter((x) => x.voter).length - 1
  if (!r.voter || left < 1) return text
  return `${text} It loses its vote: ${left} ${left === 1 ? 'voter is' : 'voters are'} left, of which ${Math.floor((left - 1) / 2) || 'none'} may fail, until another one is started.`
}

// moves: the appliance is left in the end, and not only joined by more replicas.
export function moves(h: Handoff): boolean {
  if (h.plan && !h.plan.over) return !!h.plan.from
  return !h.replicas.some((r) => r.leads && r.machine)
}

// names lists things in words.
export const names = (list: { name: string }[]) =>
  list
    .map((x) => x.name)
    .sort()
    .join(', ')
