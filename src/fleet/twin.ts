/** What a gateway knows of an engine that owns its batching and answers no offers: what was sent to it, what came back,
 * what its /metrics say of others' requests. Run forward by the engine's own rules on a cost model fitted meanwhile, it
 * answers offers in the engine's place. Pure: times are µs on the caller's clock. */
import { attentionPairs } from "../core/cost.ts"
import { Calibration } from "../core/learn/calibration.ts"
import { OutputLengths } from "../core/learn/output-lengths.ts"
import { prefillUs } from "../core/planner/prefill-time.ts"
import type { RequestId, Snapshot } from "../core/protocol.ts"
import { BudgetFit } from "./budget-fit.ts"
import { CostFit, type PRIOR } from "./cost-fit.ts"
import type { EngineRules } from "./engine-rules.ts"
import { EngineRun, type Prompt, type Stream } from "./engine-run.ts"
import { KvReserve } from "./kv-reserve.ts"
import { lookAhead, MOST_STEPS } from "./look-ahead.ts"
import { Others } from "./others.ts"
import { type Held, NOTHING_HELD, Sent, type TwinSpec, type UnderWay, USUAL_TOKENS } from "./sent.ts"
import { Stretches, type Work } from "./stretches.ts"
import type { EngineLoad, Forecast, RunWith, TwinOffer } from "./twin-words.ts"

export interface TwinOptions {
  rules: EngineRules
  /** Number of apps (SLO classes): output lengths are learnt per app. Default 1. */
  apps?: number
  /** What is believed of step times until they were seen, µs a unit. */
  prior?: Partial<typeof PRIOR>
  /** What was seen of engines like it (one for all of them). */
  kin?: CostFit
}

export type { Held, TwinSpec, UnderWay } from "./sent.ts"
export type { EngineLoad, TwinOffer } from "./twin-words.ts"

/** In flight at most while the cost model is a guess. */
const CAUTIOUS_REQUESTS = 4
/** So much of the KV is planned with: blocks are taken whole, and outputs get longer than expected. */
const KV_SHARE = 0.95
/** A token that comes sooner after the last step's end belongs to the same step. */
const SAME_STEP = 0.5
/** The answer to an offer holds so long, µs, if nothing was seen meanwhile: what is offered is mostly sent next. */
const HOLDS_US = 1000
/** Not a request's id; and ids of what is held, in a forecast, from here on. */
const [OFFERED, HELD] = [-1, 2 ** 40]

export class Twin {
  readonly fit: CostFit
  #rules: EngineRules
  #lengths: OutputLengths
  /** Actual over predicted times to the first token. */
  #calibration = new Calibration(0.3)
  #stretches: Stretches
  #budget = new BudgetFit()
  #work: Work = { promptTokens: 0, promptSteps: 0, decodeTokens: 0, pairs: 0 }
  /** Without and with a token out, in order of sending. */
  #waiting = new Map<RequestId, Sent>()
  #streams = new Map<RequestId, Sent>()
  /** Up to here prompts are computed as far as is believed; absolute µs. */
  #boundaryUs = 0
  /** A request that the engine has to itself until its first token. */
  #lone: RequestId | null = null
  #lastTokenUs = 0
  readonly #others = new Others()
  #reserve = new KvReserve()
  /** What was asked last, and answered; null once anything was seen. `predictedUs`: the first token, uncalibrated, absolute. */
  #asked: { spec: TwinSpec; atUs: number; predictedUs: number; offer: TwinOffer } | null = null

  constructor({ rules, apps = 1, prior, kin }: TwinOptions) {
    this.#rules = rules
    this.#lengths = new OutputLengths(apps)
    this.fit = new CostFit(prior, kin)
    this.#stretches = new Stretches(rules.mixed, (stretch, prompts) => this.fit.observe(stretch, prompts))
  }

