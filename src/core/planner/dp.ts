/** The paper's admission (arXiv 2504.08784 §4.1, Alg. 1): a dynamic program over requests by prefill deadline.
 * State: how many requests of each TPOT tier are accepted, and their memory; value: the prefill budget left over.
 * Between two deadlines the budget is what batches, sized to the tightest due decode, leave beside the decodes. */
import type { CostModel } from "../cost.ts"

/** One request in a DP instance, times in µs relative to now. */
export interface DpRequest {
  deadlineUs: number
  /** Prompt tokens still to prefill (0 = decoding). */
  owed: number
  /** Index into `tpotsUs`. */
  tier: number
  /** KV tokens for its whole life; 0 for running ones, which hold theirs. */
  kvTokens: number
  /** Running or promised: must be kept. */
  must: boolean
}

/** Batch time as the paper has it, in terms of prefill tokens: max over pieces of k1·tokens + b. */
export interface TokenBudget {
  pieces: { k1: number; b: number }[]
  /** Prefill tokens that one decode costs as much as (1 on a GPU in the paper's model). */
  decodeWeight: number
  maxBatchTokens: number
}

/** The linear model as seen by the paper's planner, for contexts of about `contextTokens`. */
export function tokenBudget(
  cost: CostModel,
  scale: number,
  contextTokens: number,
  maxBatchTokens: number,
): TokenBudget {
  const pieces = cost.pieces.map((p) => ({
    k1: ((p.tokens ?? 0) + ((p.fastPairs ?? 0) * contextTokens) / 2) * scale,
    b:
      ((p.step ?? 0) + (p.passes ?? 0) * (cost.unifiedKv ? 1 : 2) + (p.sequences ?? 0) + (p.outputs ?? 0)) *
      scale,
  }))
  const worst = cost.pieces.reduce((a, b) => ((b.tokens ?? 0) > (a.tokens ?? 0) ? b : a))
  const decode =
    (worst.tokens ?? 0) +
    (worst.sequences ?? 0) +
    (worst.outputs ?? 0) +
    (worst.slowPairs ?? 0) * contextTokens
  const prefill = (worst.tokens ?? 0) + ((worst.fastPairs ?? 0) * contextTokens) / 2
  return { pieces, decodeWeight: prefill > 0 ? Math.max(1, decode / prefill) : 1, maxBatchTokens }
}

function batchTokens(budget: TokenBudget, timeUs: number): number {
  let least = budget.maxBatchTokens
  for (const { k1, b } of budget.pieces) {
    if (b > timeUs) return 0
    if (k1 > 0) least = Math.min(least, (timeUs - b) / k1)
  }
  return Math.floor(least)
}

function batchUs(budget: TokenBudget, tokens: number): number {
  return Math.max(...budget.pieces.map(({ k1, b }) => k1 * tokens + b))
}

/** Prefill tokens that fit in `timeUs` beside `counts[tier]` decodes, and the time those batches take; null when
 * the decodes alone do not fit (the published segment plan, autoregressive). */
export function segmentBudget(
  budget: TokenBudget,
  timeUs: number,
  counts: readonly number[],
  tpotsUs: readonly number[],
): { tokens: number; elapsedUs: number } | null {
  const used = tpotsUs.map((_, i) => i).filter((i) => counts[i]! > 0)
  if (used.length === 0) {
    const tokens = batchTokens(budget, timeUs)
    return tokens === 0 ? { tokens: 0, elapsedUs: 0 } : { tokens, elapsedUs: batchUs(budget, tokens) }
  }
  const due = tpotsUs.slice()
  let clock = 0
  let tokens = 0
  for (;;) {
    const end = Math.min(timeUs, ...used.map((i) => due[i]!))
    const room = batchTokens(budget, end - clock)
    if (room === 0) return { tokens, elapsedUs: clock }
    clock += batchUs(budget, room)
    let taken = 0
    for (const tier of used) {
      if (due[tier]! - tpotsUs[tier]! >= clock) continue
      taken += counts[tier]! * budget.decodeWeight
      due[tier]! += tpotsUs[tier]!
    }
    if (taken > room) return null
    tokens += room - taken
  }
}

interface State {
  counts: number[]
  kvTokens: number
  leftover: number
  atUs: number
  accepted: number
  choice: { index: number; rest: State["choice"] } | null
}

/** Indices of the requests to accept: all that must be, and the most of the others. Null when not even the
 * requests that must be kept can be. `requests` by deadline. */
export function acceptByDp(
  requests: readonly DpRequest[],
  tpotsUs: readonly number[],
  freeKvTokens: number,
  budget: TokenBudget,
): Set<number> | null {
  let states: State[] = [
    { counts: tpotsUs.map(() => 0), kvTokens: 0, leftover: 0, atUs: 0, accepted: 0, choice: null },
  ]
  for (let index = 0; index < requests.length; index++) {
    const request = requests[index]!
    const next: State[] = request.must ? [] : states.slice()
    for (const state of states) {
      const taken = accept(state, request, index, tpotsUs, freeKvTokens, budget)
      if (taken !== null) next.push(taken)
    }
    states = undominated(next)
    if (states.length === 0) return null
  }
  const best = states.reduce((a, b) =>
    b.accepted > a.accepted || (b.accepted === a.accepted && b.leftover > a.leftover) ? b : a,
  )
  const chosen = new Set<number>()
  for (let choice = best.choice; choice !== null; choice = choice.rest) chosen.add(choice.index)
  return chosen
}

const SUSTAINED_US = 1_000_000

function accept(
  state: State,
  request: DpRequest,
  index: number,
  tpotsUs: readonly number[],
  freeKvTokens: number,
  budget: TokenBudget,
): State | null {
  const kvTokens = state.kvTokens + request.kvTokens
  if (kvTokens > freeKvTokens) return null
  let { leftover, atUs } = state
  if (request.owed > 0) {
    const segment = segmentBudget(budget, request.deadlineUs - atUs, state.counts, tpotsUs)
    if (segment === null) return null
    leftover += segment.tokens - request.owed
    atUs += segment.elapsedUs
    if (leftover < 0) return null
  }
  const counts = state.counts.slice()
  counts[request.tier]!++
  const sustained = segmentBudget(budget, SUSTAINED_US, counts, tpotsUs)
  if (sustained === null || sustained.elapsedUs === 0) return null
  return {
    counts,
    kvTokens,
    leftover,
    atUs,
    accepted: state.accepted + (request.must ? 0 : 1),
    choice: { index, rest: state.choice },
  }
}

/** Of states with equal counts keep those that no other beats in memory, budget left and time left. */
function undominated(states: State[]): State[] {
  const groups = new Map<string, State[]>()
  for (const state of states) {
    const key = state.counts.join()
    const group = groups.get(key)
    if (group === undefined) groups.set(key, [state])
    else if (!group.some((other) => dominates(other, state))) {
      groups.set(key, [...group.filter((other) => !dominates(state, other)), state])
    }
  }
  return [...groups.values()].flat()
}

function dominates(a: State, b: State): boolean {
  return a.kvTokens <= b.kvTokens && a.leftover >= b.leftover && a.atUs <= b.atUs
}
