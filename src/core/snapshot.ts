/** What a replica's live requests amount to at a glance, and what must hold of each. */
import { assert } from "./assert.ts"
import type { KvAccount } from "./kv/account.ts"
import type { Snapshot } from "./protocol.ts"
import type { LiveRequest } from "./request.ts"

type Counts = Pick<
  Snapshot,
  | "waiting"
  | "running"
  | "bestEffort"
  | "prefillBacklogTokens"
  | "kvUsedTokens"
  | "kvCachedTokens"
  | "kvCapacityTokens"
>

export function countLine(line: readonly LiveRequest[], kv: KvAccount): Counts {
  const counts = {
    ...{ waiting: 0, running: 0, bestEffort: 0, prefillBacklogTokens: 0 },
    kvUsedTokens: kv.usedTokens,
    kvCachedTokens: kv.cachedTokens,
    kvCapacityTokens: kv.capacityTokens,
  }
  for (const request of line) {
    if (kv.holds(request.id)) counts.running++
    else counts.waiting++
    if (request.tier === "bestEffort") counts.bestEffort++
    else if (!request.decoding) counts.prefillBacklogTokens += request.owed
  }
  return counts
}

/** Throws when an invariant of a live request is broken. */
export function checkRequest(request: LiveRequest, kv: KvAccount): void {
  const { id, computed, known, admitted, tier } = request
  assert(computed >= 0 && computed < known, `request ${id} owes nothing`)
  assert(computed === 0 || kv.holds(id), `request ${id} has tokens but no KV`)
  assert(!(admitted && tier === "bestEffort"), `request ${id} is admitted and best-effort`)
}
