/** A decision of the core as the engine is told of it. */
import type { Batch, Effect } from "../core/protocol.ts"
import { columnOf } from "../wire/planner/columns.ts"
import type { PlanMessage } from "../wire/planner/messages.ts"

const EMPTY = new Float64Array()

/** Answers the message `seq`. */
export function planOf(seq: number, effects: readonly Effect[]): PlanMessage {
  const last = effects.at(-1)
  if (last?.type === "run") return batchOf(seq, last.batch)
  const plan: PlanMessage = {
    ...{ type: "plan", seq, batch: 0, predictedUs: 0, ids: EMPTY, positions: EMPTY, tokens: EMPTY },
  }
  const wake = effects.find((effect) => effect.type === "wake")
  return wake === undefined ? plan : { ...plan, wakeUs: wake.atUs }
}

function batchOf(seq: number, { number: batch, predictedUs, items, evict }: Batch): PlanMessage {
  const count = items.length
  const ids = new Float64Array(count)
  const positions = new Float64Array(count)
  const tokens = new Float64Array(count)
  const drafts = new Float64Array(count)
  let drafted = false
  for (let i = 0; i < count; i++) {
    const item = items[i]!
    ids[i] = item.id
    positions[i] = item.position
    tokens[i] = item.tokens
    drafts[i] = item.draft
    if (item.draft > 0) drafted = true
  }
  return {
    ...{ type: "plan", seq, batch, predictedUs, ids, positions, tokens },
    ...(drafted && { drafts }),
    ...(evict.length > 0 && { evict: columnOf(evict) }),
  }
}
