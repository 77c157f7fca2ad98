/** Between the processes of one address, in their parent: hands on what they tell each other, asks all of them, and answers for what
 * there is but once. */
import {
  ALIVE,
  type Answer,
  type AskedOfAll,
  type FromSibling,
  OF_ALL,
  type Told,
  type ToldBy,
  type ToldBytes,
  type ToSibling,
} from "./messages.ts"
import { answerTo } from "./siblings.ts"

/** A process that is asked and does not answer for so long hangs, ms: what all were asked has no answer then. */
const MOST_WAIT_MS = 5000

/** What the others told within so long goes to each in one message, ms: else messages would grow with the square of their number. */
const GATHER_MS = 1

interface Member {
  send: (message: ToSibling) => void
  /** What it is to be told. */
  told: ToldBy[]
  /** Questions to it, by their ids. */
  open: Map<number, (answer: Answer | null) => void>
  /** It was asked for all that it has. */
  wholes: Map<number, (told: ToldBytes) => void>
}

/** Gateways on other machines, which hear what is told here. */
export interface Elsewhere {
  told(from: number, told: ToldBytes): void
  /** That process of this gateway is gone. */
  left(from: number): void
  /** One here has begun to listen: all that they have is to be told again. */
  again(): void
  /** To the hubs of the others. */
  say(topic: string, word: unknown): void
  /** What each of their hubs answers that has an answer. */
  ask(what: string, asked: unknown): Promise<unknown[]>
}

/** What one of them said. */
export interface Said<T> {
  from: number
  value: T
}

export class Hub {
  readonly #members = new Map<number, Member>()
  readonly #answers = new Map<string, (asked: never) => unknown>()
  readonly #mostWaitMs: number
  #questions = 0
  elsewhere: Elsewhere | null = null
  readonly #said = new Map<string, (word: unknown) => void>()
  readonly #first = new Map<string, () => readonly unknown[]>()
  readonly #askedElsewhere = new Map<string, (asked: unknown) => unknown>()

  constructor(mostWaitMs = MOST_WAIT_MS) {
    this.#mostWaitMs = mostWaitMs
  }

  /** It serves from now on. */
  joined(index: number, send: (message: ToSibling) => void): void {
    this.#members.set(index, { send, told: [], open: new Map(), wholes: new Map() })
    this.#catchUp(index)
  }

