// Whether the boot service answers: what it does not answer, people must not take
// for what is. And so whether anything can be ordered.

import { now } from './now.svelte'

// patience is for how long connections may fail before the page says so, in ms. It is
// longer than App's pause between two looks at the status: one that is answered ends
// what a stream alone has.
const patience = 6000

class Contact {
  #heard = $state(Date.now())
  #failing = $state<number>()

  // silent is when the boot service was heard of last, once it is away for longer than
  // patience; undefined while it is not.
  silent = $derived(this.#failing !== undefined && now.ms - this.#failing >= patience ? this.#heard : undefined)

  // reads says that whoever is logged in only reads.
  reads = $state(false)

  // blocked says that nothing can be ordered now.
  blocked = $derived(this.silent !== undefined || this.reads)

  // heard is called for every answer and every message, whatever it says.
  heard() {
    this.#heard = Date.now()
    this.#failing = undefined
  }

  // failed is called when a connection ended, or a request that began at that time
  // got no answer.
  failed(began = Date.now()) {
    if (began >= this.#heard) this.#failing ??= began
  }
}

export const contact = new Contact()
