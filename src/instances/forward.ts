/** Plans with a policy that decides step by step: the very policy of production runs forward from the instance's
 * state on a virtual clock with an exact timer, until every accepted prefill is done and the decodes go on steadily. */

import type { CostModel } from "../core/cost.ts"
import { KvAccount } from "../core/kv/account.ts"
import { Acceptance, expectedTokens } from "../core/learn/acceptance.ts"
import { Calibration } from "../core/learn/calibration.ts"
import { OutputLengths } from "../core/learn/output-lengths.ts"
import { DEFAULT_OPTIONS, type PolicyOptions } from "../core/options.ts"
import { BatchBuilder } from "../core/planner/batch-builder.ts"
import { PlanningContext } from "../core/planner/context.ts"
import type { Policy, PolicyFactory } from "../core/policy/policy.ts"
import type { BatchItem, EngineLimits } from "../core/protocol.ts"
import { LiveRequest } from "../core/request.ts"
import { batchSeconds, type Instance, type InstanceRequest } from "./instance.ts"
import type { Decided } from "./paper.ts"
import { decodesOf, type Plan, type PlannedBatch } from "./schedule.ts"

export interface ForwardOptions {
  speculate: boolean
  margin: number
  options?: Partial<PolicyOptions>
  /** Ids of new requests that may not be accepted. */
  without?: ReadonlySet<number>
}

export interface Forward extends Decided {
  /** New requests whose SLO was promised (their first token was out) and then broken. */
  broken: number[]
}

const US = 1e6
/** More output than any request yields while it is planned for. */
const OUTPUT_TOKENS = 4096
/** A life that is over goes on for so many tokens. */
const MORE_TOKENS = 32
/** How long the decodes are watched after the last prefill. */
const WATCH_US = 2_000_000
/** More steps than any instance takes; a policy that runs in circles must not run for ever. */
const MOST_STEPS = 100_000

/** The instance asks for more steps than any real one does. */
export class NoEnd extends Error {
  constructor() {
    super(`no end after ${MOST_STEPS} batches; lengthen the batches (hw) or bring the deadlines nearer`)
  }
}

interface Step {
  t: number
  items: readonly BatchItem[]
}

/** Run `policy` forward on `instance`. `clockUs`: any clock in microseconds. */
export function planForward(
  instance: Instance,
  policy: PolicyFactory,
  options: ForwardOptions,
  clockUs: () => number,
): Forward {
  return new Run(instance, policy, options, clockUs).plan()
}

class Run {
  #instance: Instance
  #clockUs: () => number
  #policy: Policy
  #batch: BatchBuilder
  #line: LiveRequest[] = []
  #origin = new Map<number, InstanceRequest>()
  #steps: Step[] = []
  #nowUs = 0
  #us = -1
  #outLeft = new Map<number, number>()

