/** The batches in flight, in the order in which the engine computes them: whose their items are, how long each should take,
 * and which requests left meanwhile. */
import { assert } from "./assert.ts"
import type { StepShape } from "./cost.ts"
import type { KvAccount } from "./kv/account.ts"
import type { StepKind } from "./learn/calibration.ts"
import type { BatchBuilder } from "./planner/batch-builder.ts"
import type { Batch, BatchItem, RequestId } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"

const NO_SHAPE: StepShape = {
  ...{ tokens: 0, sequences: 0, passes: 0, fastPairs: 0, slowPairs: 0, outputs: 0, specSteps: 0 },
}

/** One batch in flight. */
export interface Airborne {
  number: number
  /** Live requests whose KV it drops, and how many blocks become free by that. */
  dropped: Map<RequestId, number>
  items: readonly BatchItem[]
  /** Whose the items are, in their order; undefined: one that is not known here, of a batch of the engine's own. */
  requests: readonly (LiveRequest | undefined)[]
  /** How often each had been preempted at take-off: if that is another number by now, what its item computes is lost. */
  preemptions: number[]
  /** When it was given to the engine, which may have had others to do first. */
  tookOffUs: number
  kind: StepKind
  /** What its time depends on. */
  shape: StepShape
  /** Room of the KV pool that it took when it was decided: what became free by it counts against it. */
  tookTokens: number
  /** Blocks that it takes of requests of which the batches before it took others than planned. */
  takes: Map<RequestId, number>
  /** Predicted, µs; and when it should land, absolute µs. */
  predictedUs: number
  endsUs: number
  /** A batch before it failed, and this one with it. */
  failed: boolean
}

export class Flight {
  readonly batches: Airborne[] = []
  /** Requests that ended in the air: the engine may be computing them, so their KV is free when that has landed. */
  #left: RequestId[] = []

  /** The engine has something to compute. */
  get up(): boolean {
    return this.batches.length > 0
  }

  /** When the next batch could begin, absolute µs: when the last one in flight should land, but not before `nowUs`. */
  clearUs(nowUs: number): number {
    const last = this.batches[this.batches.length - 1]
    return last === undefined ? nowUs : Math.max(nowUs, last.endsUs)
  }

  takeOff(
    batch: Batch,
    built: BatchBuilder,
    nowUs: number,
    tookTokens = 0,
    dropped: Airborne["dropped"] = new Map(),
  ): void {
    const { number, items, predictedUs } = batch
    const { requests, kind } = built
    const endsUs = this.clearUs(nowUs) + predictedUs
    for (const request of requests) request.inAir++
    const preemptions = requests.map((request) => request.preemptions)
    const made = {
      number,
      dropped,
      items,
      requests,
      preemptions,
      takes: new Map(),
      kind,
      shape: built.shape(),
    }
    this.batches.push({ ...made, tookTokens, tookOffUs: nowUs, predictedUs, endsUs, failed: false })
  }

  /** A batch of the engine's own joins, without items so far. */
  joins(number: number, nowUs: number): Airborne {
    const endsUs = this.clearUs(nowUs)
    const none = { dropped: new Map(), items: [], requests: [], preemptions: [], takes: new Map() }
    const times = { tookOffUs: nowUs, predictedUs: 0, endsUs }
    const own: Airborne = {
      number,
      ...none,
      ...times,
      kind: "decode",
      shape: NO_SHAPE,
      tookTokens: 0,
      failed: false,
    }
    this.batches.push(own)
    return own
  }

  batch(number: number): Airborne {
    const found = this.batches.find((batch) => batch.number === number)
    assert(found !== undefined, `batch ${number} is not in flight`)
    return found
  }

  /** The engine is done with batch `number`: those behind it begin now. */
  land(number: number, nowUs: number): Airborne {
    const landed = this.batch(number)
    this.#remove(landed)
    let fromUs = nowUs
    for (const batch of this.batches) fromUs = batch.endsUs = fromUs + batch.predictedUs
    return landed
  }

  /** It never runs. */
  cancel(batch: Airborne): void {
    this.#remove(batch)
    this.retime(batch, 0)
  }

  /** It takes another time than predicted at first, and so those behind it land at another. */
  retime(batch: Airborne, predictedUs: number): void {
    const { endsUs } = batch
    const moreUs = predictedUs - batch.predictedUs
    batch.predictedUs = predictedUs
    for (const later of this.batches) if (later.endsUs >= endsUs) later.endsUs += moreUs
  }

  carries(id: RequestId): boolean {
    return this.batches.some(({ items }) => items.some((item) => item.id === id))
  }

