// What the boot service knows, as it happens: one stream feeds every page.

import { SvelteMap } from 'svelte/reactivity'
import type { Discovery, Event, EventList, Expected, Machine, MachineList } from '../api.gen'
import { request } from './api'
import { openStream, type Stream } from './socket'
import type { StreamMessage } from './types'

// keptEvents bounds what the page holds; a machine's older events are asked for
// by its page.
const keptEvents = 5000
// recentEvents are those that a page begins with.
const recentEvents = 200

class Live {
  machines = new SvelteMap<string, Machine>()
  events = $state.raw<Event[]>([])
  // expected are those that the site file lists and that were never seen.
  expected = $state.raw<Expected[]>([])
  // discovery is the discovery window; undefined until it was told.
  discovery = $state.raw<Discovery>()
  connected = $state(false)
  // complete: the machines were told once, so that one which is not here is
  // not known.
  complete = $state(false)
  last = 0

  #stream: Stream | undefined
  #run = 0 // counts starts: answers to an earlier one are late

  async start() {
    if (this.#stream) return
    const run = ++this.#run
    const { last } = await request<EventList>('GET', '/api/events?limit=1')
    if (run !== this.#run) return
    this.last = Math.max(0, last - recentEvents)
    this.#stream = openStream({
      path: () => `/api/stream?after=${this.last}`,
      connected: (connected) => (this.connected = connected),
      message: (m) => this.#take(m as StreamMessage),
    })
  }

  stop() {
    this.#run++
    this.#stream?.close()
    this.#stream = undefined
    this.connected = false
    this.#clear()
  }

  #clear() {
    this.machines.clear()
    this.events = []
    this.expected = []
    this.discovery = undefined
    this.complete = false
    this.last = 0
  }

  #take(m: StreamMessage) {
    switch (m.type) {
      case 'hello':
        if (m.lastEvent < this.last) {
          // Another cluster answers at this address: nothing we hold is its.
          this.#clear()
          this.#stream?.restart()
        } else {
          void this.#prune()
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
      case 'expected':
        this.expected = m.expected
        break
      case 'discovery':
        this.discovery = m.discovery
        break
      case 'forgotten':
        this.machines.delete(m.id)
        break
    }
  }

  // prune lets go of machines that were forgotten while the stream was away.
  async #prune() {
    const run = this.#run
    try {
      const { items } = await request<MachineList>('GET', '/api/machines')
      if (run !== this.#run) return
      const known = new Set(items.map((m) => m.id))
      for (const id of [...this.machines.keys()]) {
        if (!known.has(id)) this.machines.delete(id)
      }
      for (const m of items) {
        if (!this.machines.has(m.id)) this.machines.set(m.id, m)
      }
      this.complete = true
    } catch {
      // The connection went away again: the next hello asks again.
    }
  }
}

export const live = new Live()
