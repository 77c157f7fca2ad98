/** An independent bookkeeper for simulated fleets: sees every effect, and refuses the first that cannot be right. */
import { assert } from "../core/assert.ts"
import type { Batch, Effect, EngineLimits, Event, RequestId } from "../core/protocol.ts"
import type { FleetOptions, FleetResult } from "./fleet.ts"
import type { FuzzCase } from "./fuzz-case.ts"
import { KvAudit } from "./kv-audit.ts"
import { auditAccount } from "./time-audit.ts"
import type { SimRequest } from "./world.ts"

/** One engine that goes by the plan, whose requests share nothing. */
function countsKv({ replicas, requests }: FleetOptions): boolean {
  const { engineOwnsKv, limits } = replicas[0]!
  const alone = replicas.length === 1 && !engineOwnsKv && limits.unifiedKv
  return alone && requests.every(({ spec }) => spec.session < 0 && spec.prefix.length === 0)
}

interface Seen {
  request: SimRequest
  tokens: number
  lastTokenUs: number
  longestGapUs: number
  promised: boolean
  ended: boolean
}

export class Audit {
  #accounts = new Map<RequestId, Seen>()
  #batches = new Map<number, number>()
  /** By replica, of batches in flight: those that should yield a token. */
  #sampling = new Map<number, Map<number, Set<RequestId>>>()
  #limits: EngineLimits
  #mayFail: boolean
  /** Batches are planned on tokens that are yet to come; and what the engine has may be more than the core knows of. */
  #ahead: boolean
  #owned: boolean
  #tokenLag: number
  #kv: KvAudit | null
  #nowUs = 0
  /** Requests with a late token after their SLO was promised. */
  readonly broken = new Set<RequestId>()
  promises = 0
  tokens = 0

  constructor({ fleet }: Pick<FuzzCase, "fleet">) {
    this.#limits = fleet.replicas[0]!.limits
    this.#mayFail = (fleet.faults ?? []).some(({ kind }) => kind === "failedStep")
    this.#ahead = (fleet.replicas[0]!.depth ?? 1) > 1
    this.#tokenLag = fleet.replicas[0]!.tokenLag ?? 0
    this.#owned = fleet.replicas[0]!.engineOwnsKv ?? false
    this.#kv = countsKv(fleet) ? new KvAudit(this.#limits) : null
    for (const request of fleet.requests) this.#expect(request)
  }

  /** The same fleet, watched. */
  watched(fleet: FleetOptions): FleetOptions {
    return {
      ...fleet,
      onEffect: (effect, nowUs, replica) => {
        this.#see(effect, nowUs, replica)
        fleet.onEffect?.(effect, nowUs, replica)
      },
      onEvent: (event, nowUs, replica) => {
        this.#hear(event, replica)
        fleet.onEvent?.(event, nowUs, replica)
      },
      follow: (id, nowUs) => {
        const next = fleet.follow?.(id, nowUs) ?? null
        // A follower comes after what it follows.
        if (next !== null) this.#expect({ ...next, atUs: Math.max(next.atUs, nowUs + 1) })
        return next
      },
    }
  }

