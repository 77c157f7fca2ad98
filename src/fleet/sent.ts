/** A request that was sent to an engine, as seen from outside: what has come back of it, and what it is promised. */
import { attentionPairs } from "../core/cost.ts"
import type { RequestId, RequestSpec } from "../core/protocol.ts"
import type { Prompt, Stream } from "./engine-run.ts"
import type { Work } from "./stretches.ts"

/** A request as a twin needs it: prompt tokens may be an estimate, `prefix` is not looked at. */
export interface TwinSpec extends RequestSpec {
  /** Prompt tokens whose KV the engine is believed to have already. Default 0. */
  cachedTokens?: number
}

/** A request that another gateway has there already, as that one knows it. */
export interface UnderWay {
  spec: TwinSpec
  sentUs: number
  /** Prompt tokens computed, as is believed; all of them once it has begun to answer. */
  computed: number
  /** Of its output. */
  tokens: number
  /** When the first came, µs; null: none has. */
  firstUs: number | null
  /** A token was late. */
  late: boolean
}

/** Requests that are yet to be sent, in the order in which they will be. */
export interface Held {
  before: readonly TwinSpec[]
  after: readonly TwinSpec[]
}

export const NOTHING_HELD: Held = { before: [], after: [] }

/** A prompt, or a context, of which nothing is known. */
export const USUAL_TOKENS = 512

/** A prompt that is only known to be there. */
export function unseenPrompt(id: RequestId, readyUs: number): Prompt {
  return {
    ...{ id, readyUs, deadlineUs: Infinity, tpotUs: Infinity },
    ...{ tokens: USUAL_TOKENS, computed: 0, started: false, outputTokens: USUAL_TOKENS },
    ...{ startsUs: Infinity, firstTokenUs: Infinity },
  }
}

/** A slowdown is never less than this (core/moved.ts). */
const LEAST_SLOWDOWN_US = 100_000
/** No step is so short. */
const SAME_MOMENT_US = 1000

export class Sent {
  readonly spec: TwinSpec
  readonly sentUs: number
  /** Of the first token, absolute µs; Infinity without a promise. */
  readonly deadlineUs: number
  readonly tpotUs: number
  /** Prompt tokens that the engine had already, as is believed until it says so. */
  cachedTokens: number
  /** Prompt tokens computed, as is believed until the first token says that it was all of them. */
  computed: number
  started = false
  output = 0
  /** Most output tokens that came at one moment. */
  mostAtOnce = 1
  #lastUs = -1
  #atOnce = 0
  /** null: it has not come. Of one that is found it may be before this process's clock began. */
  firstTokenUs: number | null = null
  /** When the next token is due, absolute µs. */
  dueUs: number
  /** A token was late: nothing is promised to it any more. */
  violated = false
  /** Predicted time to the first token when it was sent, µs. */
  predictedUs = 0

  /** `zeroLoadUs`: what so many prompt tokens take on an idle engine. */
  constructor(spec: TwinSpec, nowUs: number, zeroLoadUs: (promptTokens: number) => number) {
    const { slo, promptTokens } = spec
    const promised = spec.tier === "slo"
    const slowdownUs = () => Math.max(LEAST_SLOWDOWN_US, slo.ttftSlowdown * zeroLoadUs(promptTokens))
    const ttftUs = slo.ttftSlowdown > 0 ? slowdownUs() : slo.ttftUs
    const tpotUs = spec.thinking ? Math.min(slo.tpotUs, slo.thinkingTpotUs) : slo.tpotUs
    this.spec = spec
    this.sentUs = nowUs
    this.deadlineUs = promised ? (spec.arrivalUs ?? nowUs) + ttftUs : Infinity
    this.dueUs = this.deadlineUs
    this.tpotUs = promised ? tpotUs : Infinity
    this.cachedTokens = Math.min(promptTokens - 1, spec.cachedTokens ?? 0)
    this.computed = this.cachedTokens
  }

