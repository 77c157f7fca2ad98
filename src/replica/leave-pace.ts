/** How fast requests leave where as many run as can: by that a full queue empties. What left while fewer came than could be
 * served says nothing of it: after a quiet minute a queue would seem to empty for ever. */

/** Of time under load so much counts, and of what was live at ease, µs. */
const MEMORY_US = 10_000_000
/** Of time at ease for how many come then, µs. */
const CALM_MEMORY_US = 60_000_000
/** Those that come back have at least such a part of what leaves, however many others come. */
const LEAST_PART = 1 / 4
/** What is guessed before anything was seen under load weighs as much as so much time of it, µs. */
const GUESS_US = 3_000_000
/** As the load begins each waits for the prompts of the others, besides steps that are longer for more decodes. */
const PROMPTS_OF_OTHERS = 1.4
/** Before anything was seen at all: as many leave in so long, µs, as can run at once. */
const FIRST_GUESS_US = 10_000_000

export interface LeavePaceOptions {
  /** So many live requests are a load; more only wait. */
  most: () => number
  /** As many leave in the time of the first guess; default: `most`. */
  atOnce?: () => number
  /** How many times as long each takes where so many run, not so few; default: no longer, so that what is told by a guess is too
   * soon rather than too late. */
  slowdown?: (few: number, many: number) => number
}

export class LeavePace {
  readonly #options: LeavePaceOptions
  /** Under load: requests that left, in how long, µs. */
  #left = 0
  #loadedUs = 0
  /** At ease: requests that left, what all together were live, and for how long any was, µs. */
  #ended = 0
  #livedUs = 0
  #easeUs = 0
  /** At ease, idle times included: requests that left, as many as came, in how long, µs. */
  #calm = 0
  #calmUs = 0
  #live = 0
  /** When the first of those should be done that came as it became a load, µs. */
  #sinceUs = 0
  #atUs = Number.NEGATIVE_INFINITY

  constructor(options: LeavePaceOptions) {
    this.#options = options
  }

  /** So many are live from now on, and so many of those before have been served. */
  changed(live: number, served: number, nowUs: number): void {
    this.#pass(nowUs)
    const wasLoaded = this.#isLoaded
    if (!wasLoaded) {
      this.#ended += served
      this.#calm += served
    } else if (nowUs >= this.#sinceUs) this.#left += served
    this.#live = live
    if (!wasLoaded) this.#sinceUs = nowUs + this.#takesUs
  }

  /** In how long so many have left, µs. What came together runs together: none of it leaves before it has taken its time. */
  usOf(count: number, nowUs: number): number {
    const perUs = this.perUs(nowUs)
    return Math.max(0, this.#sinceUs - nowUs) + count / perUs
  }

  /** Requests that leave in a µs. */
  perUs(nowUs: number): number {
    this.#pass(nowUs)
    return (this.#left + this.#guessPerUs * GUESS_US) / (this.#loadedUs + GUESS_US)
  }

  /** Places in a µs that those find which come back: others come besides, as before the load. */
  leftPerUs(nowUs: number): number {
    const perUs = this.perUs(nowUs)
    const othersPerUs = this.#calmUs > 0 ? this.#calm / this.#calmUs : 0
    return Math.max(LEAST_PART * perUs, perUs - othersPerUs)
  }

  get #guessPerUs(): number {
    const { most, atOnce = most } = this.#options
    return this.#takesUs > 0 ? most() / this.#takesUs : atOnce() / FIRST_GUESS_US
  }

  /** That a request takes where as many run as can, as far as that is known from fewer, µs; 0: nothing is known. */
  get #takesUs(): number {
    if (this.#livedUs === 0 || this.#ended === 0) return 0
    const { most, slowdown = () => 1 } = this.#options
    const slower = PROMPTS_OF_OTHERS * slowdown(this.#livedUs / this.#easeUs, most())
    return (this.#livedUs / this.#ended) * slower
  }

  get #isLoaded(): boolean {
    return this.#live >= this.#options.most()
  }

  /** What is older counts less. */
  #pass(nowUs: number): void {
    const fromUs = this.#isLoaded ? Math.max(this.#atUs, this.#sinceUs) : this.#atUs
    const passedUs = nowUs - fromUs
    this.#atUs = Math.max(this.#atUs, nowUs)
    if (!(passedUs > 0) || passedUs === Number.POSITIVE_INFINITY) return
    if (!this.#isLoaded) {
      const stays = Math.exp(-passedUs / CALM_MEMORY_US)
      this.#calm *= stays
      this.#calmUs = this.#calmUs * stays + CALM_MEMORY_US * (1 - stays)
    }
    if (this.#live === 0) return
    const stays = Math.exp(-passedUs / MEMORY_US)
    const countsUs = MEMORY_US * (1 - stays)
    if (this.#isLoaded) {
      this.#left *= stays
      this.#loadedUs = this.#loadedUs * stays + countsUs
    } else {
      this.#ended *= stays
      this.#livedUs = this.#livedUs * stays + this.#live * countsUs
      this.#easeUs = this.#easeUs * stays + countsUs
    }
  }
}