  constructor(instance: Instance, factory: PolicyFactory, options: ForwardOptions, clockUs: () => number) {
    this.#instance = instance
    this.#clockUs = clockUs
    const limits = limitsOf(instance)
    const cost = costOf(instance)
    const { alpha, max_sd } = instance.spec
    this.#policy = factory({
      ...DEFAULT_OPTIONS,
      margin: options.margin,
      speculation: options.speculate ? "on" : "off",
      maxSpeculation: max_sd,
      acceptancePrior: alpha,
      kvShare: memoryTokens(instance) / limits.kvTokens,
      ...options.options,
    })
    const kv = new KvAccount(limits)
    const context = new PlanningContext({
      limits,
      cost,
      kv,
      // Nothing ends while it is planned for.
      outputLengths: OutputLengths.endless(instance.tpots.length),
      calibration: new Calibration(),
      margin: options.margin,
      actions: { demoted() {}, promoted() {}, admitted() {}, preempted() {} },
      acceptance: new Acceptance(alpha),
    })
    this.#batch = new BatchBuilder(context)
    for (const request of instance.requests) {
      if (request.new && options.without?.has(request.id)) continue
      this.#enlist(request, kv)
    }
  }

  plan(): Forward {
    let untilUs = Infinity
    for (let i = 0; this.#nowUs < untilUs; i++) {
      if (i === MOST_STEPS) throw new NoEnd()
      this.#forgetHopeless()
      if (this.#line.length === 0) break
      if (untilUs === Infinity && this.#line.every((request) => request.decoding))
        untilUs = Math.max(this.#nowUs, this.#lastDeadlineUs()) + WATCH_US
      if (!this.#step()) break
    }
    return this.#answer()
  }

  #enlist(request: InstanceRequest, kv: KvAccount): void {
    const { now, tpots } = this.#instance
    const app = request.tier
    const order = this.#line.length
    const decoding = request.remaining === 0
    const tpotUs = tpots[request.tier]! * US
    const deadlineUs = Math.floor((Math.max(request.ddl, decoding ? now : -Infinity) - now) * US)
    const held = decoding ? request.computed : request.prompt - request.remaining
    const promptTokens = decoding ? Math.min(request.prompt, held) : request.prompt
    const live = new LiveRequest(
      {
        id: request.id,
        app,
        session: -1,
        promptTokens,
        maxOutputTokens: lifeTokens(request, this.#instance) - promptTokens,
        prefix: [],
        slo: { ttftUs: deadlineUs, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity },
        tier: "slo",
        thinking: false,
        worth: request.profit,
        firm: !request.new,
      },
      0,
      deadlineUs,
      order,
    )
    if (held > 0) {
      kv.attach(request.id, [], -1, null)
      kv.grow(request.id, held)
      live.computed = held
    }
    if (decoding) {
      live.output = held - live.spec.promptTokens + 1
      live.dueUs = live.paceDueUs = deadlineUs + tpotUs
      live.firstTokenUs = 0
    }
    live.admitted = !request.new
    this.#origin.set(request.id, request)
    this.#line.push(live)
  }

  /** Best-effort service is not what the instance asks about: a request that cannot be on time leaves. */
  #forgetHopeless(): void {
    const hopeless = (request: LiveRequest) =>
      request.tier === "bestEffort" &&
      (request.violated || (request.output === 0 && this.#nowUs >= request.deadlineUs))
    if (!this.#line.some(hopeless)) return
    for (const request of this.#line.filter(hopeless)) this.#batch.context.kv.end(request.id)
    this.#line = this.#line.filter((request) => !hopeless(request))
  }

  #lastDeadlineUs(): number {
    let last = 0
    for (const request of this.#line) last = Math.max(last, request.deadlineUs)
    // A deadline far away changes nothing: its request is ahead by then.
    return Math.min(last, this.#nowUs + WATCH_US)
  }

  /** One decision, carried out. False when the policy had nothing to run. */
  #step(): boolean {
    const batch = this.#batch
    batch.reset()
    const began = this.#clockUs()
    this.#policy.decide(this.#line, batch, this.#nowUs)
    if (this.#us < 0) this.#us = this.#clockUs() - began
    // Nothing ends while it is planned for.
    for (const { spec, output } of this.#line)
      spec.maxOutputTokens = Math.max(spec.maxOutputTokens, output + MORE_TOKENS)
    const items = batch.items.slice()
    if (items.length === 0) return false
    batch.context.kv.orders.takeDropped()
    batch.context.kv.orders.takeReleased()
    const load = { tokens: 0, steps: 1, requests: items.length, pastTokens: 0 }
    for (const { tokens, draft: drafted, position } of items) {
      load.tokens += tokens + drafted
      load.steps = Math.max(load.steps, drafted + 1)
      // Expected tokens of speculation come in fractions: one more is never too few.
      load.pastTokens += position + 1
    }
    const durationUs = Math.max(1, Math.ceil(batchSeconds(this.#instance, load) * US - 5e-4))
    this.#nowUs += durationUs
    this.#steps.push({ t: durationUs / US, items })
    const live = new Map(this.#line.map((request) => [request.id, request]))
    for (const item of items) this.#advance(live.get(item.id)!, item)
    return true
  }

  #advance(request: LiveRequest, item: BatchItem): void {
    const tokens = item.sample ? this.#tokensOut(item) : 0
    request.computed = item.position + item.tokens + Math.max(0, tokens - 1)
    this.#batch.context.kv.computed(request.id, request.computed)
    if (tokens > 0) request.emit(tokens, -1, this.#nowUs, () => {})
  }

  /** Speculation yields what it does on average; the fraction is carried over. */
  #tokensOut(item: BatchItem): number {
    const expected = expectedTokens(this.#instance.spec.alpha, item.draft + 1)
    const sum = (this.#outLeft.get(item.id) ?? 0) + expected
    const whole = Math.min(item.draft + 1, Math.floor(sum + 1e-9))
    this.#outLeft.set(item.id, sum - whole)
    return whole
  }

  #answer(): Forward {
    const accepted: number[] = []
    const broken: number[] = []
    const feasible = this.#runningKept()
    let profit = 0
    for (const request of this.#line) {
      const origin = this.#origin.get(request.id)!
      if (!origin.new) continue
      if (request.output === 0 || request.violated) continue
      if (request.tier !== "slo") continue
      accepted.push(request.id)
      profit += origin.profit
    }
    for (const [id, origin] of this.#origin)
      if (origin.new && this.#brokePromise(id, accepted)) broken.push(id)
    accepted.sort((a, b) => a - b)
    const us = Math.max(0, this.#us)
    if (!feasible) return { feasible, accepted: [], profit: 0, us, batches: [], broken }
    const plan: Plan = { feasible, accepted, profit, batches: this.#batches(accepted) }
    return { ...plan, us, broken }
  }

  #runningKept(): boolean {
    const live = new Map(this.#line.map((request) => [request.id, request]))
    return this.#instance.requests.every((request) => {
      if (request.new) return true
      const found = live.get(request.id)
      return found !== undefined && found.tier === "slo" && !found.violated
    })
  }

  #brokePromise(id: number, accepted: readonly number[]): boolean {
    if (accepted.includes(id)) return false
    return this.#steps.some((step) => step.items.some((item) => item.id === id && item.sample))
  }

  #batches(accepted: readonly number[]): PlannedBatch[] {
    const shown = new Set(accepted)
    for (const request of this.#instance.requests) if (!request.new) shown.add(request.id)
    const batches: PlannedBatch[] = []
    for (const { t, items } of this.#steps) {
      const p: [number, number][] = []
      const verified = new Map<number, number>()
      for (const { id, tokens, draft, position } of items) {
        if (!shown.has(id)) continue
        const request = this.#origin.get(id)!
        const decode = request.remaining === 0 || position >= request.prompt
        if (decode) verified.set(id, tokens + draft)
        else p.push([id, tokens])
      }
      batches.push({ t, p, d: decodesOf(verified) })
    }
    return batches
  }
}

/** KV is not short here: memory is the instance's own sum of blocks, which `accepted` must keep within. */
function limitsOf(instance: Instance): EngineLimits {
  let kvTokens = 0
  for (const request of instance.requests)
    kvTokens += Math.max(request.prompt, request.computed) + OUTPUT_TOKENS
  return {
    kvTokens,
    blockTokens: instance.block_size,
    maxSequences: instance.requests.length + 1,
    maxBatchTokens: 16_384,
    contextTokens: 1 << 28,
    minChunkTokens: 1,
    unifiedKv: true,
  }
}

/** What the policy is to take for the whole KV: the free blocks and what the running ones own. */
function memoryTokens(instance: Instance): number {
  let tokens = instance.mem_free * instance.block_size
  for (const request of instance.requests) if (!request.new) tokens += lifeTokens(request, instance)
  return tokens
}

/** Prompt and output of a request's whole life. */
function lifeTokens(request: InstanceRequest, { block_size }: Instance): number {
  const least = Math.max(request.prompt, request.computed) + 1
  return request.new ? Math.max(least, request.mem * block_size) : least + request.max_tokens
}

/** The instance's formula as a cost model, µs. The dumps' terms for context are taken at the most there can be. */
function costOf({ hw, hw_terms: terms, requests }: Instance): CostModel {
  const pieces = []
  let context = 0
  for (const request of requests) context += request.prompt + request.max_tokens
  for (let i = 0; i < hw.length; i += terms) {
    const at = (offset: number) => hw[i + offset]! * US
    pieces.push(
      terms === 3
        ? { tokens: at(0), specSteps: at(1), step: at(1) + at(2) }
        : { tokens: at(0), sequences: at(1), specSteps: at(3), step: at(2) * context + at(3) + at(4) },
    )
  }
  return { pieces, residualSigma: 0, fastPassTokens: 1, unifiedKv: true }
}
