/** What a replica's queue must know of its engine to say how fast it empties. */
import { type CostModel, stepUs } from "../core/cost.ts"
import type { Replica } from "../core/replica.ts"
import type { PlacesOptions } from "./places.ts"

export type FullLoad = Required<Pick<PlacesOptions, "running" | "slowdown">>

export function fullLoadOf(replica: () => Pick<Replica, "limits" | "cost">): FullLoad {
  return {
    running: () => replica().limits.maxSequences,
    slowdown: (few, many) => decodeSlowdown(replica().cost, few, many),
  }
}

/** How many times as long a step takes that decodes so many, not so few. */
export function decodeSlowdown(cost: CostModel, few: number, many: number): number {
  const timeOf = (count: number) => {
    const sequences = Math.max(1, Math.round(count))
    const none = { passes: 1, fastPairs: 0, slowPairs: 0, specSteps: 0 }
    return stepUs(cost, { ...none, tokens: sequences, sequences, outputs: sequences })
  }
  return timeOf(Math.max(few, many)) / timeOf(few)
}
