/** An engine without a model: step times from a cost model with seeded noise, words for answers, failures
 * on demand. Checks batches as strictly as the real one, in real time or on a virtual clock. */
import { type CostModel, shapeOf, stepUs } from "../../core/cost.ts"
import type { Batch, BatchItem, EngineLimits, RequestId, StepFailure } from "../../core/protocol.ts"
import { Random } from "../../random.ts"
import { wordEnds } from "../bad-words.ts"
import { CHATML_TEMPLATE } from "../chatml.ts"
import { type Asked, Constraints, type Masks, NO_MASKS } from "../constraint/constraints.ts"
import { allows, allowsNothing } from "../constraint/mask.ts"
import type { Speculation } from "../drafter.ts"
import type { Engine, ModelInfo, Sampling, StepOutput, StepRow, TokenLogprob } from "../port.ts"
import { firstDifference, type OpenRequest, RequestTable, refuseEnded } from "../request-table.ts"
import { hashInts } from "./hash.ts"
import { FakePool } from "./pool.ts"
import { FakeText } from "./text.ts"
import { FAKE_END, FAKE_VOCAB_SIZE, fakeTokenizer } from "./tokenizer.ts"

/** A clock that a test or a simulation drives. The real-time driver's clock has the same shape. */
export interface VirtualTime {
  nowUs(): number
  /** Calls `fn` once when the clock reaches `atUs`; the answer cancels it. */
  wakeAt(atUs: number, fn: () => void): () => void
}

export interface FakeOptions {
  cost: CostModel
  limits: EngineLimits
  /** "real": steps sleep. Otherwise they end when this clock gets there. */
  time: "real" | VirtualTime
  /** Standard deviation of ln(step time / predicted): 0.05 is 5% noise. Default 0. */
  noise?: number
  seed?: number
  /** Output length including the end token. Default: answers never end by themselves. */
  outputTokens?: number | ((id: RequestId, promptTokens: number) => number)
  /** What to answer, as text (special tokens are parsed) or tokens; an end token follows. undefined: words. */
  script?: (id: RequestId, prompt: string) => string | Int32Array | undefined
  /** Makes the step of this batch number fail, after its time has passed. */
  failures?: (batch: number) => StepFailure | null
  /** Factor on the time of the step of this batch number. */
  slowdown?: (batch: number) => number
  /** When a unified pool overflows: "throw" (default: the scheduler counted wrongly) or fail with kvFull. */
  onKvFull?: "throw" | "fail"
  /** Whether batches may speculate. Default "off". */
  speculate?: Speculation
  /** Of `draft` tokens drafted after `output` tokens of a request, how many are accepted. Default: each with
   * probability 0.7 until the first refusal, by the seed and the token's place alone. */
  acceptance?: number | ((id: RequestId, output: number, draft: number) => number)
  name?: string
}

interface Answer {
  token(index: number): number
  /** Output tokens with the end token; Infinity when it never ends. */
  length: number
}

export function fakeEngine(options: FakeOptions): Engine {
  return new FakeEngine(options)
}

class FakeEngine implements Engine {
  readonly model: ModelInfo
  readonly limits: EngineLimits
  readonly tokenizer = fakeTokenizer
  readonly constraints = new Constraints(fakeTokenizer, FAKE_VOCAB_SIZE)
  readonly #options: FakeOptions
  readonly #table: RequestTable
  readonly #pool: FakePool | null
  readonly #answers = new Map<RequestId, Answer>()
  readonly #noise: Random
  #busy = false
  #closed = false

  constructor(options: FakeOptions) {
    this.#options = options
    this.limits = options.limits
    this.#table = new RequestTable(options.limits, (options.speculate ?? "off") !== "off")
    this.#pool = options.limits.unifiedKv ? new FakePool(options.limits.blockTokens) : null
    this.#noise = new Random(options.seed ?? 0)
    this.model = {
      name: options.name ?? "fake",
      fingerprint: `fake-${JSON.stringify(options.cost.pieces)}`,
      chatTemplate: CHATML_TEMPLATE,
      bosText: "",
      eosText: "<|im_end|>",
      trainedContextTokens: options.limits.contextTokens,
      vocabSize: FAKE_VOCAB_SIZE,
      parameters: 0,
      random: true,
      pooling: "last",
    }
  }

