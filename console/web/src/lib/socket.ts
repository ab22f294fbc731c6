// A websocket that comes back by itself, and goes on where it was.

export interface Stream {
  close(): void
}

export interface StreamHandlers {
  // path is asked before each connection: it carries the number to resume from.
  path: () => string
  message: (message: unknown) => void
  connected: (connected: boolean) => void
}

const firstRetry = 500 // ms
const lastRetry = 8000

export function openStream(handlers: StreamHandlers): Stream {
  let socket: WebSocket | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let retry = firstRetry
  let closed = false

  const connect = () => {
    socket = new WebSocket(`wss://${location.host}${handlers.path()}`)
    socket.onopen = () => {
      retry = firstRetry
      handlers.connected(true)
    }
    socket.onmessage = (m) => handlers.message(JSON.parse(m.data as string))
    socket.onclose = () => {
      handlers.connected(false)
      if (closed) return
      timer = setTimeout(connect, retry)
      retry = Math.min(2 * retry, lastRetry)
    }
  }
  connect()

  return {
    close() {
      closed = true
      clearTimeout(timer)
      socket?.close()
    },
  }
}
