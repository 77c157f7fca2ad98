/** What a run looked like over time, in equal slices: attainment by arrival, requests in the system, KV in use. */
import type { Effect, RequestId } from "../core/protocol.ts"
import type { Slice } from "./tally.ts"

const SLICES = 96

export class Timeline {
  #sliceUs: number
  #kvCapacityTokens: number
  #slices: Slice[] = []
  #at = 0
  #arrivedUs: number[] = []
  #endedUs: number[] = []
  /** Tokens computed of each request that has begun. */
  #computed = new Map<RequestId, number>()
  #kvTokens = 0

  constructor(spanUs: number, kvCapacityTokens: number) {
    this.#sliceUs = Math.max(1, spanUs / SLICES)
    this.#kvCapacityTokens = kvCapacityTokens
  }

  effect(effect: Effect, nowUs: number): void {
    this.#closeUntil(nowUs)
    if (effect.type === "run") {
      for (const id of effect.batch.evict) this.#set(id, 0)
      for (const { id, position, tokens } of effect.batch.items) this.#set(id, position + tokens)
    } else if (effect.type === "finished") {
      this.#set(effect.id, 0)
      this.#computed.delete(effect.id)
    }
  }

  /** A request (or a session's round) was in the system from then to then. */
  present(fromUs: number, toUs: number): void {
    this.#arrivedUs.push(fromUs)
    this.#endedUs.push(toUs)
  }

  /** A planned request that arrived at `atUs` was kept or not. */
  ended(atUs: number, kept: boolean): void {
    const slice = this.#slice(Math.floor(atUs / this.#sliceUs))
    slice.total++
    if (kept) slice.kept++
  }

  slices(): Slice[] {
    const arrived = Float64Array.from(this.#arrivedUs).sort()
    const ended = Float64Array.from(this.#endedUs).sort()
    let [a, e] = [0, 0]
    for (const [i, slice] of this.#slices.entries()) {
      const untilUs = (i + 1) * this.#sliceUs
      while (a < arrived.length && arrived[a]! <= untilUs) a++
      while (e < ended.length && ended[e]! <= untilUs) e++
      slice.live = a - e
    }
    return this.#slices
  }

  #set(id: RequestId, tokens: number): void {
    this.#kvTokens += tokens - (this.#computed.get(id) ?? 0)
    this.#computed.set(id, tokens)
  }

  #closeUntil(nowUs: number): void {
    for (; (this.#at + 1) * this.#sliceUs <= nowUs && this.#at < SLICES * 4; this.#at++) {
      const slice = this.#slice(this.#at)
      slice.running = this.#computed.size
      slice.kv = this.#kvTokens / this.#kvCapacityTokens
    }
  }

  #slice(index: number): Slice {
    while (this.#slices.length <= index) {
      const atS = (this.#slices.length * this.#sliceUs) / 1e6
      this.#slices.push({ atS, kept: 0, total: 0, live: 0, running: 0, kv: 0 })
    }
    return this.#slices[index]!
  }
}
