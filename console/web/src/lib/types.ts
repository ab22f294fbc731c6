// Shorthands over the generated types.
import type { Action, Machine, StreamEvent, StreamForgotten, StreamGap, StreamHello, StreamMachine } from '../api.gen'

export type Phase = Machine['phase']
export type ActionName = Action['name']
export type StreamMessage = StreamHello | StreamEvent | StreamGap | StreamMachine | StreamForgotten
