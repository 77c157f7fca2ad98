/** From a validated API request to a submission of the driver: chat template, tokens, context check, prefix hashes. */
import type { RejectReason, RequestId } from "../core/protocol.ts"
import type { SeenStart } from "../core/seen.ts"
import type { Engine, Sampling } from "../engine/port.ts"
import type { UserError } from "../errors.ts"
import { Backlog } from "../replica/backlog.ts"
import type { Claim, ReplicaDriver, Requested, Reservation, Submission } from "../replica/driver.ts"
import type { Generation, Prompt } from "../replica/generation.ts"
import { FiguresByTenant } from "../telemetry/tenant-figures.ts"
import { Answer, type AnswerSink } from "../text/answer.ts"
import { afterThinking, isCalling } from "../text/constraint/grammar.ts"
import type { TextOptions } from "../text/text-stream.ts"
import { formatOf } from "../text/tools/formats.ts"
import { toolOf } from "../text/tools/parts.ts"
import { BadWords } from "./bad-words.ts"
import { type BegunAnswer, goOn, isOver } from "./begun.ts"
import { countdown } from "./countdown.ts"
import { lastOf, outputLimit, promptTooLong } from "./lengths.ts"
import { PrefixHasher, prefixHashes, sessionNumber } from "./prefix.ts"
import { type ParseSpecial, PromptReader, parsesSpecial } from "./prompt-reader.ts"
import { queueRefusal } from "./refusal.ts"
import { SchemaShares } from "./schema-shares.ts"
import { MOST_NAMED, OTHERS, type Tenant, Tenants } from "./tenants.ts"
import { TokenReader } from "./token-reader.ts"

/** One request as the API layer hands it on. */
export interface GenerationRequest extends Generation {
  /** performance.now() when the request's head was received: SLOs count from here. */
  arrivalMs: number
  /** Aborted when the client goes away. */
  signal: AbortSignal
  /** As its client sent it, for replicas that are other servers of the same API. */
  body?: Readonly<Record<string, unknown>>
  /** Headers that name its trace, likewise. */
  trace?: Readonly<Record<string, string>>
}

/** One answer to a request. */
export interface Choice {
  /** Its seed is the request's, plus this. */
  index: number
  sink: AnswerSink
  /** After each step: the tokens that the answer has of it. Its delta, if any, came just before. */
  onTokens?: (tokens: readonly number[]) => void
  /** How it began, before its first tokens. */
  onStart?: (start: SeenStart) => void
  /** It goes on where another replica stopped; null or left out: it begins here. */
  begun?: BegunAnswer | null
}

/** What all choices of a request have in common. */
export interface Plan {
  prompt: Int32Array
  maxOutputTokens: number
  /** With the seed of the first. */
  sampling: Sampling
  opensThinking: boolean
  thinking: boolean
  /** Calls that its grammar lets come must keep to it. */
  strict: boolean
}

export interface IntakeOptions {
  /** Longest answer when a request does not say. */
  defaultMaxTokens?: number
  /** Whether texts may spell control tokens. Default: where a request asks for it. */
  parseSpecial?: ParseSpecial
  /** Default: one. */
  tenants?: Tenants
}

/** Several at once, or what asks for no SLO, can be promised nothing. */
export function claimOf({ slo }: Pick<Generation, "slo">, choices: number): Claim {
  return choices === 1 && slo.tier === "slo" ? "promise" : "room"
}

/** Answers of a model without a chat end token would fill the context; no client waits for that. */
export const DEFAULT_MAX_TOKENS = 1024

export class Intake {
  readonly engine: Engine
  readonly driver: ReplicaDriver
  readonly #reader: PromptReader
  readonly #parseSpecial: ParseSpecial
  readonly #defaultMaxTokens: number
  readonly #tenants: Tenants
  readonly #schemas: SchemaShares
  readonly #backlog: Backlog
  readonly #badWords: BadWords
  readonly figures: FiguresByTenant
  /** Texts as tokens, for clients that ask for them. */
  readonly tokens: TokenReader

