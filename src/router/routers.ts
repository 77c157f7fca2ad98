/** The kinds of routing: each picks one of the living replicas. A new one is a function and a row. */
import type { RequestSpec, Snapshot } from "../core/protocol.ts"
import type { Chances, Target } from "./target.ts"

/** One routing question. */
export interface Choice {
  request: RequestSpec
  targets: readonly Target[]
  /** Indices of the replicas not known to be lost; at least two. */
  alive: readonly number[]
  nowUs: number
  chances: Chances
  hops: number
  /** How many were routed before. */
  turn: number
}

/** Ask up to `hops` replicas in turn whether they can keep its SLOs; else the first asked. */
function offer(choice: Choice): number {
  const { request, targets, nowUs } = choice
  const order = inTurn(choice).slice(0, choice.hops)
  for (const index of order) if (targets[index]!.offer(request, nowUs)) return index
  return order[0]!
}

function roundRobin(choice: Choice): number {
  return inTurn(choice)[0]!
}

/** The less busy of two drawn at random: nearly as even as asking all, and no herd when snapshots are stale. */
function powerOfTwo({ targets, alive, chances }: Choice): number {
  const a = Math.floor(chances[0] * alive.length)
  const b = (a + 1 + Math.floor(chances[1] * (alive.length - 1))) % alive.length
  const [first, second] = [alive[a]!, alive[b]!]
  return busy(targets[second]!.snapshot()) < busy(targets[first]!.snapshot()) ? second : first
}

function leastLoaded(choice: Choice): number {
  let best = -1
  let least = Infinity
  // In turn, so that equally busy replicas share.
  for (const index of inTurn(choice)) {
    const load = busy(choice.targets[index]!.snapshot())
    if (load >= least) continue
    least = load
    best = index
  }
  return best
}

/** Living replicas, beginning with the one whose turn it is. */
function inTurn({ alive, turn }: Choice): number[] {
  const start = turn % alive.length
  return [...alive.slice(start), ...alive.slice(0, start)]
}

/** Requests waiting count more than running ones, prompts owed by their share of the KV: one number to compare. */
function busy(snapshot: Snapshot): number {
  const owed = snapshot.prefillBacklogTokens / Math.max(1, snapshot.kvCapacityTokens)
  return 2 * snapshot.waiting + snapshot.running + owed
}

export const ROUTERS = {
  offer,
  "round-robin": roundRobin,
  "power-of-two": powerOfTwo,
  "least-loaded": leastLoaded,
} as const satisfies Record<string, (choice: Choice) => number>

export type RouterKind = keyof typeof ROUTERS
export const ROUTER_KINDS = Object.keys(ROUTERS) as RouterKind[]
