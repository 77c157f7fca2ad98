/** The other processes that serve an address together with this one: what is told them, and what is asked of them or of their
 * parent, which has what there is but once. */
import { deserialize, serialize } from "node:v8"
import { userError } from "../errors.ts"
import {
  ALIVE,
  type Answer,
  type AskedOfAll,
  type FromSibling,
  OF_ALL,
  type Told,
  type ToldBy,
  type ToSibling,
} from "./messages.ts"

/** What is told within so long goes in one message, ms: that costs a third of a millisecond, whatever is in it. */
const TELL_MS = 4
/** Their parent does little else than answering. */
const MOST_WAIT_MS = 10_000

/** Tells all others in a moment what `words` answers then. */
export type TellSoon = (words: () => unknown) => void

/** What one has that it builds on when it tells more: others that come to listen later are told it as a whole. */
export interface Having<T> {
  /** What this process has now, with all that it has told. */
  tells: () => readonly T[]
  /** What another has: what else it told before is over. */
  hears: (whole: readonly T[], from: number) => void
  /** All know it alike, so one tells it. */
  common?: boolean
}

export class Siblings {
  /** Which one this is, of how many. */
  readonly index: number
  readonly count: number
  readonly #send: (message: FromSibling) => void
  readonly #hears = new Map<string, (word: unknown, from: number) => void>()
  readonly #having = new Map<string, Having<never>[]>()
  #listensAnew = false
  readonly #answers = new Map<string, (asked: never) => unknown>()
  readonly #open = new Map<number, (answer: Answer) => void>()
  readonly #signalled = new Map<NodeJS.Signals, (signal: NodeJS.Signals, config?: string) => void>()
  /** Before there was a listener. */
  #early: Extract<ToSibling, { type: "signal" }>[] = []
  #leaving: ((from: number) => void)[] = []
  #telling: { topic: string; words: () => unknown }[] = []
  #questions = 0

  constructor(index: number, count: number, send: (message: FromSibling) => void) {
    this.index = index
    this.count = count
    this.#send = send
    this.answers(ALIVE, () => true)
  }

  /** Of a whole that all have together: this one's part. The parts of all add up to it where it is enough for all. */
  partOf(whole: number): number {
    const rest = whole % this.count
    return Math.max(1, Math.floor(whole / this.count) + (this.index < rest ? 1 : 0))
  }

