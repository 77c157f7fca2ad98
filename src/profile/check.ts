/** Does a cached profile still fit this engine? A few quick steps against its predictions: the machine may be another one
 * under the same name, throttled, or the profile may have been taken in a bad hour. */
import { median, min } from "simple-statistics"
import { type CostModel, shapeOf, stepUs } from "../core/cost.ts"
import type { BatchItem, RequestId } from "../core/protocol.ts"
import { type Engine, GREEDY } from "../engine/port.ts"
import type { Waits } from "./waits.ts"

/** In the median so far off, either way, it is another machine's; calibration corrects what is less. */
const MOST_OFF = 1.5
/** A single batch may be further off: it is one of few, and short. */
const MOST_OFF_ONE = 2.5
const REQUESTS = 3
const REPEATS = 3
const CHUNK_TOKENS = 16
/** Ids that no driver gives, nor the measurement. */
const FIRST_ID = 2e9

export interface Check {
  /** Actual over predicted step time, in the median of a few batches. */
  ratio: number
  /** It fits. */
  passed: boolean
}

export async function checkProfile(engine: Engine, model: CostModel, waits?: Waits): Promise<Check> {
  const probe = new Probe(engine, model, waits)
  try {
    return verdict(await probe.ratios())
  } finally {
    await probe.release()
  }
}

function verdict(ratios: readonly number[]): Check {
  const ratio = median([...ratios])
  const within = (most: number) => (value: number) => value <= most && value >= 1 / most
  return { ratio, passed: within(MOST_OFF)(ratio) && ratios.every(within(MOST_OFF_ONE)) }
}

class Probe {
  readonly #engine: Engine
  readonly #model: CostModel
  readonly #waits: Waits | undefined
  readonly #chunk: number
  readonly #open: { id: RequestId; known: number }[] = []

  constructor(engine: Engine, model: CostModel, waits: Waits | undefined) {
    this.#engine = engine
    this.#model = model
    this.#waits = waits
    const { maxBatchTokens, contextTokens } = engine.limits
    const room = Math.min(maxBatchTokens - REQUESTS, contextTokens - 2 * REPEATS - 2)
    this.#chunk = Math.max(1, Math.min(CHUNK_TOKENS, room))
  }

  /** Of each kind of batch the fastest of its repeats over its prediction: chunks, lone decodes, decodes together. */
  async ratios(): Promise<number[]> {
    const { maxSequences, maxBatchTokens } = this.#engine.limits
    const count = Math.min(REQUESTS, maxSequences, maxBatchTokens)
    const [chunks, lone, together]: [number[], number[], number[]] = [[], [], []]
    await this.#chunkStep()
    await this.release()
    for (let i = 0; i < count; i++) chunks.push(await this.#chunkStep())
    for (let i = 0; i < REPEATS; i++) {
      lone.push(await this.#decode(1))
      together.push(await this.#decode(count))
    }
    return [chunks, lone, together].map((ratios) => min(ratios))
  }

  async release(): Promise<void> {
    const release = this.#open.splice(0).map(({ id }) => id)
    if (release.length > 0) await this.#run([], release)
  }

  #chunkStep(): Promise<number> {
    const id = FIRST_ID + this.#open.length
    const tokens = Math.min(250, this.#engine.model.vocabSize - 10)
    const prompt = Int32Array.from({ length: this.#chunk }, (_, i) => 5 + (i % tokens))
    this.#engine.open(id, prompt, { ...GREEDY, ignoreEos: true })
    this.#open.push({ id, known: this.#chunk })
    return this.#ratio([{ id, position: 0, tokens: this.#chunk, sample: true, draft: 0 }])
  }

  #decode(count: number): Promise<number> {
    const items = this.#open.slice(0, count).map((request) => {
      const position = request.known++
      return { id: request.id, position, tokens: 1, sample: true, draft: 0 }
    })
    return this.#ratio(items)
  }

  async #ratio(items: BatchItem[]): Promise<number> {
    const waits = this.#waits?.begin()
    const us = await this.#run(items)
    return (waits?.ownUs(us) ?? us) / Math.max(1, stepUs(this.#model, shapeOf(items, this.#model)))
  }

  async #run(items: BatchItem[], release: RequestId[] = []): Promise<number> {
    const output = await this.#engine.execute({ number: 0, items, evict: [], release, predictedUs: 0 })
    if (!output.ok) throw new Error(`the engine failed while its profile was checked: ${output.message}`)
    return output.durationUs
  }
}
