// The time, for what counts down: one clock serves every page.

class Now {
  ms = $state(Date.now())

  constructor() {
    setInterval(() => (this.ms = Date.now()), 1000)
  }

  // text is the time as the API writes times.
  get text(): string {
    return new Date(this.ms).toISOString()
  }
}

export const now = new Now()
