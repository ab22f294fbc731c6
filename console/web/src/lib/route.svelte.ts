// The page is in the URL, so that it can be bookmarked, shared and reloaded.

class Route {
  path = $state(location.hash.slice(1) || '/')

  constructor() {
    addEventListener('hashchange', () => (this.path = location.hash.slice(1) || '/'))
  }

  // machine is the ID in #/machines/ID, or undefined.
  get machine(): string | undefined {
    const found = /^\/machines\/([^/]+)$/.exec(this.path)
    return found ? decodeURIComponent(found[1]!) : undefined
  }
}

export const route = new Route()
