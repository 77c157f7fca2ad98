/** The shape of a batch under construction, kept as running sums per length: asking for it with one item more
 * costs as much as there are different lengths (speculation lengths and chunks), however many decodes there are. */
import type { CostModel, StepShape } from "../cost.ts"

export class RunningShape {
  #layout: Pick<CostModel, "fastPassTokens" | "unifiedKv">
  /** Different token counts of the items, ascending; how many items have each, and the sum of their positions. */
  #size = 0
  #lengths: number[] = []
  #counts: number[] = []
  #positions: number[] = []
  #tokens = 0
  #sequences = 0
  #outputs = 0
  #specSteps = 0
  /** The answer of `with`, reused. */
  #shape: StepShape = {
    tokens: 0,
    sequences: 0,
    passes: 0,
    fastPairs: 0,
    slowPairs: 0,
    outputs: 0,
    specSteps: 0,
  }

  constructor(layout: Pick<CostModel, "fastPassTokens" | "unifiedKv">) {
    this.#layout = layout
  }

  get tokens(): number {
    return this.#tokens
  }

  reset(): void {
    this.#size = 0
    this.#tokens = this.#sequences = this.#outputs = this.#specSteps = 0
  }

  /** Add an item that computes `tokens` tokens from `position`, `rows` of which have an output row, and `draft` drafted ones. */
  add(position: number, tokens: number, rows: number, draft: number): void {
    const length = tokens + draft
    let at = 0
    while (at < this.#size && this.#lengths[at]! < length) at++
    if (at === this.#size || this.#lengths[at] !== length) this.#insert(at, length)
    this.#counts[at]!++
    this.#positions[at]! += position
    this.#tokens += length
    this.#sequences++
    if (rows > 0) this.#outputs += rows + draft
    if (draft > this.#specSteps) this.#specSteps = draft
  }

  #insert(at: number, length: number): void {
    for (let i = this.#size++; i > at; i--) {
      this.#lengths[i] = this.#lengths[i - 1]!
      this.#counts[i] = this.#counts[i - 1]!
      this.#positions[i] = this.#positions[i - 1]!
    }
    this.#lengths[at] = length
    this.#counts[at] = this.#positions[at] = 0
  }

  /** As cost.shapeOf of the items so far and (when `tokens` > 0) one more. The answer is overwritten by the next
   * call. */
  with(position: number, tokens: number, rows: number, draft: number): StepShape {
    const shape = this.#shape
    const extra = tokens > 0 ? tokens + draft : 0
    shape.tokens = this.#tokens + extra
    shape.sequences = this.#sequences + (extra > 0 ? 1 : 0)
    shape.outputs = this.#outputs + (rows > 0 ? rows + draft : 0)
    shape.specSteps = extra > 0 && draft > this.#specSteps ? draft : this.#specSteps
    shape.passes = shape.fastPairs = shape.slowPairs = 0
    if (this.#layout.unifiedKv) this.#onePass(position, extra)
    else this.#splitPasses(position, extra)
    return shape
  }

  #onePass(position: number, extra: number): void {
    const shape = this.#shape
    shape.passes = shape.sequences > 0 ? 1 : 0
    for (let i = 0; i < this.#size; i++) {
      this.#addPairs(this.#lengths[i]!, 0, this.#counts[i]!, this.#positions[i]!)
    }
    if (extra > 0) this.#addPairs(extra, 0, 1, position)
  }

  /** From the longest length down: the pass between two lengths has all that are at least as long. */
  #splitPasses(position: number, extra: number): void {
    const lengths = this.#lengths
    let count = 0
    let positions = 0
    let pending = extra
    for (let i = this.#size - 1; i >= 0 || pending > 0; ) {
      const length = i >= 0 && lengths[i]! >= pending ? lengths[i]! : pending
      if (i >= 0 && lengths[i] === length) {
        count += this.#counts[i]!
        positions += this.#positions[i]!
        i--
      }
      if (pending === length) {
        count++
        positions += position
        pending = 0
      }
      const below = Math.max(i >= 0 ? lengths[i]! : 0, pending)
      this.#addPairs(length, below, count, positions)
      this.#shape.passes++
    }
  }

  /** Attention of `count` sequences, whose positions add up to `positions`, over their tokens [from, to). */
  #addPairs(to: number, from: number, count: number, positions: number): void {
    const tokens = to - from
    const pairs = tokens * (positions + count * from) + (count * tokens * (tokens + 1)) / 2
    if (tokens >= this.#layout.fastPassTokens) this.#shape.fastPairs += pairs
    else this.#shape.slowPairs += pairs
  }
}
