/** From a validated API request to a submission of the driver: chat template, tokens, context check, prefix hashes. */
import type { RejectReason, RequestId } from "../core/protocol.ts"
import type { Engine, Sampling } from "../engine/port.ts"
import { UserError, userError } from "../errors.ts"
import type { ReplicaDriver, Reservation, Submission } from "../replica/driver.ts"
import { FiguresByTenant } from "../telemetry/tenant-figures.ts"
import { Answer, type AnswerSink } from "../text/answer.ts"
import { afterThinking } from "../text/constraint/grammar.ts"
import { PrefixHasher, prefixHashes, sessionNumber } from "./prefix.ts"
import { type ParseSpecial, type Prompt, PromptReader } from "./prompt-reader.ts"
import { SchemaShares } from "./schema-shares.ts"
import type { ResolvedSlo } from "./slo-resolve.ts"
import { MOST_NAMED, OTHERS, type Tenant, Tenants } from "./tenants.ts"

/** One request as the API layer hands it on: validated, with its SLO. */
export interface GenerationRequest {
  prompt: Prompt
  /** Name of the tenant that it is of. */
  tenant: string
  /** null: what the context leaves, up to the default of IntakeOptions. */
  maxTokens: number | null
  sampling: Sampling
  /** Whether its texts may spell control tokens: the request's word, or null for the server's. */
  parseSpecial: boolean | null
  stops: readonly string[]
  /** The answer ends with its first tool call. */
  singleCall: boolean
  slo: ResolvedSlo
  /** Client's name of its tool session, or null. Another tenant's session of that name is another. */
  session: string | null
  /** Whether the model shall think: the request's word, or null for the class's and the template's. */
  reasoning: boolean | null
  /** The first n output tokens count as thinking, whatever their text; null: `<think>` decides. */
  thinkingTokens: number | null
  /** performance.now() when the request's head was received: SLOs count from here. */
  arrivalMs: number
  /** Aborted when the client goes away. */
  signal: AbortSignal
}

/** What all choices of a request have in common. */
interface Plan {
  prompt: Int32Array
  maxOutputTokens: number
  /** With the seed of the first. */
  sampling: Sampling
  opensThinking: boolean
  thinking: boolean
}

export interface IntakeOptions {
  /** Longest answer when a request does not say. */
  defaultMaxTokens?: number
  /** Whether texts may spell control tokens. Default: where a request asks for it. */
  parseSpecial?: ParseSpecial
  /** Default: one. */
  tenants?: Tenants
}

/** Answers of a model without a chat end token would fill the context; no client waits for that. */
const DEFAULT_MAX_TOKENS = 1024

export class Intake {
  readonly engine: Engine
  readonly driver: ReplicaDriver
  readonly #reader: PromptReader
  readonly #parseSpecial: ParseSpecial
  readonly #defaultMaxTokens: number
  readonly #tenants: Tenants
  readonly #schemas: SchemaShares
  readonly figures: FiguresByTenant

