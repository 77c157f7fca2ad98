/** The kinds of routing: each says in which order living replicas are asked. A new one is a function and a row. */
import type { Snapshot } from "../core/protocol.ts"
import { inTurn, twoDrawn } from "./living.ts"
import type { PrefixMap } from "./prefix-map.ts"
import type { Recent } from "./recent.ts"
import type { Chances, ReplicaView, Routed } from "./target.ts"

/** One routing question. */
export interface Choice {
  request: Routed
  targets: readonly ReplicaView[]
  /** Not this one; -1: any. */
  except: number
  chances: Chances
  hops: number
  /** Whose turn it is. */
  turn: number
  prefixes: PrefixMap
  recent: Recent
}

/** Up to `hops` replicas in turn, to be asked whether they can keep the request's SLOs. */
function offer({ targets, turn, hops, except }: Choice): number[] {
  return inTurn(targets, turn, hops, except)
}

function roundRobin({ targets, turn, except }: Choice): number[] {
  return inTurn(targets, turn, 1, except)
}

/** The less busy of two drawn at random: nearly as even as asking all, and no herd when snapshots are stale. */
function powerOfTwo(choice: Choice): number[] {
  const drawn = twoDrawn(choice.targets, choice.chances, choice.except)
  if (drawn.length < 2) return drawn
  const [first, second] = drawn as [number, number]
  return [busy(choice, second) < busy(choice, first) ? second : first]
}

function leastLoaded(choice: Choice): number[] {
  return best(choice, (index) => -busy(choice, index))
}

/** SGLang's and vLLM's routers, `cache_aware` with their defaults: where the longest prefix is, if that is a good part of the
 * prompt and the fleet is balanced; else the least loaded. */
function cacheAware(choice: Choice): number[] {
  const { request, prefixes, targets } = choice
  let [least, most] = [Infinity, 0]
  for (let i = 0; i < targets.length; i++) {
    if (!targets[i]!.alive) continue
    const count = requestsAt(choice, i)
    least = Math.min(least, count)
    most = Math.max(most, count)
  }
  if (most - least > BALANCE_ABS_THRESHOLD && most > BALANCE_REL_THRESHOLD * least)
    return best(choice, (index) => -requestsAt(choice, index))
  const known = (index: number) => prefixes.known(request, index, targets[index]!.snapshot())
  const [longest] = best(choice, known)
  const matched = longest !== undefined && known(longest) > CACHE_THRESHOLD * request.promptTokens
  return matched ? [longest] : best(choice, (index) => -requestsAt(choice, index))
}
const BALANCE_ABS_THRESHOLD = 64
const BALANCE_REL_THRESHOLD = 1.5
const CACHE_THRESHOLD = 0.3

/** llm-d's scheduler with its default scorers and weights: prefix match, queue depth against the deepest and the shallowest,
 * free KV; the highest sum. */
function prefixScore(choice: Choice): number[] {
  const { request, prefixes, targets } = choice
  let [least, most] = [Infinity, 0]
  for (let i = 0; i < targets.length; i++) {
    if (!targets[i]!.alive) continue
    const queue = waitingAt(choice, i)
    least = Math.min(least, queue)
    most = Math.max(most, queue)
  }
  return best(choice, (index) => {
    const snapshot = targets[index]!.snapshot()
    const queue = most > least ? (most - waitingAt(choice, index)) / (most - least) : 1
    const used = (snapshot.kvUsedTokens - snapshot.kvCachedTokens) / Math.max(1, snapshot.kvCapacityTokens)
    const prefix = prefixes.known(request, index, snapshot) / request.promptTokens
    return PREFIX_WEIGHT * prefix + QUEUE_WEIGHT * queue + KV_WEIGHT * (1 - used)
  })
}
const PREFIX_WEIGHT = 3
const QUEUE_WEIGHT = 2
const KV_WEIGHT = 2

/** Ask first where it costs least. What has no prefix anywhere and no rounds to come asks in turn: the least busy first would
 * leave no room anywhere for a long prompt, and would trust slow replicas for being empty. */
function prefixOffer(choice: Choice): number[] {
  const found = open(choice)
  const stays = choice.request.session >= 0
  if (stays || found.some(({ known }) => known > 0))
    found.sort((a, b) => costAt(choice, a) - costAt(choice, b))
  return found.slice(0, choice.hops).map(({ index }) => index)
}

/** None of those asked promises: a fleet that is full, where half of all requests may be such and most are in time all the
 * same. They get done where it costs least, of those that have some of the prefix: all at the first asked would wait there,
 * with room beside it. What has no prefix anywhere goes to the first asked: spread evenly, or no replica had room left for
 * the next promise. */
function leastCostly(choice: Choice): number {
  const found = open(choice).filter(({ known }) => known > 0)
  if (found.length === 0) return -1
  return found.reduce((least, one) => (costAt(choice, one) < costAt(choice, least) ? one : least)).index
}

/** What stands before it there, and what it lacks of the prefix. A promise says that the wait is no matter to this request;
 * to the next ones it is. */
function costAt({ request }: Choice, { known, filled }: Known): number {
  return filled + ANEW * (1 - known / request.promptTokens)
}
/** A whole prompt to be computed is as bad as a replica that is so much fuller. */
const ANEW = 1.5

