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

/** Ask those that have the longest prefix first, of them where the first token is likely soonest: where one can promise, waiting
 * there costs nothing, and computing the prefix again would. Then the others, in turn: the least busy first would leave no
 * room anywhere for a long prompt. A session's round leaves its KV only for a replica that would not compute more again than
 * the round brings anew: nothing else will use it there, and the same time would keep another request's SLO. */
function prefixOffer(choice: Choice): number[] {
  const { request, targets, prefixes, hops } = choice
  const known = (index: number) => prefixes.known(request, index, targets[index]!.snapshot())
  const home = prefixes.homeOf(request.session)
  const atHome = home >= 0 && targets[home]?.alive ? known(home) : 0
  const added = request.promptTokens - atHome
  const us = (one: { index: number; known: number }) =>
    one.known > 0 ? firstTokenUs(choice, one.index, one.known) : 0
  return Array.from(candidates(choice, home), (index) => ({ index, known: known(index) }))
    .filter((one) => atHome - one.known <= added)
    .sort((a, b) => b.known - a.known || us(a) - us(b))
    .slice(0, hops)
    .map(({ index }) => index)
}

/** So few that it does not matter how many replicas there are. */
function candidates(choice: Choice, home: number): Set<number> {
  const { request, targets, chances, prefixes, turn, except, hops } = choice
  const found = new Set(inTurn(targets, turn, hops, except))
  for (const index of [home, ...prefixes.holders(request, 2, chances[0])])
    if (index >= 0 && index !== except && targets[index]?.alive) found.add(index)
  return found
}

/** Until the replica has computed what it owes and what it lacks of this prompt, µs. */
function firstTokenUs({ request, targets, recent }: Choice, index: number, known: number): number {
  const snapshot = targets[index]!.snapshot()
  const owed = snapshot.prefillBacklogTokens + recent.since(index, snapshot).promptTokens
  return (owed + request.promptTokens - known) * snapshot.prefillUsPerToken
}

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
}

export const ROUTERS = {
  offer: { order: offer, asks: true, byPrefix: false },
  "round-robin": { order: roundRobin, asks: false, byPrefix: false },
  "power-of-two": { order: powerOfTwo, asks: false, byPrefix: false },
  "least-loaded": { order: leastLoaded, asks: false, byPrefix: false },
  "cache-aware": { order: cacheAware, asks: false, byPrefix: true },
  "prefix-score": { order: prefixScore, asks: false, byPrefix: true },
  "prefix-offer": { order: prefixOffer, asks: true, byPrefix: true },
} as const satisfies Record<string, Routing>

export type RouterKind = keyof typeof ROUTERS
export const ROUTER_KINDS = Object.keys(ROUTERS) as RouterKind[]
