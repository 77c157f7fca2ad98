/** Takes a body off the wire: within its limits (`limits.ts`), and within what all bodies together may hold. */
import type { Readable } from "node:stream"
import { UserError, userError } from "../errors.ts"
import { decodingError } from "./body-encoding.ts"
import { BodyScanner } from "./body-scanner.ts"
import type { PromptSizes } from "./limits.ts"

/** What bodies hold, those of other requests included: a thousand connections with a large body each would else hold
 * gigabytes. */
export interface BodyMemory {
  /** False when that would be too much. */
  take(bytes: number): boolean
  give(bytes: number): void
}

export interface BodyOptions {
  /** Most bytes of a body. */
  bodyLimit: number
  /** From its head, NaN when it does not say. */
  contentLength: number
  memory: BodyMemory
  sizes: PromptSizes | null
  /** Called once no more of it is wanted: it is too large. */
  stop?: () => void
}

const FIRST_BYTES = 16 * 1024
const SMALL_BYTES = 4 * 1024
const NO_BYTES = new Uint8Array()

/** Gives a body's bytes to `use`. Throws a 4xx for one that is too large: where a part of it is, when all of it has
 * come, because a sender that is answered before may miss the answer. */
export async function readBody<T>(
  stream: Readable,
  options: BodyOptions,
  use: (body: Uint8Array) => T | Promise<T>,
): Promise<T> {
  const body = new Body(options)
  try {
    await received(stream, body, options)
    return await use(body.bytes())
  } finally {
    body.drop()
  }
}

function received(stream: Readable, body: Body, { bodyLimit, stop }: BodyOptions): Promise<void> {
  return new Promise((resolve, reject) => {
    if (body.refused !== null) reject(body.refused)
    stream.on("data", (chunk: Buffer) => {
      body.push(chunk)
      // What comes after the limit is not waited for.
      if (body.length <= bodyLimit) return
      reject(body.refused)
      stop?.()
    })
    const cut = (cause: unknown) =>
      reject(decodingError(cause) ?? new UserError("The connection ended before the body did.", { cause }))
    stream.on("end", () => (body.refused === null ? resolve() : reject(body.refused)))
    stream.on("error", cut)
    stream.on("close", () => {
      if (!stream.readableEnded) cut(stream.errored)
    })
    // Nothing more is told of one that was cut before.
    if (stream.destroyed) cut(stream.errored)
  })
}

class Body {
  refused: Error | null = null
  /** Bytes that have come. */
  length = 0
  readonly #options: BodyOptions
  readonly #scanner: BodyScanner
  /** One block: a list of chunks would hold a hundred bytes for each of one byte. */
  #block: Uint8Array = NO_BYTES

  constructor(options: BodyOptions) {
    this.#options = options
    this.#scanner = new BodyScanner(options.sizes)
    if (options.contentLength > options.bodyLimit) this.#refuse(this.#tooLarge())
  }

  push(chunk: Uint8Array): void {
    const before = this.length
    this.length += chunk.length
    if (this.length > this.#options.bodyLimit) this.#refuse(this.#tooLarge())
    if (this.refused !== null) return
    try {
      this.#makeRoom(before)
      this.#block.set(chunk, before)
      this.#scanner.push(chunk)
    } catch (error) {
      this.#refuse(error as Error)
    }
  }

  bytes(): Uint8Array {
    return this.#block.subarray(0, this.length)
  }

  drop(): void {
    this.#options.memory.give(this.#block.length)
    this.#block = NO_BYTES
  }

  #refuse(error: Error): void {
    this.refused ??= error
    this.drop()
  }

  #tooLarge(): Error {
    return userError("body_too_large", { limit: this.#options.bodyLimit })
  }

  /** For `length` bytes, of which `kept` are there. */
  #makeRoom(kept: number): void {
    if (this.length <= this.#block.length) return
    const { bodyLimit, memory, contentLength } = this.#options
    // Most bodies are small, and of the length that their head says.
    const first = contentLength <= SMALL_BYTES ? contentLength : FIRST_BYTES
    const room = Math.min(bodyLimit, this.length <= first ? first : Math.max(FIRST_BYTES, 2 * this.length))
    if (!memory.take(room - this.#block.length)) throw userError("too_many_large_bodies")
    const larger = Buffer.allocUnsafe(room)
    larger.set(this.#block.subarray(0, kept))
    this.#block = larger
  }
}
