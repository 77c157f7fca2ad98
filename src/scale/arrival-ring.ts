/** The arrivals of the last minutes, in a ring of numbers that never grows: fed as requests come and end, copied in a
 * moment, and read on another thread. */
import type { Slo } from "../core/protocol.ts"
import { type Arrival, type Arriving, ENDS, type Ending } from "./arrival.ts"

type Column = keyof Omit<Arrival, "slo" | "tier"> | keyof Slo | "bestEffort"
const COLUMNS: readonly Column[] = [
  ...([
    "atUs",
    "app",
    "session",
    "promptTokens",
    "maxOutputTokens",
    "outputTokens",
    "thinkingTokens",
  ] as const),
  ...([
    "cachedTokens",
    "ttftUs",
    "ttftSlowdown",
    "tpotUs",
    "thinkingTpotUs",
    "maxGapUs",
    "bestEffort",
  ] as const),
  ...(["worth", "thinking", "end", "endUs", "attained"] as const),
]
const WIDTH = COLUMNS.length
const COLUMN = Object.fromEntries(COLUMNS.map((name, at) => [name, at])) as Record<Column, number>

/** Plain data: it can cross to another thread. */
export interface RingCopy {
  /** In order of recording. */
  rows: Float64Array
  /** All arrivals from here on are in it, µs. */
  sinceUs: number
}

/** Number of an arrival in the ring. */
export type Place = number

const MOST_ARRIVALS = 8192

export class ArrivalRing {
  readonly #capacity: number
  readonly #rows: Float64Array
  #count = 0
  #sinceUs: number

  /** Recording begins at `sinceUs`. The last so many arrivals are kept. */
  constructor(sinceUs: number, capacity = MOST_ARRIVALS) {
    this.#capacity = capacity
    this.#rows = new Float64Array(capacity * WIDTH)
    this.#sinceUs = sinceUs
  }

  arrived(arrival: Arriving): Place {
    const place = this.#count++
    const at = (place % this.#capacity) * WIDTH
    if (place >= this.#capacity) this.#sinceUs = Math.max(this.#sinceUs, this.#rows[at + COLUMN.atUs]! + 1)
    this.#rows.fill(0, at, at + WIDTH)
    this.#write(place, arrival)
    this.#write(place, arrival.slo)
    this.#rows[at + COLUMN.bestEffort] = Number(arrival.tier === "bestEffort")
    return place
  }

  /** Of an arrival that is no longer in the ring nothing is kept. */
  ended(place: Place, ending: Ending): void {
    if (this.#count - place > this.#capacity) return
    this.#write(place, ending)
    this.#rows[(place % this.#capacity) * WIDTH + COLUMN.end] = ENDS.indexOf(ending.end)
  }

  copy(): RingCopy {
    const size = Math.min(this.#count, this.#capacity)
    const first = (this.#count - size) % this.#capacity
    const rows = new Float64Array(size * WIDTH)
    const older = this.#rows.subarray(first * WIDTH, Math.min(this.#capacity, first + size) * WIDTH)
    rows.set(older)
    rows.set(this.#rows.subarray(0, size * WIDTH - older.length), older.length)
    return { rows, sinceUs: this.#sinceUs }
  }

  /** What of these is a number or a truth has a column. */
  #write(place: Place, values: Partial<Record<Column, unknown>>): void {
    const at = (place % this.#capacity) * WIDTH
    for (const name in values) {
      const value = values[name as Column]
      if (typeof value === "number" || typeof value === "boolean")
        this.#rows[at + COLUMN[name as Column]] = Number(value)
    }
  }
}

/** The same by a clock that is ahead by so much. */
export function movedCopy({ rows, sinceUs }: RingCopy, byUs: number): RingCopy {
  const moved = rows.slice()
  for (let at = 0; at < rows.length; at += WIDTH) {
    moved[at + COLUMN.atUs]! += byUs
    // 0: it lives.
    if (rows[at + COLUMN.endUs] !== 0) moved[at + COLUMN.endUs]! += byUs
  }
  return { rows: moved, sinceUs: sinceUs + byUs }
}

/** Of several rings what all of them have everything of. */
export function copiesTogether(copies: readonly RingCopy[]): RingCopy {
  const sinceUs = Math.max(...copies.map((copy) => copy.sinceUs))
  const rows = new Float64Array(copies.reduce((sum, copy) => sum + copy.rows.length, 0))
  let end = 0
  for (const copy of copies)
    for (let at = 0; at < copy.rows.length; at += WIDTH) {
      if (copy.rows[at + COLUMN.atUs]! < sinceUs) continue
      rows.set(copy.rows.subarray(at, at + WIDTH), end)
      end += WIDTH
    }
  return { rows: rows.slice(0, end), sinceUs }
}

/** In order of time, without those that no fleet has to serve. */
export function arrivalsIn({ rows }: RingCopy): Arrival[] {
  const found: Arrival[] = []
  for (let at = 0; at < rows.length; at += WIDTH) found.push(arrivalAt(rows, at))
  return found.filter(({ end }) => end !== "void").sort((a, b) => a.atUs - b.atUs)
}

function arrivalAt(rows: Float64Array, at: number): Arrival {
  const get = (column: Column) => rows[at + COLUMN[column]]!
  return {
    ...{ atUs: get("atUs"), app: get("app"), session: get("session"), promptTokens: get("promptTokens") },
    ...{ maxOutputTokens: get("maxOutputTokens"), outputTokens: get("outputTokens") },
    ...{ thinkingTokens: get("thinkingTokens"), cachedTokens: get("cachedTokens"), worth: get("worth") },
    slo: {
      ...{ ttftUs: get("ttftUs"), ttftSlowdown: get("ttftSlowdown"), tpotUs: get("tpotUs") },
      ...{ thinkingTpotUs: get("thinkingTpotUs"), maxGapUs: get("maxGapUs") },
    },
    tier: get("bestEffort") === 1 ? "bestEffort" : "slo",
    ...{ thinking: get("thinking") === 1, end: ENDS[get("end")]!, endUs: get("endUs") },
    attained: get("attained") === 1,
  }
}