  tellSoon(topic: string, words: () => unknown): void {
    if (this.#telling.length === 0) setTimeout(() => this.#tell(), TELL_MS)
    this.#telling.push({ topic, words })
  }

  /** One listener a topic: the last, until it is given up by the answer. */
  onTold(topic: string, hear: (word: never, from: number) => void): () => void {
    const hearing = hear as (word: unknown, from: number) => void
    this.#hears.set(topic, hearing)
    return () => {
      // Another may listen by now.
      if (this.#hears.get(topic) === hearing) this.#hears.delete(topic)
    }
  }

  /** What the others have is heard in a moment. Of several of one topic the last one hears; all tell. */
  has<T>(topic: string, having: Having<T>): () => void {
    const its = having as unknown as Having<never>
    this.#having.set(topic, [...(this.#having.get(topic) ?? []), its])
    if (!this.#listensAnew) setTimeout(() => this.#again(), TELL_MS)
    this.#listensAnew = true
    return () => {
      const others = this.#having.get(topic)!.filter((other) => other !== its)
      if (others.length > 0) this.#having.set(topic, others)
      else this.#having.delete(topic)
    }
  }

  onLeft(hear: (from: number) => void): () => void {
    this.#leaving.push(hear)
    return () => {
      this.#leaving = this.#leaving.filter((other) => other !== hear)
    }
  }

  /** What this process has to say when all are asked that. */
  answers(what: string, answer: (asked: never) => unknown): void {
    this.#answers.set(what, answer)
  }

  /** Their parent. Rejects with UserError where it does not answer. */
  async ask<T>(what: string, asked: unknown): Promise<T> {
    const id = ++this.#questions
    const answer = await new Promise<Answer>((resolve) => {
      const late = setTimeout(() => resolve({ error: "the parent process does not answer" }), MOST_WAIT_MS)
      this.#open.set(id, (answer) => {
        clearTimeout(late)
        resolve(answer)
      })
      this.#send({ type: "ask", id, what, asked })
    })
    this.#open.delete(id)
    if ("error" in answer) throw userError("not_ready", { detail: answer.error })
    return answer.value as T
  }

  /** All that serve, this process included. */
  askAll<T>(what: string, asked: unknown): Promise<T[]> {
    return this.ask<T[]>(OF_ALL, { what, asked } satisfies AskedOfAll)
  }

  /** Signals are their parent's alone: a terminal sends them to all, and none is to come twice. One listener each, which is told of
   * earlier ones, too. `config`: what the file says that is to be read again. */
  on(signal: NodeJS.Signals, hear: (signal: NodeJS.Signals, config?: string) => void): void {
    this.#signalled.set(signal, hear)
    const early = this.#early
    this.#early = []
    for (const one of early) this.heard(one)
  }

  heard(message: ToSibling): void {
    if (message.type === "signal") {
      const hear = this.#signalled.get(message.signal)
      if (hear === undefined) this.#early.push(message)
      else hear(message.signal, message.config)
    } else if (message.type === "told") for (const one of message.all) this.#told(one)
    else if (message.type === "whole") this.#tellWhole(message)
    else if (message.type === "left") for (const hear of this.#leaving) hear(message.from)
    else if (message.type === "answered") this.#open.get(message.id)?.(message.answer)
    else if (message.type === "ask") void this.#answer(message)
  }

  #tell(): void {
    const telling = this.#telling
    if (telling.length === 0) return
    this.#telling = []
    const told = telling.map(({ topic, words }): Told => ({ topic, word: words() }))
    this.#send({ type: "tell", told: serialize(told) })
  }

  #told({ told: bytes, from, whole }: ToldBy): void {
    const told = deserialize(bytes) as Told[]
    if (whole === true) {
      const words = new Map(told.map(({ topic, word }) => [topic, word]))
      for (const [topic, all] of this.#having) all.at(-1)!.hears((words.get(topic) ?? []) as never[], from)
    } else for (const { topic, word } of told) this.#hears.get(topic)?.(word, from)
  }

  #again(): void {
    this.#listensAnew = false
    this.#send({ type: "again" })
  }

  #tellWhole({ id, common }: Extract<ToSibling, { type: "whole" }>): void {
    // What is yet to be told is in the whole, and would be heard twice after it.
    this.#tell()
    const told: Told[] = []
    for (const [topic, all] of this.#having) {
      const word = all.flatMap((one) => (common || one.common !== true ? one.tells() : []))
      if (word.length > 0) told.push({ topic, word })
    }
    this.#send({ type: "whole", id, told: serialize(told) })
  }

  async #answer({ id, what, asked }: Extract<ToSibling, { type: "ask" }>): Promise<void> {
    this.#send({ type: "answered", id, answer: await answerTo(this.#answers.get(what), asked) })
  }
}

/** What `answer` says to it, or why that is nothing. */
export async function answerTo(
  answer: ((asked: never) => unknown) | undefined,
  asked: unknown,
): Promise<Answer> {
  if (answer === undefined) return { error: "it is not known there" }
  try {
    return { value: await answer(asked as never) }
  } catch (error) {
    return { error: (error as Error).message }
  }
}

/** A question to all processes that serve, each of which answers with `answer`; to this one alone where there are no others. */
export function askingAll<A, T>(
  siblings: Siblings | null,
  what: string,
  answer: (asked: A) => T | Promise<T>,
): (asked: A) => Promise<T[]> {
  if (siblings === null) return async (asked) => [await answer(asked)]
  siblings.answers(what, answer as (asked: never) => unknown)
  return (asked) => siblings.askAll<T>(what, asked)
}