  /** What the engine turns out to be able to hold. */
  learnRules(changes: Partial<EngineRules>): void {
    this.#rules = { ...this.#rules, ...changes }
  }
  get rules(): EngineRules {
    return this.#rules
  }
  /** Requests sent that have not ended. */
  get inFlight(): number {
    return this.#waiting.size + this.#streams.size
  }

  /** As far as is known the engine has nothing to do. */
  get idle(): boolean {
    return this.inFlight + this.#others.running + this.#others.waiting === 0
  }

  /** Predicted time of a prompt with the engine to itself, µs: what a TTFT slowdown multiplies. */
  zeroLoadPrefillUs(promptTokens: number): number {
    return this.fit.entryUs + this.#computesUs(promptTokens)
  }

  #computesUs(promptTokens: number): number {
    return prefillUs(this.fit.model, 0, promptTokens, this.#rules.tokenBudget)
  }

  /** The request goes out to the engine. */
  sent(id: RequestId, spec: TwinSpec, nowUs: number): void {
    this.#advance(nowUs)
    this.#lone = this.idle ? id : null
    this.#boundaryUs = this.#stepBeganUs(nowUs)
    const sent = this.#sentOf(spec, nowUs)
    const predictedUs = this.#answerTo(spec, nowUs)?.predictedUs ?? this.#forecast(sent, nowUs).firstTokenUs
    sent.predictedUs = predictedUs - nowUs
    this.#asked = null
    this.#waiting.set(id, sent)
    if (this.#rules.mixed) this.#budget.sent(id, this.#streams)
  }

  /** A request of another gateway went out to the engine, as that one says: with an id below 0. What is learnt of times is not
   * learnt of such, for their tokens are heard of late. */
  sentElsewhere(id: RequestId, spec: TwinSpec, nowUs: number): void {
    this.#advance(nowUs)
    this.#lone = this.#asked = null
    this.#boundaryUs = this.#stepBeganUs(nowUs)
    const sent = this.#sentOf(spec, nowUs)
    sent.predictedUs = Infinity
    this.#waiting.set(id, sent)
  }

  /** Requests of other gateways that are there already, likewise. What came of them before says nothing of what is computed from now on. */
  foundElsewhere(found: ReadonlyMap<RequestId, UnderWay>, nowUs: number): void {
    this.#advance(nowUs)
    this.#lone = this.#asked = null
    this.#boundaryUs = this.#stepBeganUs(nowUs)
    for (const [id, one] of found) {
      const sent = Sent.found(one, (promptTokens) => this.zeroLoadPrefillUs(promptTokens))
      if (!sent.begun) this.#waiting.set(id, sent)
      else this.#streams.set(id, sent)
      if (sent.begun) this.#lastTokenUs = nowUs
    }
  }

  /** What is there, as far as is known. */
  underWay(nowUs: number): Map<RequestId, UnderWay> {
    this.#advance(nowUs)
    return new Map([...this.#waiting, ...this.#streams].map(([id, sent]) => [id, sent.underWay]))
  }

  /** The engine had so much of its prompt already. Before its first tokens. */
  cached(id: RequestId, tokens: number): void {
    const sent = this.#waiting.get(id)
    if (sent !== undefined) sent.cachedTokens = Math.min(sent.spec.promptTokens - 1, tokens)
  }

  /** `count` tokens of its output came. */
  tokens(id: RequestId, count: number, nowUs: number): void {
    this.#asked = null
    const waiting = this.#waiting.get(id)
    if (waiting !== undefined) this.#firstToken(id, waiting, nowUs)
    const sent = this.#streams.get(id)
    if (sent === undefined || count < 1) return
    this.#lastTokenUs = nowUs
    const decoded = waiting === undefined ? count : count - 1
    this.#work.decodeTokens += decoded
    this.#work.pairs += decoded * (sent.spec.promptTokens + sent.output)
    this.#lengths.grew(sent.spec.app, sent.output, sent.output + count)
    sent.grew(count, nowUs)
    if (id >= 0) this.#stretches.tokens(id, count, this.#work, this.#others.running, nowUs)
  }

  /** No more of it comes. `stopped`: it ended by itself, which says how long outputs are. */
  ended(id: RequestId, nowUs: number, stopped = true): void {
    if (this.#waiting.has(id) || this.#streams.has(id)) this.endedTogether([[id, stopped]], nowUs)
  }

  /** No more of any of these: what is believed is run up to now once, which takes the longer the more there are. */
  endedTogether(ended: Iterable<readonly [id: RequestId, stopped: boolean]>, nowUs: number): void {
    this.#asked = null
    this.#advance(nowUs)
    for (const [id, stopped] of ended) {
      const sent = this.#streams.get(id)
      if (sent !== undefined && stopped) this.#lengths.ended(sent.spec.app, sent.output)
      this.#stretches.ended(id, this.#work, this.#others.running)
      if (this.#lone === id) this.#lone = null
      this.#budget.ended(id)
      this.#waiting.delete(id)
      this.#streams.delete(id)
    }
  }

  /** What the engine says of itself: more than was sent from here is others'. */
  metrics(load: EngineLoad, nowUs: number): void {
    this.#asked = null
    this.#advance(nowUs)
    const started = this.#streams.size + Sent.startedOf(this.#waiting.values())
    const known = { inFlight: this.inFlight, started, heldTokens: this.#heldTokens() }
    this.#others.seen(load, known, nowUs)
  }

  /** Would this request have its first token in time and keep its pace, and would all that were promised keep theirs?
   * `held`: what will be sent before it, and after. */
  offer(spec: TwinSpec, nowUs: number, held: Held = NOTHING_HELD): TwinOffer {
    const alone = held.before.length + held.after.length === 0
    const before = alone ? this.#answerTo(spec, nowUs) : null
    if (before !== null) return before.offer
    this.#advance(nowUs)
    const sent = this.#sentOf(spec, nowUs)
    const found = this.#forecast(sent, nowUs, held)
    const ratio = this.#calibration.ratio("mixed")
    const firstTokenUs = nowUs + (found.firstTokenUs - nowUs) * ratio
    const surelyUs = nowUs + (firstTokenUs - nowUs) * (1 + this.#calibration.margin("mixed"))
    const keepsOthers = found.broken.length === 0 || this.#breaksAnyway(found, nowUs, held)
    const keepsOwn = surelyUs <= sent.deadlineUs && !found.ownPaceLate
    const known = this.fit.confident || this.inFlight < CAUTIOUS_REQUESTS
    const offer = {
      takes: spec.tier === "bestEffort" || (keepsOwn && keepsOthers && known),
      firstTokenUs,
      queuesUs: found.queuesUs * ratio,
      ...{ startsNext: found.startsNext, mayStartNext: found.mayStartNext, nextStepUs: found.nextStepUs },
      ...{ keepsOthers, addsUs: found.addsUs, leavesRoom: found.leavesRoom },
    }
    this.#asked = alone ? { spec, atUs: nowUs, predictedUs: found.firstTokenUs, offer } : null
    return offer
  }

  #answerTo(spec: TwinSpec, nowUs: number): { predictedUs: number; offer: TwinOffer } | null {
    const asked = this.#asked
    return asked?.spec === spec && nowUs - asked.atUs < HOLDS_US ? asked : null
  }

  snapshot(nowUs: number): Snapshot {
    this.#advance(nowUs)
    const ratio = this.#calibration.ratio("mixed")
    const started = Sent.startedOf(this.#waiting.values())
    let bestEffort = 0
    let prefillBacklogTokens = 0
    for (const sent of this.#waiting.values()) {
      if (sent.spec.tier === "bestEffort") bestEffort++
      else prefillBacklogTokens += sent.spec.promptTokens - sent.computed
    }
    for (const { spec } of this.#streams.values()) if (spec.tier === "bestEffort") bestEffort++
    return {
      nowUs,
      waiting: this.#waiting.size - started + this.#others.waiting,
      running: this.#streams.size + started + this.#others.running,
      kvUsedTokens: this.#others.kvUsedTokens ?? this.#heldTokens(),
      ...{ kvCachedTokens: 0, kvEvictedTokens: 0, speculation: [] },
      prefillUsPerToken: (this.zeroLoadPrefillUs(USUAL_TOKENS) - this.fit.entryUs) / USUAL_TOKENS,
      kvCapacityTokens: this.#rules.kvTokens === Infinity ? 0 : this.#rules.kvTokens,
      batchInFlight: this.inFlight > 0,
      ...{ bestEffort, prefillBacklogTokens },
      calibration: [1, ratio, 1],
    }
  }

  #sentOf(spec: TwinSpec, nowUs: number): Sent {
    return new Sent(spec, nowUs, (promptTokens) => this.zeroLoadPrefillUs(promptTokens))
  }

  #firstToken(id: RequestId, sent: Sent, nowUs: number): void {
    this.#advance(nowUs)
    this.#finish(id, sent, nowUs)
    this.#waiting.delete(id)
    const tokenBudget = this.#budget.firstToken(id, sent, this.#streams, this.#rules.tokenBudget)
    this.learnRules({ tokenBudget })
    this.#streams.set(id, sent)
    const tookUs = nowUs - sent.sentUs
    if (sent.predictedUs < Infinity) this.#calibration.observe("mixed", sent.predictedUs, tookUs, nowUs)
    if (this.#lone === id) this.#sawAlone(sent, tookUs)
    this.#lone = null
  }

  /** Its step has landed: what else was in it is computed as well. */
  #finish(id: RequestId, sent: Sent, nowUs: number): void {
    const run = this.#run(this.#boundaryUs, { leastRest: Infinity })
    const landsUs = run.step()
    const sameStep = nowUs - this.#boundaryUs < SAME_STEP * (landsUs - this.#boundaryUs)
    if (!run.line.some((prompt) => prompt.id === id)) {
      if (!sameStep) for (const prompt of run.line) this.#setComputed(prompt)
    } else if (this.#rules.order === "arrival") {
      // The engine was faster than believed: what came before is as good as done.
      for (const [other, { spec }] of this.#waiting) {
        if (other === id) break
        this.#setComputed({ id: other, computed: spec.promptTokens, started: true })
      }
    }
    sent.computedTo(sent.spec.promptTokens, this.#work, this.#rules.tokenBudget)
    this.#boundaryUs = nowUs
  }

  /** A first token without others beside: what it took is all its own. */
  #sawAlone({ spec, uncachedTokens }: Sent, us: number): void {
    const tokens = uncachedTokens
    const steps = Math.ceil(tokens / this.#rules.tokenBudget)
    const pairs = attentionPairs(spec.promptTokens - tokens, tokens)
    this.fit.observe({ entries: 1, steps, tokens, sequences: steps, pairs, us }, tokens)
  }

  /** Run what is believed of prompts up to now. A prompt that is not seen to be done is not done. */
  #advance(nowUs: number): void {
    if (this.#waiting.size === 0 || nowUs <= this.#boundaryUs) return
    // Streams that are seen to be alive have not ended.
    const run = this.#run(this.#boundaryUs, { leastRest: Infinity })
    run.catchUp(nowUs, MOST_STEPS)
    for (const prompt of run.line) this.#setComputed(prompt)
    this.#boundaryUs = run.nowUs
  }

  #setComputed({ id, computed, started }: Pick<Prompt, "id" | "computed" | "started">): void {
    const sent = this.#waiting.get(id)
    if (sent === undefined) return
    sent.computedTo(Math.min(computed, sent.spec.promptTokens - 1), this.#work, this.#rules.tokenBudget)
    sent.started = started
  }

  /** When the engine's step that runs now began. */
  #stepBeganUs(nowUs: number): number {
    if (this.#waiting.size > 0) return this.#boundaryUs
    return this.#streams.size > 0 ? this.#lastTokenUs : nowUs
  }

  /** The engine from `atUs` on. `leastRest`: streams go on for so many tokens at least. With `others`, those of other
   * gateways that wait count as well; whether they have come on is seen in /metrics alone. */
  #run(atUs: number, { leastRest = 0, others = false, offered, held = [] }: RunWith): EngineRun {
    const prompts: Prompt[] = [...held, ...(others ? this.#others.prompts(OFFERED - 1) : [])]
    for (const [id, sent] of this.#waiting) prompts.push(this.#promptOf(id, sent))
    if (offered !== undefined) prompts.push(offered)
    const streams: Stream[] = []
    for (const sent of this.#streams.values()) streams.push(this.#streamOf(sent, leastRest))
    streams.push(...this.#others.streams())
    const watched = offered?.id ?? null
    return new EngineRun({ rules: this.#rules, cost: this.fit.model, prompts, streams, atUs, watched })
  }

  #promptOf(id: RequestId, sent: Sent): Prompt {
    const { app, maxOutputTokens } = sent.spec
    return sent.prompt(id, this.fit.entryUs, this.#lengths.remaining(app, 0, maxOutputTokens))
  }

  /** They come at this moment, one after another. */
  #heldPrompts({ before, after }: Held, nowUs: number): Prompt[] {
    return [...before, ...after].map((spec, i) => {
      const prompt = this.#promptOf(HELD + i, this.#sentOf(spec, nowUs))
      return { ...prompt, readyUs: prompt.readyUs + (i - before.length + 0.5) * 1e-3 }
    })
  }

  #streamOf(sent: Sent, leastRest: number): Stream {
    const { spec, output } = sent
    const rest = this.#lengths.remaining(spec.app, output, Math.max(output + 1, spec.maxOutputTokens))
    return sent.stream(Math.max(leastRest, rest))
  }

  #forecast(sent: Sent, nowUs: number, held = NOTHING_HELD): Forecast {
    const offered = this.#promptOf(OFFERED, sent)
    // Behind what was sent in this very moment.
    offered.readyUs += 1e-4
    const run = this.#run(this.#stepBeganUs(nowUs), {
      ...{ others: true, offered },
      held: this.#heldPrompts(held, nowUs),
    })
    const prompts = [...run.line]
    const start = lookAhead(run, offered, this.fit.model.residualSigma, nowUs)
    const reservedTokens = this.#reserveTokens(nowUs)
    const leavesRoom =
      sent.spec.tier === "slo" ||
      this.idle ||
      run.peakKvTokens() <= KV_SHARE * this.#rules.kvTokens - reservedTokens
    const [endUs, broken, ownPaceLate] = [run.nowUs, run.broken(prompts), run.latePaces.has("watched")]
    const aloneUs = this.#rules.mixed ? this.#computesUs(1) : 0
    const addsUs = this.#computesUs(Sent.owedOf([...this.#waiting.values(), sent])) - aloneUs
    const { firstTokenUs } = offered
    return { ...start, addsUs, firstTokenUs, endUs, broken, ownPaceLate, leavesRoom }
  }

  /** Were the same promises broken without the offered request? */
  #breaksAnyway({ broken, endUs }: Forecast, nowUs: number, held: Held): boolean {
    const run = this.#run(this.#stepBeganUs(nowUs), {
      ...{ others: true, held: this.#heldPrompts(held, nowUs) },
    })
    const prompts = [...run.line]
    for (let steps = 0; steps < MOST_STEPS && run.nowUs < endUs; steps++) if (run.step(nowUs) < 0) break
    run.lookAhead()
    const anyway = new Set(run.broken(prompts))
    return broken.every((promise) => anyway.has(promise))
  }

  #reserveTokens(nowUs: number): number {
    const promised = this.#heldTokens(({ spec }) => spec.tier === "slo")
    return this.#reserve.tokens(promised, this.#rules.kvTokens, nowUs)
  }

  #heldTokens(counts?: (sent: Sent) => boolean): number {
    return Sent.heldTokensOf(this.#streams.values(), this.#waiting.values(), counts)
  }
}
