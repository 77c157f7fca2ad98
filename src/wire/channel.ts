/** One end of a conversation over any byte stream: messages out, joined in one write a moment, and messages in, each of which
 * `read` has checked. The first of each side is its hello. */
import type { Duplex } from "node:stream"
import { encodeFrame, FrameReader } from "./frames.ts"
import { hello, refusalOf } from "./messages.ts"

/** How the two ends of a protocol make sure that they speak the same one. */
export interface Greeting<Out> {
  hello: () => object
  /** Null, or why an end that says this hello cannot be talked to. */
  refusalOf: (hello: { protocol: string; version: number }) => string | null
  /** What such an end is told before its stream ends; left out: nothing. */
  refused?: (why: string) => Out
}

const WIRE: Greeting<never> = { hello, refusalOf }

export interface ChannelOptions<Out, In> {
  /** Default: that of replicas and gateways. */
  greeting?: Greeting<Out>
  /** What a message is in a frame. Default: as it is. */
  toWire?: (message: Out) => object
  /** Throws for what is no message. */
  read: (frame: unknown) => In
  onMessage: (message: In) => void
  /** Once: the stream has ended, or what arrived made no sense (`broken`). */
  onEnd: (reason: "died" | "broken", detail: string) => void
  /** More than so much that is not taken: the other end does not read any more. */
  mostUnreadBytes?: number
}

/** Nothing more is known of why. */
export const CONNECTION_ENDED = "its connection ended"
const MOST_UNREAD_BYTES = 256 * 2 ** 20
/** An end that is refused has so long to read why. */
const REFUSED_MS = 1000

export class Channel<Out extends { type: string }, In extends { type: string }> {
  readonly #stream: Duplex
  readonly #options: ChannelOptions<Out, In>
  readonly #greeting: Greeting<Out>
  readonly #reader = new FrameReader()
  #greeted = false
  #ended = false
  #corked = false
  /** When the other end was heard last, performance.now(). */
  heardMs = performance.now()

  constructor(stream: Duplex, options: ChannelOptions<Out, In>) {
    this.#stream = stream
    this.#options = options
    this.#greeting = options.greeting ?? WIRE
    stream.on("data", (piece: Buffer) => this.#receive(piece))
    stream.on("error", (error) => this.#end("died", error.message))
    stream.on("close", () => this.#end("died", CONNECTION_ENDED))
    stream.on("end", () => this.#end("died", CONNECTION_ENDED))
    this.#write(this.#greeting.hello())
  }

  send(message: Out): void {
    const { toWire } = this.#options
    this.#write(toWire === undefined ? message : toWire(message))
  }

  /** A message that several ends are told, encoded once. */
  sendFrame(frame: Buffer): void {
    this.#writeFrame(frame)
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
    if (this.#isOpen) this.#writeFrame(encodeFrame(message))
  }

  get #isOpen(): boolean {
    return !this.#ended && !this.#stream.destroyed && !this.#stream.writableEnded
  }

  #writeFrame(frame: Buffer): void {
    if (!this.#isOpen) return
    if (!this.#corked) {
      this.#corked = true
      this.#stream.cork()
      process.nextTick(() => {
        this.#corked = false
        this.#stream.uncork()
      })
    }
    this.#stream.write(frame)
    const { mostUnreadBytes = MOST_UNREAD_BYTES } = this.#options
    if (this.#stream.writableLength > mostUnreadBytes) this.#end("died", "it does not read what it is sent")
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
        ? this.#greeting.refusalOf(message as unknown as ReturnType<typeof hello>)
        : "it says no hello"
    if (refusal !== null) {
      this.#refuse(refusal)
      return
    }
    this.#greeted = true
    this.#options.onMessage(message)
  }

  #refuse(refusal: string): void {
    const told = this.#greeting.refused?.(refusal)
    if (told === undefined) {
      this.#end("broken", refusal)
      return
    }
    this.send(told)
    this.#ended = true
    const gone = () => this.#stream.destroy()
    this.#stream.end(gone)
    setTimeout(gone, REFUSED_MS).unref()
    this.#options.onEnd("broken", refusal)
  }

  #end(reason: "died" | "broken", detail: string): void {
    if (this.#ended) return
    this.#ended = true
    this.#stream.destroy()
    this.#options.onEnd(reason, detail)
  }
}