  /** One that another gateway has there already. */
  static found(
    { spec, sentUs, computed, tokens, firstUs, late }: UnderWay,
    zeroLoadUs: (promptTokens: number) => number,
  ): Sent {
    const sent = new Sent(spec, sentUs, zeroLoadUs)
    sent.predictedUs = Infinity
    sent.computed = Math.max(sent.computed, Math.min(spec.promptTokens, computed))
    sent.started = sent.computed > sent.cachedTokens
    if (firstUs === null) return sent
    sent.firstTokenUs = firstUs
    sent.output = tokens
    sent.violated = late
    sent.#pace(firstUs)
    return sent
  }

  /** Their KV tokens. */
  static heldTokensOf(
    streams: Iterable<Sent>,
    waiting: Iterable<Sent>,
    counts: (sent: Sent) => boolean = () => true,
  ): number {
    let tokens = 0
    for (const sent of streams) if (counts(sent)) tokens += sent.spec.promptTokens + sent.output
    for (const sent of waiting) if (counts(sent)) tokens += sent.computed
    return tokens
  }

  /** Their prompt tokens that are still to be computed. */
  static owedOf(prompts: Iterable<Sent>): number {
    let tokens = 0
    for (const { spec, computed } of prompts) tokens += spec.promptTokens - computed
    return tokens
  }

  static startedOf(waiting: Iterable<Sent>): number {
    let count = 0
    for (const { started } of waiting) if (started) count++
    return count
  }

  get underWay(): UnderWay {
    const { spec, sentUs, cachedTokens, computed, output, firstTokenUs, violated } = this
    return {
      ...{ sentUs, computed, tokens: output, late: violated, spec: { ...spec, cachedTokens } },
      firstUs: firstTokenUs,
    }
  }

  /** It has begun to answer. */
  get begun(): boolean {
    return this.computed >= this.spec.promptTokens
  }

  /** Prompt tokens that were to be computed when it was sent. */
  get uncachedTokens(): number {
    return this.spec.promptTokens - this.cachedTokens
  }

  /** Its prompt is computed so far, which adds to `work`, in steps of so many tokens. */
  computedTo(computed: number, work: Work, tokenBudget: number): void {
    if (computed <= this.computed) return
    // What turns out to have been cached was not computed.
    const from = Math.max(this.computed, this.cachedTokens)
    const tokens = computed - from
    this.computed = computed
    if (tokens <= 0) return
    work.promptTokens += tokens
    work.promptSteps += Math.ceil(tokens / tokenBudget)
    work.pairs += attentionPairs(from, tokens)
  }

  /** `count` tokens of its output came. */
  grew(count: number, nowUs: number): void {
    if (nowUs > this.dueUs) this.violated = true
    this.firstTokenUs ??= nowUs
    this.started = true
    this.output += count
    this.#atOnce = nowUs - this.#lastUs < SAME_MOMENT_US ? this.#atOnce + count : count
    this.mostAtOnce = Math.max(this.mostAtOnce, this.#atOnce)
    this.#lastUs = nowUs
    this.#pace(this.firstTokenUs)
  }

  #pace(firstUs: number): void {
    // Without a TTFT the clock of its pace starts at the first token.
    const startUs = this.deadlineUs === Infinity ? firstUs : Math.max(this.deadlineUs, firstUs)
    this.dueUs = startUs + this.output * this.tpotUs
  }

  /** As work of a forecast, before its first token. `entryUs`: how long it is on its way. */
  prompt(id: RequestId, entryUs: number, outputTokens: number): Prompt {
    const { spec, deadlineUs, tpotUs, computed, started, sentUs } = this
    return {
      id,
      deadlineUs,
      tpotUs,
      computed,
      started,
      outputTokens,
      readyUs: sentUs + entryUs,
      tokens: spec.promptTokens,
      startsUs: started ? sentUs : Infinity,
      firstTokenUs: Infinity,
    }
  }

  /** As work of a forecast, afterwards. */
  stream(remaining: number): Stream {
    const promised = !this.violated
    return {
      contextTokens: this.spec.promptTokens + this.output - 1,
      remaining,
      dueUs: promised ? this.dueUs : Infinity,
      tpotUs: promised ? this.tpotUs : Infinity,
    }
  }
}
