/** Replicas and requests for tests of the router. */
import type { Snapshot } from "../core/protocol.ts"
import type { Routed, Target } from "./target.ts"

export const IDLE: Snapshot = {
  nowUs: 0,
  waiting: 0,
  running: 0,
  bestEffort: 0,
  kvUsedTokens: 0,
  kvCachedTokens: 0,
  kvCapacityTokens: 1000,
  kvEvictedTokens: 0,
  batchInFlight: false,
  prefillBacklogTokens: 0,
  prefillUsPerToken: 100,
  speculation: [],
  calibration: [1, 1],
}

export interface Fake extends Target {
  alive: boolean
  /** How often an offer was asked of it. */
  asked: number
}

export interface FakeState extends Partial<Snapshot> {
  alive?: boolean
  /** What it answers offers. */
  takes?: boolean
}

export function target({ alive = true, takes = true, ...changes }: FakeState = {}): Fake {
  const snapshot = { ...IDLE, ...changes }
  return {
    alive,
    asked: 0,
    snapshot: () => snapshot,
    offer() {
      this.asked++
      return takes
    },
  }
}

/** A request whose first keys are those of `names`: the text up to key n is told by the names up to n. */
export function routed(names: string, promptTokens = names.length * 16, session = -1): Routed {
  let key = 0
  const prefix = Array.from(names, (name) => {
    key = (key * 1_000_003 + name.charCodeAt(0) + 1) % 4_294_967_291
    return key
  })
  return { session, promptTokens, prefix }
}
