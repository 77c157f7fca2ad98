/** One end of a conversation over any byte stream: messages out, joined in one write a moment, and messages in, each of which
 * `read` has checked. The first of each side is its hello. */
import type { Duplex } from "node:stream"
import { encodeFrame, FrameReader } from "./frames.ts"
import { hello, refusalOf } from "./messages.ts"

export interface ChannelOptions<In> {
  /** Throws for what is no message. */
  read: (frame: unknown) => In
  onMessage: (message: In) => void
  /** Once: the stream has ended, or what arrived made no sense (`broken`). */
  onEnd: (reason: "died" | "broken", detail: string) => void
}

/** Nothing more is known of why. */
export const CONNECTION_ENDED = "its connection ended"
/** More than so much that is not taken: the other end does not read any more. */
const MOST_UNREAD_BYTES = 256 * 2 ** 20

export class Channel<Out extends { type: string }, In extends { type: string }> {
  readonly #stream: Duplex
  readonly #options: ChannelOptions<In>
  readonly #reader = new FrameReader()
  #greeted = false
  #ended = false
  #corked = false
  /** When the other end was heard last, performance.now(). */
  heardMs = performance.now()

  constructor(stream: Duplex, options: ChannelOptions<In>) {
    this.#stream = stream
    this.#options = options
    stream.on("data", (piece: Buffer) => this.#receive(piece))
    stream.on("error", (error) => this.#end("died", error.message))
    stream.on("close", () => this.#end("died", CONNECTION_ENDED))
    stream.on("end", () => this.#end("died", CONNECTION_ENDED))
    this.#write(hello())
  }

  send(message: Out): void {
    this.#write(message)
  }

  /** What was sent goes out first; then `done` is called. */
  close(done?: () => void): void {
    if (this.#ended) return
    this.#ended = true
    this.#stream.end(done)
  }

  /** At once: the other end is as good as dead. */
  giveUp(detail: string): void {
    this.#end("died", detail)
  }

  #write(message: object): void {
    if (this.#ended || this.#stream.destroyed || this.#stream.writableEnded) return
    if (!this.#corked) {
      this.#corked = true
      this.#stream.cork()
      process.nextTick(() => {
        this.#corked = false
        this.#stream.uncork()
      })
    }
    this.#stream.write(encodeFrame(message))
    if (this.#stream.writableLength > MOST_UNREAD_BYTES) this.#end("died", "it does not read what it is sent")
  }

  #receive(piece: Buffer): void {
    if (this.#ended) return
    this.heardMs = performance.now()
    try {
      for (const frame of this.#reader.push(piece)) {
        if (this.#ended) return
        this.#take(frame)
      }
    } catch (error) {
      this.#end("broken", (error as Error).message)
    }
  }

  #take(frame: unknown): void {
    const message = this.#options.read(frame)
    if (this.#greeted) {
      this.#options.onMessage(message)
      return
    }
    const refusal =
      message.type === "hello"
        ? refusalOf(message as unknown as ReturnType<typeof hello>)
        : "it says no hello"
    if (refusal !== null) throw new Error(refusal)
    this.#greeted = true
    this.#options.onMessage(message)
  }

  #end(reason: "died" | "broken", detail: string): void {
    if (this.#ended) return
    this.#ended = true
    this.#stream.destroy()
    this.#options.onEnd(reason, detail)
  }
}