  constructor(engine: Engine, driver: ReplicaDriver, options: IntakeOptions = {}) {
    this.engine = engine
    this.driver = driver
    this.#backlog = new Backlog(() => driver.snapshot())
    this.#defaultMaxTokens = options.defaultMaxTokens ?? DEFAULT_MAX_TOKENS
    this.#parseSpecial = options.parseSpecial ?? "asked"
    this.#tenants = options.tenants ?? new Tenants()
    const { weights, shareOf } = this.#tenants
    const shares = { shareOf, weightOf: (number: number) => weights[number] ?? 1 }
    this.#schemas = new SchemaShares(engine.constraints, shares)
    this.#reader = new PromptReader(engine, shares)
    this.#badWords = new BadWords(engine.tokenizer)
    this.tokens = new TokenReader(engine, this.#reader, this.#parseSpecial)
    this.figures = new FiguresByTenant({
      ...{ names: this.#tenants.labelled, mostOthers: MOST_NAMED, rest: OTHERS },
    })
  }

  /** Submits the requests of one exchange, each once for each of its sinks: answers to one prompt that differ in their
   * seeds; the first request's sinks come first. All are of one tenant. All find a place in the queue, or none. What becomes of them goes to
   * the sinks. Throws UserError for what cannot be served. */
  async start(requests: readonly GenerationRequest[], sinks: readonly AnswerSink[]): Promise<void> {
    const tenant = this.tenant(requests[0]!.tenant)
    const places = this.driver.reserve(sinks.length, tenant.number, claimOf(requests[0]!, sinks.length))
    if (typeof places === "string") throw this.#refused(places, tenant, sinks.length)
    try {
      const plans = await Promise.all(requests.map((request) => this.plan(request, tenant)))
      if (!this.isTaken(places, requests[0]!, tenant, plans[0] ?? null, { index: 0 })) {
        // Its own place is none of those that keep it out.
        this.driver.giveBack(places)
        throw this.#refused(this.driver.refused("queueFull"), tenant, sinks.length)
      }
      const ended = countdown(sinks.length, await this.hold(plans, tenant))
      const each = sinks.length / requests.length
      for (const [i, request] of requests.entries()) {
        const choices = sinks.slice(i * each, (i + 1) * each).map((sink, index) => ({ sink, index }))
        this.submit(places, tenant, request, plans[i] ?? null, choices, ended)
      }
    } finally {
      this.driver.giveBack(places)
    }
  }

  /** Of a name, as the driver knows it. */
  tenant(name: string): Tenant {
    return this.#tenants.of(name, (number) => this.driver.queue.takenBy(number) === 0)
  }

  #refused(reason: RejectReason, tenant: Tenant, choices: number): UserError {
    const { queue, watch } = this.driver
    if (reason === "queueFull" && choices <= queue.limit) this.figures.of(tenant.name).refused += choices
    const backlogMs = this.#backlog.ms
    return queueRefusal(reason, { queue, tenant, choices, backlogMs, detail: watch.detail })
  }

  /** Reads the prompt. null when the client has gone before. Throws UserError for what cannot be served. */
  async plan(request: GenerationRequest, tenant: Tenant): Promise<Plan | null> {
    const read = await this.#read(request, tenant)
    if (read === null) return null
    const { opensThinking } = read
    const { contextTokens } = this.engine.limits
    const prompt = lastOf(read.tokens, request, contextTokens)
    const maxOutputTokens = outputLimit(prompt.length, request, contextTokens, this.#defaultMaxTokens)
    const wanted = request.reasoning ?? (request.slo.thinking || opensThinking)
    const thinks = request.thinkingTokens === null ? wanted : request.thinkingTokens > 0
    const { slo } = request.slo
    const timed = Number.isFinite(slo.tpotUs) || Number.isFinite(slo.thinkingTpotUs)
    const held = this.#sampling(request, wanted, opensThinking)
    const sampling = await this.#badWords.keepOut(request, held)
    const tools = request.prompt.kind === "chat" ? request.prompt.tools : null
    const strict = tools?.some((tool) => toolOf(tool).strict) ?? false
    const thinking = thinks && timed
    return { prompt, maxOutputTokens, sampling, opensThinking, thinking, strict }
  }

  /** Gives the driver a request's choices, which have their places. Answers with their ids; none where the client has
   * gone before. `ended` is called for each when it has ended. */
  submit(
    places: Reservation,
    tenant: Tenant,
    request: GenerationRequest,
    plan: Plan | null,
    choices: readonly Choice[],
    ended: () => void,
  ): RequestId[] {
    if (plan === null || request.signal.aborted) {
      for (const { sink } of choices) {
        sink.end({ kind: "cancelled" })
        ended()
      }
      return []
    }
    // The others share the prompt's KV, once there is any to share.
    const shares = plan.prompt.length > this.engine.limits.blockTokens
    const ids: RequestId[] = []
    let first: RequestId | undefined
    for (const submission of this.#submissions(request, tenant, plan, choices, ended)) {
      const id = this.driver.submit(
        shares && first !== undefined ? { ...submission, after: first } : submission,
        places,
      )
      ids.push(id)
      // One whose tokens are all out computes nothing.
      if (!isOver(submission)) first ??= id
      request.signal.addEventListener("abort", () => this.driver.cancel(id), { once: true })
    }
    return ids
  }

  /** A full queue takes what can be promised only: whether that is so of the one that has these places. */
  isTaken(
    places: Reservation,
    request: GenerationRequest,
    tenant: Tenant,
    plan: Plan | null,
    choice: Pick<Choice, "index" | "begun">,
  ): boolean {
    if (!places.onPromise || plan === null) return true
    return this.driver.promises(this.spec(request, tenant, plan, choice))
  }

  /** What the core would be told of a choice. Throws UserError where it cannot go on here. */
  spec(
    request: GenerationRequest,
    tenant: Tenant,
    plan: Plan,
    choice: Pick<Choice, "index" | "begun">,
  ): Requested {
    return this.#prepare(request, tenant, plan, { ...choice, sink: SILENT }).requested
  }

  #hasher({ prefixSalt }: Tenant): PrefixHasher {
    return new PrefixHasher(this.engine.limits.blockTokens, prefixSalt)
  }

  /** All are made before any is submitted: one that cannot go on fails them all. */
  #submissions(
    request: GenerationRequest,
    tenant: Tenant,
    plan: Plan,
    choices: readonly Choice[],
    ended: () => void,
  ): Submission[] {
    try {
      return choices.map((choice) => this.#submission(request, tenant, plan, choice, ended))
    } catch (error) {
      for (const _ of choices) ended()
      throw error
    }
  }

  #submission(
    request: GenerationRequest,
    tenant: Tenant,
    plan: Plan,
    choice: Choice,
    ended: () => void,
  ): Submission {
    const { requested, answer, hasher } = this.#prepare(request, tenant, plan, choice)
    const figures = this.figures.of(tenant.name)
    let started = requested.begun !== undefined
    return {
      ...requested,
      onTokens: (row) => {
        if (!started) this.#tellStart(row.id, choice.onStart)
        started = true
        const prefix = this.#sharesPrefix(request) ? hasher.push(row.tokens) : []
        const seen = answer.onTokens(row)
        choice.onTokens?.(row.tokens.slice(0, seen.tokens))
        figures.outputTokens += seen.tokens
        return { ...seen, ...(prefix.length > 0 && { prefix }) }
      },
      onEnd: (end) => {
        ended()
        if (end.outcome !== null) figures.ended(end.reason, end.outcome)
        answer.onEnd(end)
      },
    }
  }

