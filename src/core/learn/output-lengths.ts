/** Output lengths are unknown when planning: learn per app how likely an output that has come so far is to end within
 * the next fifth of it. Outputs under way count as far as they have come (Kaplan–Meier over bins that widen); else
 * the short ones, which end first, would make every app look short. */

/** Bin b begins at WIDTH · (2^(b / PER_OCTAVE) − 1) tokens; the last one is open. */
const WIDTH = 16
const PER_OCTAVE = 4
const BINS = 64
/** Observations after which an old one has lost most of its weight. */
const MEMORY = 200
/** What is believed before any observation weighs as much as so many of them: an output of n tokens goes on for
 * n + PRIOR_TOKENS more. */
const PRIOR_WEIGHT = 2
const PRIOR_TOKENS = 128
/** However sure an end seems, an output may go on. */
const LEAST_SHARE = 1e-4

/** How many tokens ahead an outlook says how likely an output is still to go on. */
export const OUTLOOK_TOKENS: Readonly<Float64Array> = Float64Array.from({ length: 21 }, (_, k) =>
  k === 0 ? 0 : Math.round(16 * 2 ** ((k - 1) / 2)),
)

/** Bounds on what an outlook can say. With p the probability that an output comes to x tokens in all, for every x: */
export interface OutlookBounds {
  /** x·p is at most this, */
  tokens: number
  /** x²·p this, */
  squares: number
  /** and outputs from so many tokens on are taken to be here. */
  start: number
}

export class OutputLengths {
  readonly #apps: Survival[]

  constructor(apps: number) {
    this.#apps = Array.from({ length: apps }, () => new Survival())
  }