  /** Tokens that those in flight, but for one, take room for, of each request that keeps its KV. `ends`: where what ran in that one
   * is after it; what was planned after it begins no further on. */
  reachWithout(but: Airborne, ends: Map<RequestId, number> = new Map()): Map<RequestId, number> {
    const reach = new Map<RequestId, number>()
    let isAfter = false
    for (const batch of this.batches) {
      if (batch === but) {
        isAfter = true
        for (const { id, position } of batch.items)
          if (!ends.has(id)) ends.set(id, Math.min(position, reach.get(id) ?? position))
        continue
      }
      for (let i = 0; i < batch.items.length; i++) {
        const { id, position, tokens, draft } = batch.items[i]!
        if (batch.requests[i]?.preemptions !== batch.preemptions[i]) continue
        const end = (isAfter ? Math.min(position, ends.get(id) ?? Infinity) : position) + tokens + draft
        if (isAfter) ends.set(id, end)
        reach.set(id, Math.max(reach.get(id) ?? 0, end))
      }
    }
    return reach
  }

  /** What they compute of this request is lost to the core, unless the engine says otherwise. */
  writeOff(id: RequestId): void {
    for (const { items, preemptions } of this.batches)
      for (let i = 0; i < items.length; i++) if (items[i]!.id === id) preemptions[i] = -1
  }

  /** Batches that drop its KV free so many blocks less by that. */
  freesLess(id: RequestId, blocks: number, blockTokens: number): void {
    for (const batch of this.batches) {
      const before = batch.dropped.get(id)
      if (before === undefined) continue
      const less = Math.min(before, blocks)
      batch.dropped.set(id, before - less)
      batch.tookTokens += less * blockTokens
    }
  }

  /** What ran in `batch` leaves a request, of which `computed` tokens are in place, with room for `end` tokens: those behind it take
   * blocks from there, not from where they were planned to, and what they take is free by the count of an engine that has not
   * come to them. */
  takesFrom(batch: Airborne, { id, computed }: LiveRequest, end: number, blockTokens: number): void {
    const blocks = (tokens: number) => Math.ceil(tokens / blockTokens)
    let planned = computed
    let real = computed
    let isAfter = false
    for (const other of this.batches) {
      const at = other.items.findIndex((item) => item.id === id)
      if (other === batch) real = Math.max(real, end)
      if (at >= 0 && other.requests[at]?.preemptions === other.preemptions[at]) {
        const { position, tokens, draft } = other.items[at]!
        const to = position + tokens + draft
        if (isAfter) {
          const realTo = Math.min(position, real) + tokens + draft
          const takes = Math.max(0, blocks(realTo) - blocks(real))
          const took = other.takes.get(id) ?? Math.max(0, blocks(to) - blocks(Math.min(planned, position)))
          other.takes.set(id, takes)
          other.tookTokens += (takes - took) * blockTokens
          real = Math.max(real, realTo)
        } else if (other !== batch) real = Math.max(real, to)
        planned = Math.max(planned, to)
      }
      isAfter ||= other === batch
    }
  }

  /** A request has left, and an engine that owns its KV has freed it by itself, all its blocks (`left`). What batches were to free
   * of it is so already; what they were to share of it they take of what is free. */
  freed(id: RequestId, left: readonly number[], kv: KvAccount): void {
    this.writeOff(id)
    const { blockTokens } = kv.limits
    this.freesLess(id, Infinity, blockTokens)
    const begun: { batch: Airborne; id: RequestId }[] = []
    for (const batch of this.batches) {
      for (let i = 0; i < batch.items.length; i++) {
        const { id: other, copy } = batch.items[i]!
        if (copy === undefined || batch.requests[i]?.preemptions !== batch.preemptions[i]) continue
        if (kv.holds(other)) begun.push({ batch, id: other })
      }
    }
    if (begun.length === 0) return
    const heirs = begun.map((one) => one.id)
    for (const [at, blocks] of kv.inherited(left, heirs).entries())
      begun[at]!.batch.tookTokens += blocks * blockTokens
  }

  left(id: RequestId): void {
    this.#left.push(id)
  }
  cameBack(id: RequestId): void {
    this.#left = this.#left.filter((other) => other !== id)
    this.writeOff(id)
  }
  /** The requests that left and that no batch in flight carries any more. */
  takeLeft(): readonly RequestId[] {
    if (this.#left.length === 0) return this.#left
    const left = this.#left
    this.#left = left.filter((id) => this.carries(id))
    return this.#left.length === 0 ? left : left.filter((id) => !this.#left.includes(id))
  }

  /** Throws where a request does not know of its batches, or where what the engine computes has lost its KV. */
  check(line: readonly LiveRequest[], kv: KvAccount): void {
    const inAir = new Map<LiveRequest | undefined, number>()
    for (const { number, items, requests, preemptions } of this.batches) {
      assert(items.length === requests.length, `batch ${number} carries what it does not know`)
      requests.forEach((request, i) => {
        inAir.set(request, (inAir.get(request) ?? 0) + 1)
        if (request === undefined || request.preemptions !== preemptions[i]) return
        assert(kv.holds(request.id), `batch ${number} computes request ${request.id}, whose KV is given up`)
      })
    }
    for (const request of line)
      assert(request.inAir === (inAir.get(request) ?? 0), `request ${request.id} counts its batches wrongly`)
  }

  #remove(batch: Airborne): void {
    this.batches.splice(this.batches.indexOf(batch), 1)
    for (const request of batch.requests) if (request !== undefined) request.inAir--
  }
}
