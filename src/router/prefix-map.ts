/** Which replicas have which prefixes in their KV, approximately: what was sent where, as long as it cannot have been
 * evicted since. A wrong guess costs a recomputed prompt, nothing else. */
import type { Snapshot } from "../core/protocol.ts"
import { Holders, type Sent } from "./holders.ts"
import type { Routed } from "./target.ts"

export interface PrefixMapOptions {
  /** Tokens that each key of `Routed.prefix` stands for. Default 16, a KV block. */
  keyTokens?: number
  /** Most (key, replica) pairs remembered; the least recently used keys are forgotten. Default 500,000. */
  mostEntries?: number
}

/** Prefixes are told apart to so many tokens: every KV block would take eight times the memory. */
const STRIDE_TOKENS = 128
/** Sessions remembered; the oldest are forgotten. */
const MOST_SESSIONS = 100_000

export class PrefixMap {
  readonly #keyTokens: number
  readonly #mostEntries: number
  /** Keys from one that is remembered to the next. */
  readonly #stride: number
  /** Least recently used first (a Map keeps insertion order). Most keys have one holder: no table for each of them. */
  #keys = new Map<number, Sent | Holders>()
  #sessions = new Map<number, Sent>()
  #entries = 0
  #lives: number[] = []

  constructor({ keyTokens = 16, mostEntries = 500_000 }: PrefixMapOptions = {}) {
    this.#keyTokens = keyTokens
    this.#mostEntries = mostEntries
    this.#stride = Math.max(1, Math.round(STRIDE_TOKENS / keyTokens))
  }

  /** (key, replica) pairs remembered. */
  get size(): number {
    return this.#entries
  }

