/** When requests that find no room are to come back: one after the other, each when it should find a place. They need no more than
 * one each: told the time in which a whole queue empties, they would find it empty long since, and told all the same time, full. */
import type { LeavePace } from "./leave-pace.ts"

/** Sooner is not worth it; later is not known, and clients wait no longer (OpenAI's: a minute). */
const LEAST_US = 500_000
const MOST_US = 60_000_000

export class Comebacks {
  /** When the last one is to come, µs. */
  #lastUs = Number.NEGATIVE_INFINITY

  /** In how long one that needs so many places should find them, µs, when so many have to leave before there is any; its turn is
   * after those that were told before. */
  turnUs(places: number, before: number, pace: Pick<LeavePace, "leftPerUs" | "usOf">, nowUs: number): number {
    const firstUs = Math.max(this.#lastUs, nowUs + pace.usOf(before, nowUs))
    const dueUs = firstUs + places / pace.leftPerUs(nowUs)
    // Where the line is longer than can be told, its end is spread over the later half of the time.
    this.#lastUs = dueUs <= nowUs + MOST_US ? dueUs : nowUs + MOST_US / 2
    return Math.max(LEAST_US, this.#lastUs - nowUs)
  }
}
