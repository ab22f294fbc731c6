// A websocket that comes back by itself, and goes on where it was.

import { contact } from './contact.svelte'

export interface Stream {
  close(): void
  // restart begins a new connection at once.
  restart(): void
}

export interface StreamHandlers {
  // path is asked before each connection: it carries the number to resume from.
  path: () => string
  message: (message: unknown) => void
  connected: (connected: boolean) => void
}

const firstRetry = 500 // ms
const lastRetry = 8000

const open = new Set<Stream>()

// restartStreams is called when the boot service does not answer: a connection
// to a machine that lost its power looks alive to a browser for many minutes,
// because pages cannot send pings.
export function restartStreams() {
  for (const stream of open) stream.restart()
}

export function openStream(handlers: StreamHandlers): Stream {
  let socket: WebSocket | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let retry = firstRetry

  const later = () => {
    handlers.connected(false)
    timer = setTimeout(connect, retry)
    retry = Math.min(2 * retry, lastRetry)
  }
  const connect = () => {
    socket = new WebSocket(`wss://${location.host}${handlers.path()}`)
    socket.onopen = () => {
      retry = firstRetry
      contact.heard()
      handlers.connected(true)
    }
    socket.onmessage = (m) => {
      contact.heard()
      handlers.message(JSON.parse(m.data as string))
    }
    socket.onclose = () => {
      contact.failed()
      later()
    }
  }
  // drop forgets the connection there is: nothing of it counts any more, also
  // if it only ends much later.
  const drop = () => {
    clearTimeout(timer)
    if (!socket) return
    socket.onopen = socket.onmessage = socket.onclose = null
    socket.close()
    socket = undefined
  }
  const stream: Stream = {
    close() {
      open.delete(stream)
      drop()
    },
    restart() {
      drop()
      later()
    },
  }
  open.add(stream)
  connect()
  return stream
}
