/** The processes of another gateway, whichever connection it tells of them on: a connection that takes the place of another goes on
 * with what was told there. */
import { serialize } from "node:v8"
import type { Hub } from "../../siblings/hub.ts"
import type { Told } from "../../siblings/messages.ts"
import { MOST_PROCESSES } from "./messages.ts"
import type { Numbers } from "./numbers.ts"

export class Theirs {
  readonly #hub: Hub
  readonly #numbers: Numbers
  /** By the numbers that they have there, those that they have here. */
  readonly #known = new Map<number, number>()
  /** What it tells on another connection is old, or ends. */
  #connection: object | null = null
  #turn = 0

  constructor(hub: Hub, numbers: Numbers) {
    this.#hub = hub
    this.#numbers = numbers
  }

  /** It tells on this one from now on, of these processes alone; unless it has said so of a later one. */
  begin(connection: object, turn: number, processes: readonly number[]): void {
    if (turn <= this.#turn) return
    this.#turn = turn
    this.#connection = connection
    const there = new Set(processes)
    for (const from of [...this.#known.keys()]) if (!there.has(from)) this.#forget(from)
  }

  /** `whole`: it is all that this process has. Throws where there are too many. */
  tell(connection: object, from: number, told: readonly Told[], whole = false): void {
    if (connection === this.#connection) this.#hub.tell(this.#numberOf(from), serialize(told), whole)
  }

  left(connection: object, from: number): void {
    if (connection === this.#connection) this.#forget(from)
  }

  /** It ended while there is a next one: all is told again there. */
  ended(connection: object, next: object | null): void {
    if (connection === this.#connection) this.#connection = next
  }

  /** There is none any more. */
  gone(): void {
    this.#connection = null
    for (const from of [...this.#known.keys()]) this.#forget(from)
  }

  #numberOf(from: number): number {
    const known = this.#known.get(from)
    if (known !== undefined) return known
    if (this.#known.size >= MOST_PROCESSES) throw new Error("it has too many processes")
    const number = this.#numbers.take()
    this.#known.set(from, number)
    return number
  }

  #forget(from: number): void {
    const number = this.#known.get(from)
    if (number === undefined) return
    this.#known.delete(from)
    this.#hub.forget(number)
    this.#numbers.free(number)
  }
}
