/** Chooses the endpoint with the fewest requests and prompt tokens under way, up to so many requests at each. It knows
 * nothing of step times: for engines that no twin stands for, and to measure what twins cost. */
import type { Ask } from "./ask.ts"
import type { Chooser, Endpoint, Sent } from "./chooser.ts"

/** A request is worth so many prompt tokens of load: its decoding. */
const REQUEST_TOKENS = 512
/** Guesses for engines of which nothing is known: they only order what waits. */
const ZERO_LOAD_BASE_US = 20_000
const ZERO_LOAD_TOKEN_US = 100

interface Load {
  requests: number
  tokens: number
}

export class LeastLoaded implements Chooser {
  onRoom: (() => void) | null = null
  readonly #most: number
  readonly #loads = new Map<Endpoint, Load>()
  #turn = 0

  /** `most`: requests at one endpoint at once. */
  constructor(most: number) {
    this.#most = most
  }

  setEndpoints(endpoints: readonly Endpoint[]): void {
    const known = new Set(endpoints)
    for (const [endpoint, { requests }] of this.#loads)
      if (!known.has(endpoint) && requests === 0) this.#loads.delete(endpoint)
  }

  choose(_ask: Ask, among: readonly Endpoint[]): Endpoint[] {
    const free = among.filter((endpoint) => (this.#loads.get(endpoint)?.requests ?? 0) < this.#most)
    return this.#byLoad(free)
  }

  /** Over its bound no endpoint takes a late request either: it waits its turn. */
  anywhere(ask: Ask, among: readonly Endpoint[]): Endpoint[] {
    return this.choose(ask, among)
  }

  sent({ promptTokens }: Ask, endpoint: Endpoint): Sent {
    let at = this.#load(endpoint)
    add(at, 1, promptTokens)
    let live = true
    return {
      servedBy: (other) => {
        if (!live) return
        add(at, -1, -promptTokens)
        at = this.#load(other)
        add(at, 1, promptTokens)
      },
      tokens: () => {},
      usage: () => {},
      ended: () => {
        if (!live) return
        live = false
        add(at, -1, -promptTokens)
        this.onRoom?.()
      },
    }
  }

  zeroLoadUs(ask: Ask): number {
    return ZERO_LOAD_BASE_US + ask.promptTokens * ZERO_LOAD_TOKEN_US
  }

  hopeless(_ask: Ask, dueUs: number, _among: readonly Endpoint[], nowUs: number): boolean {
    return dueUs < nowUs
  }

  close(): void {
    this.#loads.clear()
  }

  #load(endpoint: Endpoint): Load {
    const known = this.#loads.get(endpoint)
    if (known !== undefined) return known
    const load = { requests: 0, tokens: 0 }
    this.#loads.set(endpoint, load)
    return load
  }

  #byLoad(endpoints: Endpoint[]): Endpoint[] {
    const weight = (endpoint: Endpoint) => {
      const load = this.#loads.get(endpoint)
      return load === undefined ? 0 : load.requests * REQUEST_TOKENS + load.tokens
    }
    // Of equals each has its turn: else all that come at once to an idle fleet meet at its first endpoint.
    const from = endpoints.length === 0 ? 0 : this.#turn++ % endpoints.length
    const turned = [...endpoints.slice(from), ...endpoints.slice(0, from)]
    return turned.sort((a, b) => weight(a) - weight(b))
  }
}

function add(load: Load, requests: number, tokens: number): void {
  load.requests += requests
  load.tokens += tokens
}
