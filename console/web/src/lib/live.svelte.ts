// What the boot service knows, as it happens: one stream feeds every page.

import { SvelteMap } from 'svelte/reactivity'
import type { Event, Machine } from '../api.gen'
import type { StreamMessage } from './types'
import { openStream, type Stream } from './socket'

// keptEvents bounds what the page holds; older events are asked for by page.
const keptEvents = 5000

class Live {
  machines = new SvelteMap<string, Machine>()
  events = $state.raw<Event[]>([])
  connected = $state(false)
  last = 0

  #stream: Stream | undefined

  start() {
    this.#stream ??= openStream({
      path: () => `/api/stream?after=${this.last}`,
      connected: (connected) => (this.connected = connected),
      message: (m) => this.#take(m as StreamMessage),
    })
  }

  stop() {
    this.#stream?.close()
    this.#stream = undefined
    this.machines.clear()
    this.events = []
    this.last = 0
  }

  #take(m: StreamMessage) {
    switch (m.type) {
      case 'hello':
        if (m.lastEvent < this.last) {
          // Another cluster answers at this address: nothing we hold is its.
          this.machines.clear()
          this.events = []
          this.last = 0
        }
        break
      case 'event':
        this.last = m.event.seq
        this.events = [...this.events, m.event].slice(-keptEvents)
        break
      case 'gap':
        this.last = m.to
        break
      case 'machine':
        this.machines.set(m.machine.id, m.machine)
        break
      case 'forgotten':
        this.machines.delete(m.id)
        break
    }
  }
}

export const live = new Live()
