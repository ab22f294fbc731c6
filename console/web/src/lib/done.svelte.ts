// What was done last, in a sentence: a dialog that closed, or a page that changed,
// says so.

const shownFor = 10_000 // ms

class Done {
  text = $state('')
  #timer: ReturnType<typeof setTimeout> | undefined

  say(text: string) {
    clearTimeout(this.#timer)
    this.text = text
    this.#timer = setTimeout(() => (this.text = ''), shownFor)
  }

  clear() {
    clearTimeout(this.#timer)
    this.text = ''
  }
}

export const done = new Done()