  constructor(engine: Engine, driver: ReplicaDriver, options: IntakeOptions = {}) {
    this.engine = engine
    this.driver = driver
    this.#defaultMaxTokens = options.defaultMaxTokens ?? DEFAULT_MAX_TOKENS
    this.#parseSpecial = options.parseSpecial ?? "asked"
    this.#tenants = options.tenants ?? new Tenants()
    const { weights, shareOf } = this.#tenants
    const shares = { shareOf, weightOf: (number: number) => weights[number] ?? 1 }
    this.#schemas = new SchemaShares(engine.constraints, shares)
    this.#reader = new PromptReader(engine, shares)
    this.figures = new FiguresByTenant({
      ...{ names: this.#tenants.configured, mostOthers: MOST_NAMED, rest: OTHERS },
    })
  }

  /** Submits the requests of one exchange, each once for each of its sinks: answers to one prompt that differ in their
   * seeds; the first request's sinks come first. All are of one tenant. All find a place in the queue, or none. What becomes of them goes to
   * the sinks. Throws UserError for what cannot be served. */
  async start(requests: readonly GenerationRequest[], sinks: readonly AnswerSink[]): Promise<void> {
    const tenant = this.#tenants.of(requests[0]!.tenant, (number) => this.driver.queue.takenBy(number) === 0)
    const places = this.driver.reserve(sinks.length, tenant.number)
    if (typeof places === "string") throw this.#refused(places, tenant, sinks.length)
    try {
      const plans = await Promise.all(requests.map((request) => this.#plan(request, tenant)))
      const ended = countdown(sinks.length, await this.#hold(plans, tenant))
      const each = sinks.length / requests.length
      for (const [i, request] of requests.entries())
        this.#submit(places, tenant, request, plans[i] ?? null, sinks.slice(i * each, (i + 1) * each), ended)
    } finally {
      this.driver.giveBack(places)
    }
  }

  #refused(reason: RejectReason, { name, number }: Tenant, choices: number): UserError {
    const { queue } = this.driver
    const { limit, taken } = queue
    if (reason === "shuttingDown") return userError("shutting_down")
    if (reason === "engineDown") return userError("engine_down", { detail: this.driver.watch.detail })
    if (choices > limit) return userError("queue_too_small", { limit, choices }, { param: "n" })
    this.figures.of(name).refused += choices
    const share = `; of its places tenant ${name} has ${queue.takenBy(number)}, and its share is ${queue.shareOf(number)}`
    return userError("queue_full", { limit, taken, choices, share: queue.shared ? share : "" })
  }

  /** null when the client has gone before. */
  async #plan(request: GenerationRequest, tenant: Tenant): Promise<Plan | null> {
    const read = await this.#read(request, tenant)
    if (read === null) return null
    const { tokens: prompt, opensThinking } = read
    const maxOutputTokens = this.#outputLimit(prompt.length, request.maxTokens)
    const wanted = request.reasoning ?? (request.slo.thinking || opensThinking)
    const thinks = request.thinkingTokens === null ? wanted : request.thinkingTokens > 0
    const { slo } = request.slo
    const timed = Number.isFinite(slo.tpotUs) || Number.isFinite(slo.thinkingTpotUs)
    const sampling = this.#sampling(request, wanted, opensThinking)
    return { prompt, maxOutputTokens, sampling, opensThinking, thinking: thinks && timed }
  }

  #submit(
    places: Reservation,
    tenant: Tenant,
    request: GenerationRequest,
    plan: Plan | null,
    sinks: readonly AnswerSink[],
    ended: () => void,
  ): void {
    if (plan === null || request.signal.aborted) {
      for (const sink of sinks) {
        sink.end({ kind: "cancelled" })
        ended()
      }
      return
    }
    // The others share the prompt's KV, once there is any to share.
    const shares = plan.prompt.length > this.engine.limits.blockTokens
    let first: RequestId | null = null
    for (const [choice, sink] of sinks.entries()) {
      const seed = (plan.sampling.seed + choice) >>> 0
      const submission = this.#submission(request, tenant, { ...plan.sampling, seed }, plan, sink, ended)
      const id = this.driver.submit(
        shares && first !== null ? { ...submission, after: first } : submission,
        places,
      )
      first ??= id
      request.signal.addEventListener("abort", () => this.driver.cancel(id), { once: true })
    }
  }

  #submission(
    request: GenerationRequest,
    tenant: Tenant,
    sampling: Sampling,
    plan: Plan,
    sink: AnswerSink,
    ended: () => void,
  ): Submission {
    const { prompt, thinking } = plan
    const { slo, tier } = request.slo
    const answer = new Answer(this.engine.tokenizer, sink, {
      promptTokens: prompt.length,
      thinking,
      thinkingTokens: request.thinkingTokens,
      text: {
        stops: request.stops,
        minTokens: sampling.minTokens,
        think: request.prompt.kind === "chat" ? { opened: plan.opensThinking } : null,
        tools: request.prompt.kind === "chat" && request.prompt.tools !== null,
        singleCall: request.singleCall,
      },
    })
    const figures = this.figures.of(tenant.name)
    const hasher = new PrefixHasher(this.engine.limits.blockTokens, tenant.prefixSalt)
    return {
      app: request.slo.class.app,
      tenant: tenant.number,
      session: request.session === null ? -1 : sessionNumber(request.session, tenant.sessionSalt),
      prompt,
      prefix: hasher.push(prompt),
      maxOutputTokens: plan.maxOutputTokens,
      sampling,
      slo,
      tier,
      worth: request.slo.class.worth,
      thinking,
      arrivalUs: Math.round(this.driver.nowUs - (performance.now() - request.arrivalMs) * 1000),
      onTokens: (row) => {
        const prefix = hasher.push(row.tokens)
        const seen = answer.onTokens(row)
        figures.outputTokens += seen.tokens ?? row.tokens.length
        return { ...seen, ...(prefix.length > 0 && { prefix }) }
      },
      onEnd: (end) => {
        ended()
        if (end.outcome !== null) figures.ended(end.reason, end.outcome)
        answer.onEnd(end)
      },
    }
  }