  /** Outputs that all go on for as long as they may: for plans in which nothing ends. */
  static endless(apps: number): OutputLengths {
    const lengths = new OutputLengths(apps)
    for (const app of lengths.#apps) app.never()
    return lengths
  }

  /** An output of `app` has grown from `before` to `after` tokens. */
  grew(app: number, before: number, after: number): void {
    const bin = binOf(after)
    for (let passed = binOf(before); passed < bin; passed++) this.#apps[app]!.observe(passed, 0)
  }

  /** An output of `app` ended by itself after `tokens`. */
  ended(app: number, tokens: number): void {
    this.#apps[app]!.observe(binOf(tokens), 1)
  }

  /** Expected tokens still to come after `output` of at most `most`, in [1, most − output] (0 at the end). */
  remaining(app: number, output: number, most: number): number {
    return Math.min(most - output, Math.max(1, this.#apps[app]!.rest(output)))
  }

  /** Probability that an output which has come to `output` tokens goes on for at least OUTLOOK_TOKENS more; `output` is
   * rounded to a bin. Valid until the next observation. */
  outlook(app: number, output: number): Readonly<Float64Array> {
    return this.#apps[app]!.outlook(binOf(output))
  }

  /** Of the outlook of such an output, without making it. Overwritten by the next call. */
  bounds(app: number, output: number): Readonly<OutlookBounds> {
    return this.#apps[app]!.bounds(binOf(output))
  }
}

/** How the outputs of one app end. */
class Survival {
  /** Share of the outputs that reach a bin which end in it, and how many observations that rests on. */
  #share = Float64Array.from({ length: BINS }, (_, bin) => 1 - prior(bin + 1) / prior(bin))
  #weight = new Float64Array(BINS).fill(PRIOR_WEIGHT)
  /** At the start of each bin: share of all that reach it, and mean tokens to come. */
  #reach = new Float64Array(BINS + 1).fill(1)
  #rest = new Float64Array(BINS + 1)
  /** Largest product of `#reach` and the bin's end, or its square, from each bin on. */
  #mostTokens = new Float64Array(BINS)
  #mostSquares = new Float64Array(BINS)
  #bounds: OutlookBounds = { tokens: 0, squares: 0, start: 0 }
  /** By bin, made when asked for. */
  #outlooks: Float64Array[] = []
  #outlookMade = new Uint8Array(BINS)
  #upToDate = false

  observe(bin: number, ended: 0 | 1): void {
    const weight = Math.min(MEMORY, this.#weight[bin]! + 1)
    this.#weight[bin] = weight
    this.#share[bin] = this.#share[bin]! + (ended - this.#share[bin]!) / weight
    this.#upToDate = false
  }

  never(): void {
    this.#share.fill(0)
    this.#upToDate = false
  }

  rest(output: number): number {
    this.#update()
    return between(this.#rest, PLACE[output] ?? place(output))
  }

  outlook(bin: number): Float64Array {
    this.#update()
    const outlook = (this.#outlooks[bin] ??= new Float64Array(OUTLOOK_TOKENS.length))
    if (this.#outlookMade[bin] === 1) return outlook
    this.#outlookMade[bin] = 1
    const reach = this.#reach
    const scale = 1 / reach[bin]!
    for (let k = 0, at = bin * outlook.length; k < outlook.length; k++, at++)
      outlook[k] = scale * between(reach, AHEAD[at]!)
    outlook[0] = 1
    return outlook
  }

  bounds(bin: number): OutlookBounds {
    this.#update()
    const bounds = this.#bounds
    bounds.tokens = this.#mostTokens[bin]! / this.#reach[bin]!
    bounds.squares = this.#mostSquares[bin]! / this.#reach[bin]!
    bounds.start = START[bin]!
    return bounds
  }

  #update(): void {
    if (this.#upToDate) return
    this.#upToDate = true
    this.#outlookMade.fill(0)
    this.#rest[BINS] = START[BINS]!
    for (let bin = BINS - 1; bin >= 0; bin--) {
      const goesOn = 1 - this.#share[bin]!
      const width = START[bin + 1]! - START[bin]!
      this.#rest[bin] = (width * (1 + goesOn)) / 2 + goesOn * this.#rest[bin + 1]!
    }
    for (let bin = 0; bin < BINS; bin++) {
      const goesOn = Math.max(LEAST_SHARE, 1 - this.#share[bin]!)
      this.#reach[bin + 1] = this.#reach[bin]! * goesOn
    }
    let [tokens, squares] = [0, 0]
    for (let bin = BINS - 1; bin >= 0; bin--) {
      const end = START[bin + 1]!
      tokens = Math.max(tokens, end * this.#reach[bin]!)
      squares = Math.max(squares, end * end * this.#reach[bin]!)
      this.#mostTokens[bin] = tokens
      this.#mostSquares[bin] = squares
    }
  }
}

/** Tokens at which a bin begins. */
function start(bin: number): number {
  return WIDTH * (2 ** (bin / PER_OCTAVE) - 1)
}

/** Where among the bins so many tokens lie, with a fraction. */
function place(tokens: number): number {
  return Math.min(BINS, PER_OCTAVE * Math.log2(1 + tokens / WIDTH))
}

// Every token of every request asks: tables, for the usual lengths.
const START = Float64Array.from({ length: BINS + 1 }, (_, bin) => start(bin))
const PLACE = Float64Array.from({ length: 16_384 }, (_, tokens) => place(tokens))
/** Row by row for each bin: the place of each of OUTLOOK_TOKENS after its start. */
const AHEAD = Float64Array.from({ length: BINS * OUTLOOK_TOKENS.length }, (_, i) => {
  const k = i % OUTLOOK_TOKENS.length
  return place(start((i - k) / OUTLOOK_TOKENS.length) + OUTLOOK_TOKENS[k]!)
})

function binOf(tokens: number): number {
  return Math.min(BINS - 1, Math.floor(PLACE[tokens] ?? place(tokens)))
}

/** `column` at a place between two of its rows. */
function between(column: Float64Array, at: number): number {
  const row = Math.min(BINS - 1, Math.floor(at))
  return column[row]! + (at - row) * (column[row + 1]! - column[row]!)
}

/** Share of the outputs that reach a bin, before any was seen. */
function prior(bin: number): number {
  return (1 + start(bin) / PRIOR_TOKENS) ** -2
}