  /** The request is computed there from now on. */
  sent(request: Routed, replica: number, { kvEvictedTokens, kvUsedTokens }: Snapshot): void {
    const { session, promptTokens, prefix } = request
    const sent: Sent = {
      ...{ replica, promptTokens, life: this.#lives[replica] ?? 0 },
      ...{ evictedTokens: kvEvictedTokens, usedTokens: kvUsedTokens },
    }
    // The first keys last, as the most recently used: without them those that follow are of no use.
    for (let strides = this.#stridesOf(prefix); strides >= 1; strides--)
      this.#add(this.#key(prefix, strides), sent)
    if (session >= 0) this.#remember(session, sent)
    for (const [key, held] of this.#keys) {
      if (this.#entries <= this.#mostEntries) break
      this.#keys.delete(key)
      this.#entries -= held instanceof Holders ? held.size : 1
    }
  }

  /** Leading prompt tokens whose KV the replica should have. */
  known(request: Routed, replica: number, snapshot: Snapshot): number {
    const { session, promptTokens, prefix } = request
    const strides = this.#longest(prefix, (key, tokens) => {
      const held = this.#keys.get(key)
      const sent = held instanceof Holders ? held.of(replica) : held
      return sent?.replica === replica && this.#left(sent, snapshot) >= tokens
    })
    const home = session >= 0 ? this.#sessions.get(session) : undefined
    const atHome = home?.replica === replica ? this.#left(home, snapshot) : 0
    return Math.min(promptTokens - 1, Math.max(atHome, strides * this.#stride * this.#keyTokens))
  }

  /** Of the replicas that were sent the longest prefix that any was: up to `most`, drawn by `chance` in [0, 1). */
  holders({ prefix }: Routed, most: number, chance: number): number[] {
    return this.#holding(prefix, 1, most, chance)
  }

  /** The same of the longest that several were sent: what goes beyond it is one session's. */
  sharers({ prefix }: Routed, most: number, chance: number): number[] {
    return this.#holding(prefix, 2, most, chance)
  }

  /** Leading prompt tokens that several replicas were sent. */
  sharedTokens({ prefix }: Routed): number {
    return this.#longest(prefix, (key) => this.#hasLiving(key, 2)) * this.#stride * this.#keyTokens
  }

  /** Of the replicas that hold the longest prefix that at least so many do. */
  #holding(prefix: readonly number[], least: number, most: number, chance: number): number[] {
    const strides = this.#longest(prefix, (key) => this.#hasLiving(key, least))
    const held = strides === 0 ? undefined : this.#keys.get(this.#key(prefix, strides))
    if (held === undefined) return []
    if (!(held instanceof Holders)) return [held.replica]
    const start = Math.floor(chance * held.size)
    const found: number[] = []
    for (let i = 0; i < held.size && found.length < most; i++) {
      const sent = held.at((start + i) % held.size)
      if (this.#isThere(sent)) found.push(sent.replica)
    }
    return found
  }

  /** Where the session's last round was sent; -1 when that is not known, or the replica was lost since. */
  homeOf(session: number): number {
    const sent = session >= 0 ? this.#sessions.get(session) : undefined
    return sent !== undefined && this.#isThere(sent) ? sent.replica : -1
  }

  /** The replica is lost, or starts afresh: nothing of its KV is left. */
  forget(replica: number): void {
    this.#lives[replica] = (this.#lives[replica] ?? 0) + 1
  }

  #stridesOf(prefix: readonly number[]): number {
    return Math.floor(prefix.length / this.#stride)
  }
  #key(prefix: readonly number[], strides: number): number {
    return prefix[strides * this.#stride - 1]!
  }

  #isThere({ replica, life }: Sent): boolean {
    return life === (this.#lives[replica] ?? 0)
  }

  /** Tokens of what was sent that are still there: what the replica held before went first, then this from its end.
   * A count of evictions that has shrunk is another life's. */
  #left(sent: Sent, { kvEvictedTokens }: Snapshot): number {
    if (!this.#isThere(sent) || kvEvictedTokens < sent.evictedTokens) return 0
    const gone = Math.max(0, kvEvictedTokens - sent.evictedTokens - sent.usedTokens)
    return Math.max(0, sent.promptTokens - gone)
  }

  /** At least so many replicas hold the key; the last of them that were lost are forgotten. */
  #hasLiving(key: number, least: number): boolean {
    const held = this.#keys.get(key)
    if (held === undefined) return false
    if (!(held instanceof Holders)) return least === 1 && this.#isThere(held)
    while (held.size > 0 && !this.#isThere(held.at(held.size - 1))) {
      held.delete(held.at(held.size - 1).replica)
      this.#entries--
    }
    let left = least
    for (let i = held.size - 1; i >= 0 && left > 0; i--) if (this.#isThere(held.at(i))) left--
    return left === 0
  }

  /** Most strides of the prefix for which `has` holds: where it does for one, it does for all before it. */
  #longest(prefix: readonly number[], has: (key: number, tokens: number) => boolean): number {
    let low = 0
    let high = this.#stridesOf(prefix)
    while (low < high) {
      const middle = (low + high + 1) >> 1
      if (has(this.#key(prefix, middle), middle * this.#stride * this.#keyTokens)) low = middle
      else high = middle - 1
    }
    return low
  }

  #add(key: number, sent: Sent): void {
    let held = this.#keys.get(key)
    this.#keys.delete(key)
    if (held instanceof Holders || (held !== undefined && held.replica !== sent.replica)) {
      const before = held instanceof Holders ? held.size : 1
      if (!(held instanceof Holders)) held = holdersWith(held)
      held.set(sent)
      this.#entries += held.size - before
      this.#keys.set(key, held)
    } else {
      if (held === undefined) this.#entries++
      this.#keys.set(key, sent)
    }
  }

  #remember(session: number, sent: Sent): void {
    this.#sessions.delete(session)
    this.#sessions.set(session, sent)
    if (this.#sessions.size <= MOST_SESSIONS) return
    for (const oldest of this.#sessions.keys()) return void this.#sessions.delete(oldest)
  }
}

function holdersWith(sent: Sent): Holders {
  const holders = new Holders()
  holders.set(sent)
  return holders
}