  open(id: RequestId, prompt: Int32Array, sampling: Sampling, output?: Int32Array): void {
    refuseEnded(id, output, fakeTokenizer)
    const request = this.#table.open(id, prompt, sampling, output)
    try {
      if (sampling.grammar !== null) this.constraints.open(request, sampling.grammar)
    } catch (error) {
      this.#table.delete(id)
      throw error
    }
    this.#answers.set(id, this.#answerTo(id, prompt, sampling))
  }

  async execute(batch: Batch): Promise<StepOutput> {
    if (this.#closed) throw new Error("the engine is closed")
    if (this.#busy) throw new Error(`batch ${batch.number} was given while another step runs`)
    this.#table.check(batch)
    this.#busy = true
    try {
      const { durationUs, failure } = await this.#step(batch)
      if (failure) return { ok: false, reason: failure, message: `fake ${failure}`, durationUs }
      const masks = await this.#masks(batch.items)
      if (masks instanceof Error)
        return { ok: false, reason: "engineError", message: masks.message, durationUs }
      return { ok: true, rows: this.#advance(batch, masks), durationUs }
    } finally {
      this.#busy = false
    }
  }

  async close(): Promise<void> {
    this.#closed = true
    this.constraints.close()
  }

  /** Memory work, then the time of the step. */
  async #step(batch: Batch): Promise<{ durationUs: number; failure: StepFailure | null }> {
    const refused = this.#moveMemory(batch) ? null : "engineError"
    const overflow = this.#overflows(batch.items) ? "kvFull" : null
    if (overflow && this.#options.onKvFull !== "fail") {
      throw new Error(`wrong batch ${batch.number}: KV pool of ${this.limits.kvTokens} tokens overflows`)
    }
    const sigma = this.#options.noise ?? 0
    const noise = sigma > 0 ? Math.exp(sigma * this.#noise.normal() - (sigma * sigma) / 2) : 1
    const shape = shapeOf(batch.items, this.#options.cost)
    const slow = this.#options.slowdown?.(batch.number) ?? 1
    const wanted = Math.round(stepUs(this.#options.cost, shape) * noise * slow)
    const durationUs = await this.#pass(wanted)
    return { durationUs, failure: refused ?? overflow ?? this.#options.failures?.(batch.number) ?? null }
  }

  /** Lets a step's time pass; answers how long it really took. */
  #pass(durationUs: number): Promise<number> {
    const { time } = this.#options
    return new Promise((resolve) => {
      if (time !== "real") {
        time.wakeAt(time.nowUs() + durationUs, () => resolve(durationUs))
        return
      }
      const from = performance.now()
      const due = from + durationUs / 1000
      const poll = () => {
        const left = due - performance.now()
        if (left <= 0) resolve(Math.round((performance.now() - from) * 1000))
        else if (left < 2) setImmediate(poll)
        else setTimeout(poll, left - 1)
      }
      poll()
    })
  }

  /** Copies, evictions, releases, trims, truncations. False when a copy's tokens are not the same tokens. */
  #moveMemory(batch: Batch): boolean {
    let same = true
    for (const { id, copy } of batch.items) {
      const to = this.#table.get(id)
      if (!copy || to.held >= copy.tokens) continue
      if (firstDifference(this.#table.get(copy.from), to, copy.tokens) >= 0) {
        same = false
        continue
      }
      to.held = copy.tokens
      this.#pool?.share(copy.from, id, copy.tokens)
    }
    const copied = new Set(batch.items.filter((item) => item.copy).map((item) => item.id))
    for (const id of [...batch.evict, ...batch.release]) {
      if (copied.has(id)) continue
      this.#table.get(id).held = 0
      this.#pool?.truncate(id, 0)
    }
    for (const { id, tokens } of batch.trim ?? []) {
      const request = this.#table.get(id)
      request.held = Math.min(request.held, tokens)
      this.#pool?.truncate(id, request.held)
    }
    for (const id of batch.release) {
      this.#table.delete(id)
      this.#answers.delete(id)
      this.constraints.forget(id)
    }
    for (const { id, position } of batch.items) {
      const request = this.#table.get(id)
      request.held = Math.min(request.held, position)
      this.#pool?.truncate(id, request.held)
    }
    return same
  }

  #overflows(items: readonly BatchItem[]): boolean {
    const pool = this.#pool
    if (!pool) return false
    for (const item of items) pool.grow(item.id, item.position, item.position + item.tokens + item.draft)
    const full = pool.usedTokens > this.limits.kvTokens
    for (const item of items) pool.truncate(item.id, item.position)
    return full
  }

  /** What grammars let come, or why that cannot be said. No wait where there are none: virtual clocks stand still. */
  #masks(items: readonly BatchItem[]): Masks | Promise<Masks | Error> {
    const asked = items
      .filter(({ id }) => this.#table.get(id).sampling.grammar !== null)
      .map((item): Asked => {
        const request = this.#table.get(item.id)
        return item.sample
          ? { request, draft: this.#wanted(request, item) }
          : { request, draft: null, most: item.tokens }
      })
    if (asked.length === 0) return NO_MASKS
    return this.constraints.masks(asked).catch((error: Error) => error)
  }

  #advance(batch: Batch, masks: Masks): StepRow[] {
    const rows: StepRow[] = []
    for (const item of batch.items) {
      const request = this.#table.get(item.id)
      request.held = item.position + item.tokens
      if (item.sample) rows.push(this.#verify(request, item.draft, masks.get(item.id) ?? null))
      this.#pool?.grow(item.id, item.position, request.held)
    }
    return rows
  }

  /** Tokens that it would say next, as many as are accepted of a draft. */
  #wanted(request: OpenRequest, { position, tokens, draft }: BatchItem): number[] {
    const room = this.limits.contextTokens - position - tokens
    const accepted = this.#accepted(request, Math.min(draft, room))
    const wanted: number[] = []
    while (wanted.length < accepted) wanted.push(this.#choose(request, wanted))
    return wanted
  }

  /** As many tokens as the model would accept, and the sure one; under a grammar, as far as that lets them come. */
  #verify(request: OpenRequest, draft: number, masks: readonly Int32Array[] | null): StepRow {
    const { logprobs } = request.sampling
    const first = request.known === request.promptTokens
    const drafted = Math.min(draft, this.limits.contextTokens - request.held)
    const accepted = masks ? masks.length - 1 : this.#accepted(request, drafted)
    const row: StepRow = { id: request.id, tokens: [], end: false, drafted }
    while (!row.end && row.tokens.length <= accepted) {
      const token = masks ? this.#choiceOf(request, masks[row.tokens.length]!) : this.#choose(request)
      row.tokens.push(token)
      row.end = fakeTokenizer.isEnd(token)
      this.#table.append(request, token, row.end)
      if (logprobs > 0) row.logprobs = [...(row.logprobs ?? []), fakeLogprobs(token, logprobs)]
    }
    request.held += row.tokens.length - 1
    const { promptLogprobs, embedding } = request.sampling
    if (embedding) row.embedding = fakeEmbedding(request.tokens.subarray(0, request.promptTokens))
    if (first && promptLogprobs)
      row.prompt = [...request.tokens.subarray(1, request.promptTokens)].map((token) =>
        fakeLogprobs(token, promptLogprobs),
      )
    return row
  }

  #accepted(request: OpenRequest, draft: number): number {
    const { acceptance = 0.7, seed = 0 } = this.#options
    const output = request.known - request.promptTokens
    if (typeof acceptance === "function") return acceptance(request.id, output, draft)
    const luck = (place: number) => new Random(hashInts([seed, request.id, place])).uniform()
    let accepted = 0
    while (accepted < draft && luck(output + accepted) < acceptance) accepted++
    return accepted
  }

  /** The token after these more; where it would end a bad word, one that would not. */
  #choose(request: OpenRequest, ahead: readonly number[] = []): number {
    const wanted = this.#wish(request, ahead.length)
    const banned = wordEnds(request, ahead)
    if (!banned.includes(wanted)) return wanted
    return LETTERS.find((letter) => !banned.includes(letter)) ?? wanted
  }

  /** Of the token after so many more. */
  #wish(request: OpenRequest, ahead: number): number {
    const { minTokens, logitBias } = request.sampling
    const answer = this.#answers.get(request.id)!
    const index = request.known - request.promptTokens + ahead
    const ignoreEos = request.sampling.ignoreEos || index < minTokens
    const forced = logitBias.find(([token, bias]) => bias >= FORCING_BIAS && !(ignoreEos && token >= 256))
    const finished = !ignoreEos && index >= answer.length - 1
    return finished ? FAKE_END : (forced?.[0] ?? answer.token(index))
  }

  /** What it would say, where its grammar lets it; after its length, what ends soonest. */
  #choiceOf(request: OpenRequest, mask: Int32Array): number {
    const wanted = this.#choose(request)
    if (allowsNothing(mask) || allows(mask, wanted)) return wanted
    const first = [A_LETTER, A_BRACE].every((token) => allows(mask, token)) ? A_QUOTE : FAKE_END
    const { ignoreEos, minTokens } = request.sampling
    const endless = ignoreEos || request.known - request.promptTokens < minTokens
    const endings = endless ? [...CLOSING, FAKE_END] : [first, FAKE_END, ...CLOSING]
    const may = [...endings, ...ALL_TOKENS].filter((token) => allows(mask, token))
    const banned = wordEnds(request)
    return may.find((token) => !banned.includes(token)) ?? may[0]!
  }

  /** The answer is a function of the prompt and the seeds, as a model's is. */
  #answerTo(id: RequestId, prompt: Int32Array, sampling: Sampling): Answer {
    const { script, outputTokens, seed = 0 } = this.#options
    const words = new FakeText(
      hashInts(prompt, hashInts([seed, sampling.temperature > 0 ? sampling.seed : 0])),
    )
    const scripted = script?.(id, decode(prompt))
    if (scripted !== undefined) {
      const tokens = typeof scripted === "string" ? fakeTokenizer.encodeSync(scripted, PARSED) : scripted
      return { token: (i) => tokens[i] ?? words.token(i - tokens.length), length: tokens.length + 1 }
    }
    const length = typeof outputTokens === "function" ? outputTokens(id, prompt.length) : outputTokens
    return { token: (i) => words.token(i), length: Math.max(1, length ?? Infinity) }
  }
}

