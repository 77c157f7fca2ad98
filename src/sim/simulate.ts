/** The simplest driver: one replica of the production core on virtual time, steps lasting what the cost model
 * says times seeded noise. Used to test and to tune policies; the fleet simulator grows from here. */
import { shapeOf, stepUs } from "../core/cost.ts"
import { eventRank, Replica, type ReplicaConfig } from "../core/replica.ts"
import type { Batch, BatchItem, Effect, Event, RequestId, RequestSpec, StepResult } from "../core/types.ts"
import { acceptedTokens } from "./accepted.ts"

/** One request of a simulated workload: what the core is told, and what only the world knows. */
export interface SimRequest {
  atUs: number
  spec: RequestSpec
  /** Output tokens after which it stops by itself (at most spec.maxOutputTokens). */
  outputTokens: number
  /** Of these the first so many are thinking. */
  thinkingTokens?: number
  /** Cancelled at this time, if still there. */
  cancelAtUs?: number
  /** Probability that a drafted token is accepted. Default 0.7, the paper's. */
  acceptance?: number
}

export interface SimOptions {
  config: ReplicaConfig
  requests: readonly SimRequest[]
  /** A factor for each step's time; 1 = the cost model is exact. Called once a step, in order. */
  noise?: () => number
  /** Of the luck of speculation. Default 0. */
  seed?: number
  /** Makes the step of this batch number fail. */
  fails?: (batch: number) => "kvFull" | "engineError" | null
  /** Run the replica's invariants after every poll. */
  check?: boolean
  onEffect?: (effect: Effect, nowUs: number) => void
  /** What an ended request brings about: the next round of its session, at some later time. */
  follow?: (id: RequestId, nowUs: number) => SimRequest | null
  /** Give up (throw) after so many decisions: a policy that runs in circles must not run for ever. */
  maxPolls?: number
}

interface Timed {
  atUs: number
  event: Event
}

/** Run to the end; returns the time of the last event, µs. Deterministic: same options, same effects. */
export function simulate(options: SimOptions): number {
  const replica = new Replica(options.config)
  const world = new Map<RequestId, SimRequest & { output: number }>()
  const timed: Timed[] = []
  const schedule = (request: SimRequest) => {
    world.set(request.spec.id, { ...request, output: 0 })
    timed.push({ atUs: request.atUs, event: { type: "arrived", request: request.spec } })
    if (request.cancelAtUs !== undefined) {
      timed.push({ atUs: request.cancelAtUs, event: { type: "cancelled", id: request.spec.id } })
    }
  }
  options.requests.forEach(schedule)
  timed.sort((a, b) => a.atUs - b.atUs)
  let next = 0
  // Besides the sorted arrivals at most a step and a timer are outstanding.
  const pending: { step: Timed | null; wake: Timed | null } = { step: null, wake: null }
  let nowUs = 0
  for (let polls = 0; ; polls++) {
    if (polls > (options.maxPolls ?? Infinity)) throw new Error(`no end after ${polls} decisions`)
    const atUs = Math.min(
      timed[next]?.atUs ?? Infinity,
      pending.step?.atUs ?? Infinity,
      pending.wake?.atUs ?? Infinity,
    )
    if (atUs === Infinity) return nowUs
    nowUs = atUs
    const events: Event[] = []
    while (next < timed.length && timed[next]!.atUs === nowUs) events.push(timed[next++]!.event)
    for (const kind of ["step", "wake"] as const) {
      if (pending[kind]?.atUs !== nowUs) continue
      events.push(pending[kind].event)
      pending[kind] = null
    }
    events.sort((a, b) => eventRank(a) - eventRank(b))
    for (const event of events) replica.handle(event, nowUs)
    for (const effect of replica.poll(nowUs)) {
      options.onEffect?.(effect, nowUs)
      if (effect.type === "run") pending.step = run(effect.batch, nowUs, options, world)
      const follower = effect.type === "finished" ? options.follow?.(effect.id, nowUs) : null
      if (follower) {
        schedule({ ...follower, atUs: Math.max(follower.atUs, nowUs + 1) })
        timed.push(...timed.splice(next).sort((a, b) => a.atUs - b.atUs))
      }
      if (effect.type === "wake") pending.wake = { atUs: effect.atUs, event: { type: "woke" } }
    }
    if (options.check) replica.check()
  }
}

function run(
  batch: Batch,
  nowUs: number,
  options: SimOptions,
  world: Map<RequestId, SimRequest & { output: number }>,
): Timed {
  const { cost } = options.config
  const durationUs = Math.max(
    1,
    Math.round(stepUs(cost, shapeOf(batch.items, cost)) * (options.noise?.() ?? 1)),
  )
  const atUs = nowUs + durationUs
  const failure = options.fails?.(batch.number) ?? null
  if (failure !== null) return { atUs, event: { type: "stepFailed", batch: batch.number, reason: failure } }
  const results: StepResult[] = []
  for (const item of batch.items) {
    if (item.sample) results.push(sampled(item, world.get(item.id)!, options.seed ?? 0))
  }
  return { atUs, event: { type: "stepDone", batch: batch.number, durationUs, results } }
}

const DEFAULT_ACCEPTANCE = 0.7

/** What a sampled row yields: the accepted drafts and the sure token, up to where the request stops by itself. */
function sampled(item: BatchItem, request: SimRequest & { output: number }, seed: number): StepResult {
  const before = request.output
  const acceptance = request.acceptance ?? DEFAULT_ACCEPTANCE
  const accepted = acceptedTokens(seed, item.id, before, item.draft, acceptance)
  const tokens = Math.min(1 + accepted, request.outputTokens - before)
  request.output += tokens
  const answerAt = (request.thinkingTokens ?? 0) - before
  const answering = request.spec.thinking && answerAt >= 0 && answerAt < tokens
  return {
    id: item.id,
    tokens,
    stopped: request.output >= request.outputTokens,
    answeringFrom: answering ? answerAt : -1,
  }
}
