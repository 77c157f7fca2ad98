/** What every engine keeps of its requests (tokens known, tokens whose KV is in place), and the check that
 * a batch is one this state allows. A batch that is not is a fault of the scheduler: it throws. */
import type { Batch, BatchItem, EngineLimits, RequestId } from "../core/protocol.ts"
import type { Sampling, Tokenizer } from "./port.ts"

export interface OpenRequest {
  readonly id: RequestId
  readonly sampling: Sampling
  readonly promptTokens: number
  /** Prompt and produced tokens; only the first `known` are valid. */
  tokens: Int32Array
  known: number
  /** Tokens [0, held) have their KV in place. */
  held: number
  /** The same of a draft model's KV; ≤ `held` between steps. */
  draftHeld: number
  /** An end token was produced: nothing may follow. */
  ended: boolean
}

const NOTHING = new Int32Array(0)

export class RequestTable {
  readonly limits: EngineLimits
  readonly #speculates: boolean
  readonly #requests = new Map<RequestId, OpenRequest>()

  constructor(limits: EngineLimits, speculates: boolean) {
    this.limits = limits
    this.#speculates = speculates
  }

  get size(): number {
    return this.#requests.size
  }

  values(): Iterable<OpenRequest> {
    return this.#requests.values()
  }

  /** `output`: produced elsewhere, see Engine.open. */
  open(id: RequestId, prompt: Int32Array, sampling: Sampling, output: Int32Array = NOTHING): OpenRequest {
    if (this.#requests.has(id)) throw new Error(`request ${id} is already open`)
    if (prompt.length === 0) throw new Error(`request ${id} has an empty prompt`)
    const known = prompt.length + output.length
    if (known > this.limits.contextTokens) {
      const what = output.length === 0 ? "prompt" : "prompt and output"
      throw new Error(`request ${id}: ${what} of ${known} tokens exceeds ${this.limits.contextTokens}`)
    }
    const tokens = new Int32Array(known)
    tokens.set(prompt)
    tokens.set(output, prompt.length)
    const request: OpenRequest = {
      id,
      sampling,
      promptTokens: prompt.length,
      tokens,
      known,
      held: 0,
      draftHeld: 0,
      ended: false,
    }
    this.#requests.set(id, request)
    return request
  }

  get(id: RequestId): OpenRequest {
    const request = this.#requests.get(id)
    if (!request) throw new Error(`request ${id} is not open`)
    return request
  }

  delete(id: RequestId): void {
    this.#requests.delete(id)
  }

  /** Adds a produced token. */
  append(request: OpenRequest, token: number, end: boolean): void {
    if (request.known === request.tokens.length) {
      const grown = new Int32Array(Math.max(64, request.tokens.length * 2))
      grown.set(request.tokens)
      request.tokens = grown
    }
    request.tokens[request.known++] = token
    request.ended = end
  }

  /** Throws unless the batch fits what the requests hold and the engine's limits. Changes nothing. */
  check(batch: Batch): void {
    const wrong = (why: string) => new Error(`wrong batch ${batch.number}: ${why}`)
    const gone = new Set<RequestId>()
    for (const id of [...batch.release, ...batch.evict]) {
      if (!this.#requests.has(id)) throw wrong(`request ${id} to be dropped is not open`)
      if (gone.has(id)) throw wrong(`request ${id} is dropped twice`)
      gone.add(id)
    }
    for (const { id, tokens } of batch.trim ?? []) {
      if (!this.#requests.has(id)) throw wrong(`request ${id} to be trimmed is not open`)
      if (gone.has(id)) throw wrong(`request ${id} is trimmed and dropped`)
      if (!Number.isInteger(tokens) || tokens < 1)
        throw wrong(`request ${id} is trimmed to ${tokens} tokens; it takes at least one`)
      if (batch.items.some((item) => item.id === id)) throw wrong(`request ${id} is trimmed and computed`)
    }
    const released = new Set(batch.release)
    const targets = new Set<RequestId>()
    let tokens = 0
    for (const item of batch.items) {
      if (targets.has(item.id)) throw wrong(`request ${item.id} occurs twice`)
      if (released.has(item.id)) throw wrong(`request ${item.id} is computed and released`)
      targets.add(item.id)
      const why = this.#refuse(item, gone)
      if (why) throw wrong(`request ${item.id} ${why}`)
      tokens += item.tokens + item.draft
    }
    for (const { id, copy } of batch.items) {
      const source = copy && batch.items.find((other) => other.id === copy.from)
      if (source?.copy) throw wrong(`request ${id} copies from ${source.id}, itself a copy in this batch`)
    }
    if (tokens > this.limits.maxBatchTokens) {
      throw wrong(`${tokens} tokens exceed the batch limit of ${this.limits.maxBatchTokens}`)
    }
    let sequences = batch.items.length
    for (const request of this.#requests.values()) {
      if (request.held > 0 && !gone.has(request.id) && !targets.has(request.id)) sequences++
    }
    const { maxSequences, cachedSequences = 0 } = this.limits
    if (sequences > maxSequences + cachedSequences || batch.items.length > maxSequences)
      throw wrong(
        `${sequences} sequences exceed the limit of ${maxSequences} and ${cachedSequences} cached ones`,
      )
  }

  /** Why the item cannot be computed, or undefined. */
  #refuse(item: BatchItem, gone: ReadonlySet<RequestId>): string | undefined {
    const { position, tokens, copy } = item
    const request = this.#requests.get(item.id)
    if (!request) return "is not open"
    if (request.ended) return "has ended"
    if (!Number.isInteger(tokens) || tokens < 1) return `computes ${tokens} tokens`
    if (!Number.isInteger(item.draft) || item.draft < 0) return `drafts ${item.draft} tokens`
    if (item.draft > 0 && !this.#speculates) return "speculates, but the engine was opened without a drafter"
    if (item.draft > 0 && !item.sample) return "speculates before its last known token"
    let held = gone.has(item.id) ? 0 : request.held
    if (copy) {
      const source = this.#requests.get(copy.from)
      if (copy.from === item.id) return "copies from itself"
      if (held < copy.tokens) {
        if (!source) return `copies from request ${copy.from}, which is not open`
        if (source.held < copy.tokens) return `copies ${copy.tokens} of ${source.held} tokens`
        held = copy.tokens
      }
      if (position !== copy.tokens) return `copies ${copy.tokens} tokens but starts at ${position}`
    }
    if (!Number.isInteger(position) || position < 0 || position > held) {
      return `starts at ${position} but holds ${held} tokens`
    }
    const end = position + tokens
    if (end > request.known) return `computes up to ${end} of ${request.known} known tokens`
    if (end > this.limits.contextTokens) return `exceeds its context of ${this.limits.contextTokens} tokens`
    if (item.sample !== (end === request.known)) {
      return item.sample ? "samples before its last known token" : "reaches its last known token unsampled"
    }
    return undefined
  }
}

/** Throws where the last token of `output` is an end token: nothing may follow it. */
export function refuseEnded(
  id: RequestId,
  output: Int32Array | undefined,
  tokenizer: Pick<Tokenizer, "isEnd">,
): void {
  const last = output?.at(-1)
  if (last !== undefined && tokenizer.isEnd(last))
    throw new Error(`request ${id} has ended: nothing follows end token ${last}`)
}

/** First index below `tokens` where two requests' tokens differ, or -1: what makes a KV prefix shareable. */
export function firstDifference(a: OpenRequest, b: OpenRequest, tokens: number): number {
  for (let i = 0; i < tokens; i++) if (a.tokens[i] !== b.tokens[i]) return i
  return -1
}