interface Known {
  index: number
  /** Of the prompt, tokens that it should have. */
  known: number
  filled: number
}

/** Replicas to choose from: those that would not compute much again, for the same time would keep another request's SLO. A
 * session's round leaves the KV of its home so at once: nothing else will use it there, and its home, which promises nothing,
 * may still keep the SLO. Once turned down it would miss, and may go where what several have is. */
function open(choice: Choice): Known[] {
  const { request, targets, prefixes, except } = choice
  const known = (index: number) => prefixes.known(request, index, targets[index]!.snapshot())
  const home = prefixes.homeOf(request.session)
  const there = home >= 0 && targets[home]?.alive ? known(home) : 0
  const had = except < 0 ? there : prefixes.sharedTokens(request)
  const most = AGAIN * (request.promptTokens - had)
  return Array.from(candidates(choice, home), (index) => ({ index, known: known(index) }))
    .filter((one) => had - one.known <= most)
    .map((one) => ({ ...one, filled: filled(choice, one.index, one.known) }))
}
/** Of the tokens that a request brings anew, so large a share may be computed again besides. */
const AGAIN = 0.5

/** So few that it does not matter how many replicas there are. */
function candidates(choice: Choice, home: number): Set<number> {
  const { request, targets, chances, prefixes, turn, except, hops } = choice
  const found = new Set(inTurn(targets, turn, hops, except))
  const holders = prefixes.holders(request, MOST_LOOKED_AT, chances[0])
  const sharers = prefixes.sharers(request, MOST_LOOKED_AT, chances[0])
  for (const index of [home, ...holders, ...sharers])
    if (index >= 0 && index !== except && targets[index]?.alive) found.add(index)
  return found
}
/** Of those that have as much of a prefix, so many are looked at. */
const MOST_LOOKED_AT = 8

/** How full a replica is: 1 when its KV is; more when requests wait for what those that run give back, by the share of these
 * that it takes, and for prompts that are to be computed before, by the second. */
function filled({ request, targets, recent }: Choice, index: number, known: number): number {
  const snapshot = targets[index]!.snapshot()
  const { waiting, running, kvUsedTokens, kvCachedTokens, kvCapacityTokens } = snapshot
  const sent = recent.since(index, snapshot)
  const queued = waiting + sent.requests
  const owed = snapshot.prefillBacklogTokens + sent.promptTokens + request.promptTokens - known
  return (
    (kvUsedTokens - kvCachedTokens) / Math.max(1, kvCapacityTokens) +
    (QUEUE * queued) / (running + queued + 1) +
    (owed * snapshot.prefillUsPerToken) / 1e6
  )
}
const QUEUE = 4

/** The living replica of the highest score; of equal ones the one whose turn comes first. */
function best({ targets, turn, except }: Choice, score: (index: number) => number): number[] {
  const count = targets.length
  let found = -1
  let highest = -Infinity
  for (let i = 0; i < count; i++) {
    const index = (turn + i) % count
    if (index === except || !targets[index]!.alive) continue
    const own = score(index)
    if (own <= highest) continue
    highest = own
    found = index
  }
  return found < 0 ? [] : [found]
}

/** Requests waiting count more than running ones, prompts owed by their share of the KV: one number to compare. */
function busy({ targets, recent }: Choice, index: number): number {
  const snapshot = targets[index]!.snapshot()
  const sent = recent.since(index, snapshot)
  const owed = (snapshot.prefillBacklogTokens + sent.promptTokens) / Math.max(1, snapshot.kvCapacityTokens)
  return 2 * (snapshot.waiting + sent.requests) + snapshot.running + owed
}

function requestsAt({ targets, recent }: Choice, index: number): number {
  const snapshot: Snapshot = targets[index]!.snapshot()
  return snapshot.waiting + snapshot.running + recent.since(index, snapshot).requests
}

function waitingAt({ targets, recent }: Choice, index: number): number {
  const snapshot = targets[index]!.snapshot()
  return snapshot.waiting + recent.since(index, snapshot).requests
}

export interface Routing {
  order(choice: Choice): number[]
  /** Its replicas are to be asked, in order. The others name one, which gets the request unasked. */
  asks: boolean
  /** It goes by which prefixes live where. */
  byPrefix: boolean
  /** Where none of those asked promises: the replica that gets it, -1 when none can. Default: the first asked. */
  otherwise?(choice: Choice): number
}

export const ROUTERS = {
  offer: { order: offer, asks: true, byPrefix: false },
  "round-robin": { order: roundRobin, asks: false, byPrefix: false },
  "power-of-two": { order: powerOfTwo, asks: false, byPrefix: false },
  "least-loaded": { order: leastLoaded, asks: false, byPrefix: false },
  "cache-aware": { order: cacheAware, asks: false, byPrefix: true },
  "prefix-score": { order: prefixScore, asks: false, byPrefix: true },
  "prefix-offer": { order: prefixOffer, otherwise: leastCostly, asks: true, byPrefix: true },
} as const satisfies Record<string, Routing>

export type RouterKind = keyof typeof ROUTERS
export const ROUTER_KINDS = Object.keys(ROUTERS) as RouterKind[]