  /** A choice as the core is told of it, its text and the hashes of its KV blocks: all as far as it has come. */
  #prepare(request: GenerationRequest, tenant: Tenant, plan: Plan, { index, sink, begun }: Choice) {
    const { slo, tier } = request.slo
    const hasher = this.#hasher(tenant)
    const answer = this.#answer(request, plan, sink)
    const requested: Requested = {
      app: request.slo.class.app,
      tenant: tenant.number,
      session: request.session === null ? -1 : sessionNumber(request.session, tenant.sessionSalt),
      prompt: plan.prompt,
      prefix: this.#sharesPrefix(request) ? hasher.push(plan.prompt) : [],
      maxOutputTokens: plan.maxOutputTokens,
      sampling: { ...plan.sampling, seed: (plan.sampling.seed + index) >>> 0 },
      slo,
      tier,
      worth: request.slo.class.worth,
      thinking: plan.thinking,
      ...(this.#readsAllRows(request) && { allRows: true }),
      arrivalUs: Math.round(this.driver.nowUs - (performance.now() - request.arrivalMs) * 1000),
    }
    if (!begun) return { requested, answer, hasher }
    const { vocabSize } = this.engine.model
    return { requested: goOn(begun, requested, { answer, hasher, vocabSize }), answer, hasher }
  }