  /** After the run: no request was lost. */
  finish(result: FleetResult): void {
    for (const [id, { ended }] of this.#accounts) assert(ended, `request ${id} never ended`)
    assert(result.endUs >= this.#nowUs, "the end came before the last effect")
  }

  #hear(event: Event, replica: number): void {
    if (event.type === "stepDone" || event.type === "stepFailed")
      this.#samplingOf(replica).delete(event.batch)
    if (event.type === "stepDone") this.#kv?.lands(event.batch, event.results)
    else if (event.type === "stepFailed") this.#kv?.lands(event.batch, null)
  }

  #expect(request: SimRequest): void {
    this.#accounts.set(request.spec.id, {
      ...{ request, tokens: 0, lastTokenUs: Infinity, longestGapUs: 0 },
      ...{ promised: false, ended: false },
    })
  }

  #see(effect: Effect, nowUs: number, replica: number): void {
    assert(nowUs >= this.#nowUs, "time runs backwards")
    this.#nowUs = nowUs
    if (effect.type === "run") this.#run(effect.batch, replica)
    else if (effect.type === "wake") assert(effect.atUs > nowUs, "a timer in the past")
    else this.#request(effect)
  }

  #request(effect: Exclude<Effect, { type: "run" } | { type: "wake" }>): void {
    const account = this.#accounts.get(effect.id)
    assert(account !== undefined, `effect ${effect.type} for unknown request ${effect.id}`)
    assert(!account.ended, `effect ${effect.type} for ended request ${effect.id}`)
    if (effect.type === "token") this.#token(account, effect.count, effect.lateUs)
    else if (effect.type === "admitted") this.#promise(account)
    else if (effect.type === "rejected") account.ended = true
    else if (effect.type === "finished") this.#finished(account, effect)
  }

  #promise(account: Seen): void {
    if (!account.promised) this.promises++
    account.promised = true
  }

  #token(account: Seen, count: number, lateUs: number): void {
    account.tokens += count
    account.longestGapUs = Math.max(account.longestGapUs, this.#nowUs - account.lastTokenUs)
    account.lastTokenUs = this.#nowUs
    this.tokens += count
    const { spec, outputTokens, atUs, cancelAtUs = Infinity } = account.request
    // One that would be cancelled before it comes is not cancelled at all.
    assert(this.#nowUs <= cancelAtUs || cancelAtUs < atUs, `request ${spec.id} runs on, though cancelled`)
    assert(account.tokens <= outputTokens, `request ${spec.id} has more tokens than were drawn`)
    if (lateUs > 0 && account.promised) this.broken.add(spec.id)
  }

  #finished(account: Seen, { id, reason, outcome }: Extract<Effect, { type: "finished" }>): void {
    account.ended = true
    this.#kv?.ended(id)
    const { outputTokens, spec, cancelAtUs } = account.request
    assert(outcome.outputTokens === account.tokens, `tokens of request ${id} were not all seen`)
    const whole = reason === "stop" || reason === "length"
    assert(!whole || account.tokens === outputTokens, `request ${id} ended with tokens missing`)
    assert(reason !== "cancelled" || cancelAtUs !== undefined, `request ${id} was never cancelled`)
    assert(reason !== "failed" || this.#mayFail, `request ${id} failed though no step did`)
    assert(outcome.maxGapUs === account.longestGapUs, `request ${id} paused longer than it says`)
    assert(outcome.arrivalUs === account.request.atUs, `request ${id} forgot when it arrived`)
    assert(outcome.promptTokens === spec.promptTokens, `request ${id} changed its prompt`)
    auditAccount(outcome, `request ${id}`)
    const judged = outcome.stages.slice(1).reduce((n, { tokens }) => n + tokens, 0)
    assert(judged === account.tokens, `${judged} of ${account.tokens} tokens of request ${id} were judged`)
  }

  #run(batch: Batch, replica: number): void {
    const expected = (this.#batches.get(replica) ?? 0) + 1
    assert(batch.number === expected, `batch ${batch.number} of replica ${replica} comes out of turn`)
    this.#batches.set(replica, expected)
    this.#kv?.runs(batch)
    if (!this.#owned) this.#knowsTokens(batch, replica)
    const { kvTokens, blockTokens, maxBatchTokens, maxSequences, unifiedKv, maxAdapters } = this.#limits
    let tokens = 0
    let blocks = 0
    const seen = new Set<RequestId>()
    const adapters = new Set<number>()
    for (const item of batch.items) {
      const account = this.#accounts.get(item.id)
      assert(account !== undefined && !account.ended && !seen.has(item.id), `item ${item.id} out of place`)
      seen.add(item.id)
      if (account.request.spec.adapter !== undefined) adapters.add(account.request.spec.adapter)
      const reach = item.position + item.tokens
      const { promptTokens, maxOutputTokens, allRows = false } = account.request.spec
      const known = promptTokens + account.tokens
      const most = this.#ahead ? promptTokens + maxOutputTokens : known
      assert(item.tokens >= 1 && reach <= most, `item ${item.id} computes tokens that do not exist`)
      const samples = this.#ahead
        ? this.#owned || item.sample || reach <= known
        : item.sample === (reach === known)
      assert(samples, `item ${item.id} samples at the wrong place`)
      assert(allRows || item.rows === undefined, `item ${item.id} has rows that nothing reads`)
      // Once a token of it is out, what is computed again is read no more.
      const readsAll = allRows && !this.#ahead && account.tokens === 0
      assert(
        !readsAll || item.rows === item.tokens,
        `item ${item.id} reads ${item.rows} of ${item.tokens} rows`,
      )
      tokens += item.tokens + item.draft
      // Blocks of a session's shared prefix may count once for several requests.
      if (account.request.spec.session < 0) blocks += Math.ceil((reach + item.draft) / blockTokens)
    }
    assert(
      adapters.size <= (maxAdapters ?? Infinity),
      "a batch of more adapters than the engine computes at once",
    )
    assert(tokens <= maxBatchTokens && seen.size <= maxSequences, "a batch beyond the engine's limits")
    assert(
      !unifiedKv || this.#owned || blocks * blockTokens <= kvTokens,
      "a batch needs more KV than there is",
    )
  }

  /** None of them waits for a token that is still to come. */
  #knowsTokens({ number, items }: Batch, replica: number): void {
    const flight = this.#samplingOf(replica)
    for (const before of [...flight.values()].slice(-this.#tokenLag || Infinity))
      for (const { id } of items) assert(!before.has(id), `item ${id} needs a token that is not known`)
    flight.set(number, new Set(items.filter(({ sample }) => sample).map(({ id }) => id)))
  }

  #samplingOf(replica: number): Map<number, Set<RequestId>> {
    const known = this.#sampling.get(replica) ?? new Map<number, Set<RequestId>>()
    this.#sampling.set(replica, known)
    return known
  }
}
