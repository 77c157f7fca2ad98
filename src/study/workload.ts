/** From a plan to the requests of a simulation: rounds of sessions, prefixes, thinking, deadlines, and which of
 * the planned requests are in the end counted as kept. */

import { prefillUs } from "../core/planner/prefill-time.ts"
import type { Outcome, RequestId, Slo } from "../core/protocol.ts"
import { UserError } from "../errors.ts"
import { roundSlo, type ZeroLoad } from "../load/classes.ts"
import { type Plan, type PlannedRequest, type PlannedRound, readPlan } from "../load/plan.ts"
import { prefixBlocks } from "../load/prefix.ts"
import { readTrace, type Trace } from "../load/trace.ts"
import { APPS, type AppName, makePlan } from "../load/workload.ts"
import type { Hardware } from "../sim/presets.ts"
import type { SimRequest } from "../sim/world.ts"
import type { Awaited } from "./misses.ts"
import type { RunSpec } from "./spec.ts"

/** A planned request (a whole tool session) as it plays. */
export interface Played {
  planned: PlannedRequest
  /** Index of the round that runs or waits. */
  round: number
  /** Tokens of the session before this round. */
  history: number
  session: number
  /** Arrived after the lead-in. */
  counted: boolean
  /** No round so far missed: strictly, and by the paper's check of every tenth token. */
  ok: boolean
  okEvery10: boolean
  /** Prompt tokens computed anew and output tokens over all rounds: its size. */
  tokens: number
  /** Longest over its rounds so far; -1: there was none. */
  longestTtftMs: number
  longestPauseMs: number
  /** Tokens that batches computed for it, those computed again and drafted ones included. */
  computedTokens: number
}

/** What one planned request (all rounds) costs at least. */
export interface Job {
  /** Prompt tokens to compute: nothing of a session's history twice, nothing that requests share. */
  prefill: number
  output: number
  /** From arrival to its last token's due time, s, summed over rounds. */
  windowS: number
  /** Σ over its output tokens of the KV tokens held while each is computed, for it alone. */
  heldTokens: number
}

const traceCache = new Map<string, Trace>()

function traceOf(path: string): Trace {
  const known = traceCache.get(path) ?? readTrace(path)
  traceCache.set(path, known)
  return known
}

export function planOf(spec: RunSpec): Plan {
  if (spec.plan !== undefined) return readPlan(spec.plan)
  const traces: Partial<Record<AppName, Trace>> = {}
  for (const [app, path] of Object.entries(spec.traces)) traces[app as AppName] = traceOf(path)
  return makePlan({
    scenario: spec.scenario,
    ratePerSec: spec.ratePerSec,
    durationMs: spec.durationS * 1000,
    seed: spec.seed,
    scale: spec.scale,
    arrivals: spec.arrivals,
    burstiness: spec.burstiness,
    maxSequenceTokens: spec.maxSequenceTokens,
    traces,
  })
}

/** Plays a plan: first rounds up front, later ones as their predecessors end. */
export class Workload {
  readonly plan: Plan
  readonly first: SimRequest[]
  readonly sessions = new Map<RequestId, Played>()
  /** Some KV can be found again. Else no request needs block hashes: its KV could be forgotten at its end or kept in
   * vain. */
  readonly #reuses: boolean
  #spec: RunSpec
  #zeroLoad: ZeroLoad | undefined
  #nextId = 0

  constructor(spec: RunSpec) {
    this.#spec = spec
    this.#zeroLoad = spec.zeroLoad
    this.plan = planOf(spec)
    this.#reuses = this.plan.requests.some(({ rounds, prefix }) => rounds.length > 1 || prefix !== undefined)
    const leadInMs = this.plan.header.durationMs * spec.leadIn
    this.first = this.plan.requests.map((planned, session) => {
      const counted = planned.atMs >= leadInMs
      const played: Played = {
        ...{ planned, round: 0, history: 0, session, counted, ok: true, okEvery10: true, tokens: 0 },
        ...{ longestTtftMs: -1, longestPauseMs: -1, computedTokens: 0 },
      }
      return this.#request(played, planned.atMs * 1000)
    })
  }

  /** Planned requests that are counted. */
  get counted(): number {
    let count = 0
    for (const { spec } of this.first) if (this.sessions.get(spec.id)!.counted) count++
    return count
  }

  /** First rounds of the counted requests, and when their first tokens are due. */
  awaited(): Awaited[] {
    return this.first.flatMap(({ spec: { id, slo }, atUs }) =>
      this.sessions.get(id)!.counted ? [{ id, deadlineUs: atUs + slo.ttftUs }] : [],
    )
  }

