// Shorthands over the generated types.
import type { Action, Machine, Operations } from '../api.gen'

export type Phase = Machine['phase']
export type ActionName = Action['name']
export type StreamMessage = Operations['stream']['message']
