/** An address where another gateway may be: connected to, again and again, with pauses that grow while it is not there. */
import type { TLSSocket } from "node:tls"
import type { PeerAddress } from "../../config/peers.ts"
import { inWords, RESTART_DEFAULTS, Restarts } from "../../router/health.ts"
import { connectTo, type PeerKey } from "./secure.ts"

/** No answer by then is none, ms. */
const CONNECT_MS = 5000
/** Between two tries at most, µs. */
const LONGEST_PAUSE_US = 10_000_000

export interface DialOptions {
  address: PeerAddress
  key: PeerKey
  /** It is there, and has the key. */
  onSocket: (socket: TLSSocket, name: string) => void
  /** Said once, until it is there. */
  warn: (message: string) => void
}

export class Dial {
  readonly name: string
  readonly #options: DialOptions
  readonly #restarts = new Restarts({ ...RESTART_DEFAULTS, longestUs: LONGEST_PAUSE_US })
  #timer: NodeJS.Timeout | null = null
  #socket: TLSSocket | null = null
  #said = ""
  #closed = false
  /** The gateway that is there, which has a connection already, or is this one: it is not tried for so long. */
  standsFor: string | null = null

  constructor(options: DialOptions) {
    const { host, port } = options.address
    this.#options = options
    this.name = host.includes(":") ? `[${host}]:${port}` : `${host}:${port}`
    this.#connect()
  }

  /** Its gateway has greeted. */
  up(): void {
    this.#said = ""
    this.#restarts.up(performance.now() * 1000)
  }

  /** In a while: it is not there, or no more. */
  later(why: string): void {
    if (this.#closed) return
    const nowUs = performance.now() * 1000
    const pauseMs = (this.#restarts.died(nowUs, Math.random()) - nowUs) / 1000
    this.#warn(`peer ${this.name}: ${why}; it is tried again ${inWords(pauseMs)}`, why)
    this.#timer = setTimeout(() => this.#connect(), pauseMs)
    this.#timer.unref()
  }

  /** At once: what it stood for is gone. */
  again(): void {
    if (this.#closed) return
    this.standsFor = null
    this.#connect()
  }

  /** What is connected stays so. */
  close(): void {
    this.#closed = true
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#socket?.destroy()
  }

  #connect(): void {
    if (this.#closed) return
    const { address, key, onSocket } = this.#options
    const socket = connectTo(address, key)
    this.#socket = socket
    socket.setTimeout(CONNECT_MS, () => socket.destroy(new Error("it does not answer")))
    const failed = (error?: Error) => {
      if (this.#socket !== socket) return
      this.#socket = null
      socket.destroy()
      this.later(meaning(error))
    }
    socket.on("error", failed)
    socket.on("close", () => failed())
    socket.once("secureConnect", () => {
      if (this.#socket !== socket) return
      this.#socket = null
      socket.setTimeout(0)
      socket.off("error", failed)
      onSocket(socket, this.name)
    })
  }

  #warn(message: string, about: string): void {
    if (this.#said !== about) this.#options.warn(message)
    this.#said = about
  }
}

function meaning(error?: Error): string {
  if (error === undefined) return "it hung up"
  const { code = "", message } = error as NodeJS.ErrnoException
  if (code.startsWith("ERR_SSL") || /\b(ssl|tls|alert)\b/i.test(message))
    return `it has another secret, or is no port for peers (${code || message})`
  return code === "" ? message : code
}