  /** Compiles the grammars of an exchange; the answer lets them go. */
  async #hold(plans: readonly (Plan | null)[], { number }: Tenant): Promise<() => void> {
    const grammars = new Set(plans.flatMap((plan) => plan?.sampling.grammar ?? []))
    const releases: (() => void)[] = []
    const release = () => {
      for (const one of releases) one()
    }
    try {
      for (const grammar of grammars) releases.push(await this.#schemas.hold(grammar, number))
    } catch (error) {
      release()
      throw error
    }
    return release
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
    const tooLong = (least: number) => this.#tooLong(least, 1)
    const read = await this.#reader.read(prompt, { parseSpecial: false, signal, tooLong })
    prefixHashes(read!.tokens, this.engine.limits.blockTokens)
  }

  async close(): Promise<void> {
    await this.#reader.close()
  }

  #read(request: GenerationRequest, { number: tenant }: Tenant) {
    const { signal, maxTokens } = request
    const tooLong = (least: number) => this.#tooLong(least, maxTokens ?? 1, "at least ")
    return this.#reader.read(this.#withThinking(request), {
      parseSpecial: this.#parses(request),
      ...{ tenant, signal },
      tooLong,
    })
  }

  #parses({ parseSpecial }: GenerationRequest): boolean {
    if (parseSpecial && this.#parseSpecial === "never")
      throw new UserError(
        "Invalid 'parse_special': this server reads all texts as text (--parse-special never). Leave it out.",
        { code: "invalid_value", param: "parse_special" },
      )
    return parseSpecial ?? this.#parseSpecial === "always"
  }

  #withThinking({ prompt, reasoning, slo }: GenerationRequest): Prompt {
    const think = reasoning ?? (slo.thinking ? true : null)
    if (prompt.kind !== "chat" || think === null) return prompt
    return { ...prompt, variables: { enable_thinking: think, ...prompt.variables } }
  }

  #outputLimit(promptTokens: number, wanted: number | null): number {
    const limit = this.engine.limits.contextTokens
    const completion = wanted ?? Math.min(this.#defaultMaxTokens, Math.max(1, limit - promptTokens))
    if (promptTokens + completion <= limit) return completion
    throw this.#tooLong(promptTokens, completion)
  }

  #tooLong(prompt: number, completion: number, about = ""): UserError {
    const limit = this.engine.limits.contextTokens
    return userError(
      "context_length_exceeded",
      { limit, requested: `${about}${prompt + completion}`, prompt: `${about}${prompt}`, completion },
      { param: "messages" },
    )
  }
}

/** Calls `done` when it has been called so often. */
function countdown(count: number, done: () => void): () => void {
  let left = count
  return () => {
    if (--left === 0) done()
  }
}