  #answer(request: GenerationRequest, plan: Plan, sink: AnswerSink): Answer {
    const chat = request.prompt.kind === "chat" ? request.prompt : null
    return new Answer(this.engine.tokenizer, sink, {
      promptTokens: plan.prompt.length,
      thinking: plan.thinking,
      thinkingTokens: request.thinkingTokens,
      firstToken: plan.prompt[0]!,
      silent: request.maxTokens === 0,
      text: {
        stops: request.stops,
        ...(request.stopTokens && { stopTokens: new Set(request.stopTokens) }),
        minTokens: plan.sampling.minTokens,
        think: chat === null ? null : { opened: plan.opensThinking },
        calls: chat === null ? null : this.#calls(chat.tools, request, isCalling(plan.sampling.grammar)),
        singleCall: request.singleCall,
      },
    })
  }

  /** How calls are read; also where there are no tools, of a model whose thoughts are written in the same marks. */
  #calls(
    given: readonly unknown[] | null,
    { jsonIsText = false, callable }: Generation,
    held: boolean,
  ): TextOptions["calls"] {
    const format = formatOf(this.engine.model.chatTemplate)
    if (given === null && !format.thinks) return null
    const tools = (given ?? []).map(toolOf)
    const called = held ? tools.filter(({ name }) => callable?.includes(name) ?? true) : tools
    return { format, tools: called, bare: !jsonIsText, held }
  }

  /** Of what others have computed there are no log-probabilities, and it is in no mean. */
  #sharesPrefix(request: GenerationRequest): boolean {
    return !this.#readsAllRows(request)
  }

  #readsAllRows({ sampling }: GenerationRequest): boolean {
    const isMean = sampling.embedding === true && this.engine.model.pooling === "mean"
    return Boolean(sampling.promptLogprobs) || isMean
  }

  #tellStart(id: RequestId, tell: Choice["onStart"]): void {
    const start = this.driver.replica.startOf(id)
    if (start !== null) tell?.(start)
  }

  /** Compiles the grammars of an exchange; the answer lets them go. */
  hold(plans: readonly (Plan | null)[], { number }: Tenant): Promise<() => void> {
    return this.#schemas.holdAll(
      plans.filter((plan) => plan !== null),
      number,
    )
  }

  /** A format holds for the answer, not for the thoughts before it. */
  #sampling({ sampling, prompt }: GenerationRequest, wanted: boolean, opened: boolean): Sampling {
    if (sampling.grammar === null || prompt.kind !== "chat" || !(wanted || opened)) return sampling
    return { ...sampling, grammar: afterThinking(sampling.grammar, opened) }
  }

  /** Runs the text side once, so that the first user does not wait for it to be compiled. */
  async warmUp(): Promise<void> {
    const prompt = {
      kind: "chat",
      messages: [{ role: "user", content: "hi" }],
      tools: null,
      variables: {},
    } as const
    const { signal } = new AbortController()
    const { contextTokens } = this.engine.limits
    const tooLong = (least: number) => promptTooLong(contextTokens, least, 1)
    const read = await this.#reader.read(prompt, { parseSpecial: false, signal, tooLong })
    prefixHashes(read!.tokens, this.engine.limits.blockTokens)
  }

  async close(): Promise<void> {
    await this.#reader.close()
  }

  #read(request: GenerationRequest, { number: tenant }: Tenant) {
    const { signal, maxTokens } = request
    const { contextTokens } = this.engine.limits
    const tooLong = (least: number) => promptTooLong(contextTokens, least, maxTokens ?? 1, "at least ")
    return this.#reader.read(this.#withThinking(request), {
      parseSpecial: parsesSpecial(request.parseSpecial, this.#parseSpecial),
      ...{ tenant, signal },
      tooLong,
    })
  }

  #withThinking({ prompt, reasoning, slo }: GenerationRequest): Prompt {
    const think = reasoning ?? (slo.thinking ? true : null)
    if (prompt.kind !== "chat" || think === null) return prompt
    return { ...prompt, variables: { enable_thinking: think, ...prompt.variables } }
  }
}

const SILENT: AnswerSink = { delta() {}, end() {} }
