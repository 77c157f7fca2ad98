/** What the demand of decodes is kept in: the streams as columns, when each begins or ends, and how many steps each pace
 * asks for (feasible.ts). */

/** Rows of streams by state. */
export const WAITING = 0
export const ACTIVE = 1
export const OVER = 2
export const DROPPED = 3

/** A request's decodes. */
export interface Stream {
  /** When its TPOT clock starts: its first token is due at startUs + tpotUs. */
  startUs: number
  tpotUs: number
  /** Tokens left. */
  remaining: number
  contextTokens: number
  /** Tokens that a step is expected to verify, and how many of them are expected to come out. */
  length: number
  expected: number
  /** See RequestSpec; default: none. */
  adapter?: number
}

/** Its tokens can all be on time in steps of nothing but decodes. Where they cannot, it will miss whatever else is
 * admitted, and is no reason to turn others down. */
export function canKeepPace(
  { startUs, tpotUs, remaining, expected }: Stream,
  stepUs: number,
  nowUs: number,
): boolean {
  const perTokenUs = stepUs / expected
  return perTokenUs <= tpotUs || startUs + remaining * tpotUs >= nowUs + remaining * perTokenUs
}

/** Streams as columns, reused. Times since the start of the decision. */
export class Streams {
  rows = 0
  startUs = new Float64Array(64)
  endUs = new Float64Array(64)
  stepsPerUs = new Float64Array(64)
  context = new Float64Array(64)
  length = new Float64Array(64)
  state = new Uint8Array(64)

  clear(): void {
    this.rows = 0
  }

  add({ tpotUs, remaining, contextTokens, length, expected }: Stream, startUs: number): number {
    const row = this.rows++
    if (row === this.startUs.length) this.#enlarge()
    this.startUs[row] = startUs
    this.endUs[row] = startUs + remaining * tpotUs
    this.stepsPerUs[row] = 1 / (tpotUs * expected)
    this.context[row] = contextTokens
    this.length[row] = length
    this.state[row] = WAITING
    return row
  }

  #enlarge(): void {
    for (const name of ["startUs", "endUs", "stepsPerUs", "context", "length"] as const)
      this[name] = grown(this[name])
    const state = new Uint8Array(this.state.length * 2)
    state.set(this.state)
    this.state = state
  }
}

function grown(old: Float64Array): Float64Array<ArrayBuffer> {
  const next = new Float64Array(old.length * 2)
  next.set(old)
  return next
}

/** Streams of one pace share their steps: the one that began first needs most of them. */
export class Paces {
  #count = 0
  #indexOf = new Map<number, number>()
  #perUs: number[] = []
  /** Most steps of one stream. */
  #mostSteps: number[] = []
  /** Rows by start, the first of those not dropped at `#head`. */
  #rows: number[][] = []
  #starts: number[][] = []
  #head: number[] = []
  #dropped = new Set<number>()

  clear(): void {
    this.#count = 0
    this.#indexOf.clear()
    this.#dropped.clear()
  }

  add(row: number, startUs: number, stepsPerUs: number, steps: number): void {
    let pace = this.#indexOf.get(stepsPerUs)
    if (pace === undefined) {
      pace = this.#count++
      this.#indexOf.set(stepsPerUs, pace)
      this.#perUs[pace] = stepsPerUs
      this.#mostSteps[pace] = 0
      this.#head[pace] = 0
      if (this.#rows.length === pace) {
        this.#rows.push([])
        this.#starts.push([])
      }
      this.#rows[pace]!.length = this.#starts[pace]!.length = 0
    }
    if (steps > this.#mostSteps[pace]!) this.#mostSteps[pace] = steps
    // They come by start, as a rule.
    const starts = this.#starts[pace]!
    let at = starts.length
    while (at > this.#head[pace]! && starts[at - 1]! > startUs) at--
    starts.splice(at, 0, startUs)
    this.#rows[pace]!.splice(at, 0, row)
  }

  drop(row: number): void {
    this.#dropped.add(row)
  }

  restore(row: number): void {
    this.#dropped.delete(row)
    this.#head.fill(0)
  }

  /** Steps that the stream with most of them needs by then. */
  most(horizon: number): number {
    let most = 0
    for (let pace = 0; pace < this.#count; pace++) {
      const rows = this.#rows[pace]!
      while (this.#head[pace]! < rows.length && this.#dropped.has(rows[this.#head[pace]!]!))
        this.#head[pace]!++
      const start = this.#starts[pace]![this.#head[pace]!]
      if (start === undefined) continue
      const steps = Math.min((horizon - start) * this.#perUs[pace]!, this.#mostSteps[pace]!)
      if (steps > most) most = steps
    }
    return most
  }
}

/** A binary heap of rows by time. */
export class ChangeHeap {
  #size = 0
  #rows = new Int32Array(64)
  #timesUs = new Float64Array(64)

  clear(): void {
    this.#size = 0
  }
  get nextUs(): number {
    return this.#size === 0 ? Infinity : this.#timesUs[0]!
  }
  get top(): number {
    return this.#rows[0]!
  }

  push(row: number, timeUs: number): void {
    if (this.#size === this.#rows.length) {
      const rows = new Int32Array(this.#rows.length * 2)
      rows.set(this.#rows)
      this.#rows = rows
      this.#timesUs = grown(this.#timesUs)
    }
    let at = this.#size++
    for (; at > 0; at = (at - 1) >> 1) {
      const parent = (at - 1) >> 1
      if (this.#timesUs[parent]! <= timeUs) break
      this.#rows[at] = this.#rows[parent]!
      this.#timesUs[at] = this.#timesUs[parent]!
    }
    this.#rows[at] = row
    this.#timesUs[at] = timeUs
  }

  pop(): void {
    this.#size--
    this.#sink(this.#rows[this.#size]!, this.#timesUs[this.#size]!)
  }

  /** The first row stays, but later. */
  replaceTop(timeUs: number): void {
    this.#sink(this.#rows[0]!, timeUs)
  }

  #sink(row: number, timeUs: number): void {
    const size = this.#size
    let at = 0
    for (let child = 1; child < size; child = 2 * at + 1) {
      if (child + 1 < size && this.#timesUs[child + 1]! < this.#timesUs[child]!) child++
      if (timeUs <= this.#timesUs[child]!) break
      this.#rows[at] = this.#rows[child]!
      this.#timesUs[at] = this.#timesUs[child]!
      at = child
    }
    this.#rows[at] = row
    this.#timesUs[at] = timeUs
  }
}
