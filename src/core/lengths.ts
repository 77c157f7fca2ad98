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

/** How likely an output is to go on. */
export interface Outlook {
  /** For at least each of OUTLOOK_TOKENS more. */
  goesOn: Readonly<Float64Array>
  /** Over these: the most tokens to come that are expected at once, and twice the most that their square may vary. */
  mostTokens: number
  mostSquares: number
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

  /** How an output which has come to `output` tokens goes on; `output` is rounded to a bin. Valid until the next
   * observation. */
  outlook(app: number, output: number): Readonly<Outlook> {
    return this.#apps[app]!.outlook(binOf(output))
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
  /** By bin, made when asked for. */
  #outlooks: (Outlook & { goesOn: Float64Array })[] = []
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

  outlook(bin: number): Outlook {
    this.#update()
    const outlook = (this.#outlooks[bin] ??= {
      goesOn: new Float64Array(OUTLOOK_TOKENS.length),
      mostTokens: 0,
      mostSquares: 0,
    })
    if (this.#outlookMade[bin] === 1) return outlook
    this.#outlookMade[bin] = 1
    const { goesOn } = outlook
    const reach = this.#reach
    const scale = 1 / reach[bin]!
    let mostTokens = 0
    let mostSquares = 0
    goesOn[0] = 1
    for (let k = 1, at = bin * goesOn.length + 1; k < goesOn.length; k++, at++) {
      const share = scale * between(reach, AHEAD[at]!)
      goesOn[k] = share
      const tokens = OUTLOOK_TOKENS[k]! * share
      const squares = 2 * tokens * OUTLOOK_TOKENS[k]! * (1 - share)
      if (tokens > mostTokens) mostTokens = tokens
      if (squares > mostSquares) mostSquares = squares
    }
    outlook.mostTokens = mostTokens
    outlook.mostSquares = mostSquares
    return outlook
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