  /** The requests as the fluid bound sees them. */
  jobs(): Job[] {
    return this.plan.requests.map(({ rounds, prefix }) => {
      // What others begin with as well is computed and held for all of them: here for free, so that the bound stays one.
      const shared = Math.min(rounds[0]!.promptTokens, (prefix?.ids.length ?? 0) * (prefix?.blockTokens ?? 0))
      const job = { prefill: -shared, output: 0, windowS: 0, heldTokens: 0 }
      let history = 0
      for (const round of rounds) {
        const prompt = history + round.promptTokens
        const slo = this.#slo(round, prompt)
        const thinking = round.thinkingTokens
        const answer = round.outputTokens - thinking
        job.prefill += round.promptTokens
        job.output += round.outputTokens
        job.windowS += windowUs(slo, thinking, answer) / 1e6
        job.heldTokens += round.outputTokens * (prompt - shared + round.outputTokens / 2)
        history = prompt + round.outputTokens
      }
      return job
    })
  }

  /** A round ended. Returns its session when that was the last round, else null. */
  ended(id: RequestId, outcome: Pick<Outcome, "attained" | "attainedEvery10"> | null): Played | null {
    const played = this.sessions.get(id)!
    played.ok &&= outcome?.attained ?? false
    played.okEvery10 &&= outcome?.attainedEvery10 ?? false
    const over = outcome === null || played.round === played.planned.rounds.length - 1
    return over ? played : null
  }

  /** The next round of the session whose round `id` has just ended; null after the last. */
  follow(id: RequestId, nowUs: number): SimRequest | null {
    const played = this.sessions.get(id)!
    const done = played.planned.rounds[played.round]!
    const next = played.planned.rounds[played.round + 1]
    this.sessions.delete(id)
    if (next === undefined) return null
    played.history += done.promptTokens + done.outputTokens
    played.round++
    return this.#request(played, nowUs + next.delayMs * 1000)
  }

  #request(played: Played, atUs: number): SimRequest {
    const { planned, session } = played
    const spec = this.#spec
    const round = planned.rounds[played.round]!
    const promptTokens = played.history + round.promptTokens
    played.tokens += round.promptTokens + round.outputTokens
    const room = spec.hardware.contextTokens - promptTokens
    if (round.outputTokens > room) this.#tooLong(played, promptTokens + round.outputTokens)
    const id = this.#nextId++
    this.sessions.set(id, played)
    const several = planned.rounds.length > 1
    const hashes = (tokens: number) =>
      this.#reuses ? prefixBlocks(planned, session, tokens, spec.hardware.blockTokens) : []
    return {
      atUs: Math.round(atUs),
      outputTokens: round.outputTokens,
      thinkingTokens: round.thinkingTokens,
      acceptance: spec.acceptance,
      ...(several && { blocks: hashes(promptTokens + round.outputTokens) }),
      spec: {
        id,
        app: appIndex(planned.app),
        session: several ? session : -1,
        promptTokens,
        maxOutputTokens: spec.knownLengths ? round.outputTokens : room,
        prefix: hashes(promptTokens),
        slo: this.#slo(round, promptTokens),
        tier: "slo",
        thinking: round.thinkingTokens > 0,
      },
    }
  }

  #slo(round: PlannedRound, promptTokens: number) {
    const zeroLoad = this.#zeroLoad ?? zeroLoadOf(this.#spec.hardware, promptTokens)
    const slo = roundSlo(round, promptTokens, this.#spec.classes, zeroLoad)
    return {
      ttftUs: slo.ttftMs * 1000,
      ttftSlowdown: 0,
      tpotUs: slo.tpotMs * 1000,
      thinkingTpotUs: slo.thinkingTpotMs * 1000,
      maxGapUs: slo.maxGapMs * 1000,
    }
  }

  #tooLong(played: Played, tokens: number): never {
    const { plan = "the plan", hardware } = this.#spec
    const line = this.plan.requests.indexOf(played.planned) + 2
    throw new UserError(
      `${plan}:${line}: prompt and output are ${tokens} tokens, the context is ${hardware.contextTokens}; ` +
        "shorten the request, or raise --scale or --context",
    )
  }
}

/** Most time that a round's tokens may take. A missing TPOT is an hour, as in the core, so that sums stay finite. */
function windowUs(slo: Slo, thinking: number, answer: number): number {
  const { ttftUs, thinkingTpotUs, tpotUs, maxGapUs } = slo
  const hour = 3_600_000_000
  const paced = thinking * Math.min(hour, thinkingTpotUs) + answer * Math.min(hour, tpotUs)
  // Without a TTFT the others' clock starts at the first token: waiting for it leaves them no more time.
  const first = ttftUs === Infinity ? 0 : ttftUs
  return first + Math.min(paced, (thinking + answer) * maxGapUs)
}

function appIndex(app: string): number {
  return Math.max(0, (APPS as readonly string[]).indexOf(app))
}

/** Zero-load prefill time of this prompt on this hardware without a draft model: the same for every policy. */
function zeroLoadOf({ cost, maxBatchTokens }: Hardware, promptTokens: number): ZeroLoad {
  return { ms: prefillUs(cost, 0, promptTokens, maxBatchTokens) / 1000, msPerToken: 0 }
}