const [A_LETTER, A_BRACE, A_QUOTE] = [...'a}"'].map((character) => character.charCodeAt(0)) as [
  number,
  number,
  number,
]
/** What JSON's parts end with, then what leads on without blanks. Within a text a brace is a letter of it: the quote ends that. */
const CLOSING = [...'}]":,0'].map((character) => character.charCodeAt(0))

const ALL_TOKENS = [...Array(FAKE_VOCAB_SIZE).keys()]
const LETTERS = ALL_TOKENS.slice(97, 123)

/** A bias this large leaves a real model no choice. */
const FORCING_BIAS = 50
const PARSED = { special: true, addBos: false } as const

function fakeLogprobs(token: number, count: number): TokenLogprob {
  const top = Array.from({ length: count }, (_, i) => ({
    token: (token + i) % FAKE_VOCAB_SIZE,
    logprob: Math.log(0.5) * (i + 1),
  }))
  return { token, logprob: top[0]!.logprob, top }
}

const EMBEDDING_WIDTH = 32

/** A function of the tokens, of length one. */
function fakeEmbedding(tokens: Int32Array): Float32Array {
  const random = new Random(hashInts(tokens))
  const vector = Float32Array.from({ length: EMBEDDING_WIDTH }, () => random.normal())
  const length = Math.hypot(...vector)
  return vector.map((value) => value / length)
}

function decode(tokens: Int32Array): string {
  return Buffer.concat([...tokens].map((token) => fakeTokenizer.bytes(token))).toString("utf8")
}