  /** Numbers of those that serve. */
  get serving(): number[] {
    return [...this.#members.keys()]
  }

  left(index: number): void {
    const member = this.#members.get(index)
    if (member === undefined) return
    this.#members.delete(index)
    // Without its answer: what it had to say is gone.
    for (const over of member.open.values()) over(null)
    this.forget(index)
    this.elsewhere?.left(index)
  }

  /** What that number told, here or elsewhere, is over. */
  forget(from: number): void {
    for (const other of this.#members.values()) {
      // What it told before comes before.
      this.#hand(other)
      other.send({ type: "left", from })
    }
  }

  /** What is answered here, for all of them. */
  answers(what: string, answer: (asked: never) => unknown): void {
    this.#answers.set(what, answer)
  }

  /** What hubs elsewhere say of that. `hear` throws for what makes no sense. */
  onSaid(topic: string, hear: (word: unknown) => void): void {
    this.#said.set(topic, hear)
  }

  /** Throws for what makes no sense; topics that are not known are passed over. */
  saidElsewhere(topic: string, word: unknown): void {
    this.#said.get(topic)?.(word)
  }

  /** What a hub elsewhere is told of that before all else, each time that it comes. */
  saysFirst(topic: string, words: () => readonly unknown[]): void {
    this.#first.set(topic, words)
  }

  get firstWords(): Told[] {
    return [...this.#first].flatMap(([topic, words]) => words().map((word): Told => ({ topic, word })))
  }

  /** What hubs elsewhere may ask. `answer` throws for what makes no sense; null: there is no answer here. */
  answersElsewhere(what: string, answer: (asked: unknown) => unknown): void {
    this.#askedElsewhere.set(what, answer)
  }

  /** null: there is none here. */
  async answerElsewhere(what: string, asked: unknown): Promise<unknown> {
    return (await this.#askedElsewhere.get(what)?.(asked)) ?? null
  }

  /** From the process of that number, whose `send` answers it: it may ask before it serves. */
  heard(index: number, message: FromSibling, send: (message: ToSibling) => void): void {
    const member = this.#members.get(index)
    if (message.type === "answered") member?.open.get(message.id)?.(message.answer)
    else if (message.type === "whole") {
      member?.wholes.get(message.id)?.(message.told)
      member?.wholes.delete(message.id)
    } else if (message.type === "again") this.#catchUp(index)
    else if (message.type === "ask") void this.#answer(message, send)
    else if (message.type === "tell") {
      this.tell(index, message.told)
      this.elsewhere?.told(index, message.told)
    }
  }

  /** What each that serves answers. Rejects where one does not, or cannot. */
  async askAll<T>(what: string, asked: unknown): Promise<Said<T>[]> {
    const all = [...this.#members].map(async ([from, member]) => ({
      from,
      answer: await this.#ask(member, what, asked),
    }))
    const found: Said<T>[] = []
    for (const { from, answer } of await Promise.all(all)) {
      if (answer === null) continue
      if ("error" in answer) throw new Error(`process ${from} of this gateway: ${answer.error}`)
      found.push({ from, value: answer.value as T })
    }
    return found
  }

  /** To all here, but the process of that number. `whole`: it is all that it has. */
  tell(from: number, told: ToldBytes, whole = false): void {
    for (const [index, member] of this.#members) if (index !== from) this.#give(member, { from, told, whole })
  }

  /** What each that serves has, once it has said so; all that it told before was heard by then, and what it tells later is on top of it. One
   * that is gone by then has nothing. */
  wholes(hear: (from: number, told: ToldBytes) => void, except = -1): void {
    let common = true
    for (const [from, member] of [...this.#members]) {
      if (from === except) continue
      const id = ++this.#questions
      member.wholes.set(id, (told) => hear(from, told))
      member.send({ type: "whole", id, common })
      common = false
    }
  }

  /** What the others have, here and elsewhere, it does not know. */
  #catchUp(index: number): void {
    const member = this.#members.get(index)
    if (member === undefined) return
    this.wholes((from, told) => {
      if (this.#members.get(index) === member) this.#give(member, { from, told, whole: true })
    }, index)
    this.elsewhere?.again()
  }

  #give(member: Member, told: ToldBy): void {
    if (member.told.length === 0) setTimeout(() => this.#hand(member), GATHER_MS)
    member.told.push(told)
  }

  #hand(member: Member): void {
    const all = member.told
    member.told = []
    if (all.length > 0) member.send({ type: "told", all })
  }

  /** Whether the process of that number, which serves, answers still. */
  async answersStill(index: number): Promise<boolean> {
    const member = this.#members.get(index)
    const answer = member === undefined ? null : await this.#ask(member, ALIVE, null)
    return answer !== null && "value" in answer
  }

  /** null: it is gone. */
  #ask(member: Member, what: string, asked: unknown): Promise<Answer | null> {
    const id = ++this.#questions
    return new Promise((resolve) => {
      const over = (answer: Answer | null) => {
        clearTimeout(late)
        member.open.delete(id)
        resolve(answer)
      }
      const late = setTimeout(() => over({ error: "it does not answer" }), this.#mostWaitMs)
      member.open.set(id, over)
      member.send({ type: "ask", id, what, asked })
    })
  }

  async #answer(
    { id, what, asked }: Extract<FromSibling, { type: "ask" }>,
    send: (message: ToSibling) => void,
  ): Promise<void> {
    const toAll = async ({ what, asked }: AskedOfAll) =>
      (await this.askAll(what, asked)).map(({ value }) => value)
    const answer = await answerTo(what === OF_ALL ? toAll : this.#answers.get(what), asked)
    send({ type: "answered", id, answer })
  }
}
