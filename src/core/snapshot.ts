/** What a replica's live requests amount to at a glance, and what must hold of each. */
import { assert } from "./assert.ts"
import type { CostModel } from "./cost.ts"
import type { KvAccount } from "./kv/account.ts"
import type { Line } from "./line.ts"
import { prefillUs, tokensWithin } from "./planner/prefill-time.ts"
import type { EngineLimits, Snapshot } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"

type Counts = Omit<Snapshot, "nowUs" | "batchInFlight" | "calibration" | "speculation">

/** What the longest batch holds, and how long it takes, µs. */
export interface LongestBatch {
  tokens: number
  us: number
}

/** Of at most `mostUs` µs, if a token can be computed in that. */
export function longestBatch(cost: CostModel, limits: EngineLimits, mostUs: number): LongestBatch {
  const tokens = tokensWithin(cost, mostUs, limits.maxBatchTokens)
  return { tokens, us: prefillUs(cost, 0, tokens, tokens) }
}

export function countLine(line: readonly LiveRequest[], kv: KvAccount, longest: LongestBatch): Counts {
  let decoding = 0
  const counts = {
    ...{ waiting: 0, running: 0, bestEffort: 0, prefillBacklogTokens: 0, prefillUsPerToken: 0 },
    kvUsedTokens: kv.usedTokens,
    kvCachedTokens: kv.cachedTokens,
    kvCapacityTokens: kv.capacityTokens,
    kvEvictedTokens: kv.evictedTokens,
  }
  for (const request of line) {
    if (kv.holds(request.id)) counts.running++
    else counts.waiting++
    if (request.decoding) decoding++
    if (request.tier === "bestEffort") counts.bestEffort++
    else if (!request.decoding) counts.prefillBacklogTokens += request.owed
  }
  counts.prefillUsPerToken = longest.us / Math.max(1, longest.tokens - decoding)
  return counts
}

/** Throws where a request of the line is lost, or an invariant of one is broken. */
export function checkLine(line: Line, kv: KvAccount): void {
  assert(line.size === line.requests.length, "a request is not in line")
  for (const request of line.requests) {
    assert(line.get(request.id) === request, `request ${request.id} is lost`)
    checkRequest(request, kv)
  }
}

function checkRequest(request: LiveRequest, kv: KvAccount): void {
  const { id, computed, known, admitted, tier } = request
  assert(computed >= 0 && computed < known, `request ${id} owes nothing`)
  assert(computed === 0 || kv.holds(id), `request ${id} has tokens but no KV`)
  assert(!(admitted && tier === "bestEffort"), `request ${id} is admitted and best-effort`)
}
