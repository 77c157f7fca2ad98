/** Where a request's KV is likely to be: where its session's last round was sent, and where prompts that begin alike were.
 * Without a tokenizer prefixes are told apart by the bytes of their text. It orders the endpoints that are asked; what
 * an engine has computed already is not counted on. */
import type { Snapshot } from "../../core/protocol.ts"
import { PrefixMap } from "../../router/prefix-map.ts"
import { PrefixHasher } from "../../serve/prefix.ts"
import type { Ask } from "./ask.ts"
import type { Endpoint } from "./chooser.ts"

/** Four bytes stand for a token, sixteen of these for a key. */
const BYTES_PER_UNIT = 4
const KEY_UNITS = 16
/** Bodies longer than this are not looked into: it would take as long as all the rest. */
const MOST_BYTES = 1 << 20
const MOST_SESSIONS = 100_000
const MOST_HOLDERS = 2

/** Engines do not say what they evict. */
const NOTHING_EVICTED: Snapshot = {
  ...{ nowUs: 0, waiting: 0, running: 0, bestEffort: 0, batchInFlight: false, prefillBacklogTokens: 0 },
  ...{ kvUsedTokens: 0, kvCachedTokens: 0, kvEvictedTokens: 0, kvCapacityTokens: 0, prefillUsPerToken: 0 },
  ...{ calibration: [1, 1, 1], speculation: [] },
}

export class Affinity {
  readonly #map = new PrefixMap({ keyTokens: KEY_UNITS })
  /** Endpoints by their number in the map, and back. */
  readonly #endpoints: Endpoint[] = []
  readonly #numbers = new Map<Endpoint, number>()
  readonly #homes = new Map<string, Endpoint>()
  readonly #keys = new WeakMap<Ask, number[]>()

  /** The same endpoints, those first where the request's KV may be. */
  order(ask: Ask, endpoints: readonly Endpoint[]): readonly Endpoint[] {
    if (endpoints.length < 2) return endpoints
    const home = ask.session === null ? undefined : this.#homes.get(sessionKey(ask))
    const holders = this.#map.holders(this.#routed(ask), MOST_HOLDERS, 0).map((n) => this.#endpoints[n]!)
    const wanted = home === undefined ? holders : [home, ...holders]
    const near = [...new Set(wanted)].filter((endpoint) => endpoints.includes(endpoint))
    if (near.length === 0) return endpoints
    return [...near, ...endpoints.filter((endpoint) => !near.includes(endpoint))]
  }

  sent(ask: Ask, endpoint: Endpoint): void {
    this.#map.sent(this.#routed(ask), this.#numberOf(endpoint), NOTHING_EVICTED)
    if (ask.session === null) return
    const session = sessionKey(ask)
    this.#homes.delete(session)
    this.#homes.set(session, endpoint)
    if (this.#homes.size <= MOST_SESSIONS) return
    for (const oldest of this.#homes.keys()) return void this.#homes.delete(oldest)
  }

  /** It is gone, or failed: nothing of its KV is counted on when it comes back. */
  forget(endpoint: Endpoint): void {
    const number = this.#numbers.get(endpoint)
    if (number !== undefined) this.#map.forget(number)
  }

  #numberOf(endpoint: Endpoint): number {
    const known = this.#numbers.get(endpoint)
    if (known !== undefined) return known
    const number = this.#endpoints.push(endpoint) - 1
    this.#numbers.set(endpoint, number)
    return number
  }

  #routed(ask: Ask) {
    const known = this.#keys.get(ask)
    const prefix = known ?? keysOf(ask)
    if (known === undefined) this.#keys.set(ask, prefix)
    return { session: -1, promptTokens: ask.promptTokens, prefix }
  }
}

function sessionKey({ tenant, session }: Ask): string {
  return `${tenant}\n${session}`
}

/** Chain hashes of the prompt's text. */
function keysOf({ fields, bytes, model }: Ask): number[] {
  if (fields === null || bytes > MOST_BYTES) return []
  const { messages, prompt, input, tools, system } = fields
  const text = messages ?? prompt ?? input ?? ""
  const written = typeof text === "string" ? text : JSON.stringify(text)
  // Templates put tools and instructions before the messages.
  const before = [model, tools, system].map((part) => JSON.stringify(part ?? null)).join("\n")
  const all = Buffer.from(`${before}\n${written}`)
  const units = new Int32Array(Math.floor(all.length / BYTES_PER_UNIT))
  for (let i = 0; i < units.length; i++) units[i] = all.readInt32LE(i * BYTES_PER_UNIT)
  return new PrefixHasher(KEY_UNITS).push(units)
}
