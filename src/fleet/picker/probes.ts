/** Asks the endpoints again and again whether they serve, and how busy they say they are: health, /metrics and limits, as
 * their kind of engine gives them. What other gateways send there is seen only so. */
import { Agent } from "undici"
import type { BackendKind, Learnt } from "../backends/kind.ts"
import { Prober } from "../backends/prober.ts"
import type { Endpoint } from "./chooser.ts"

export interface ProbesOptions {
  kind: BackendKind
  /** Between two looks at an endpoint, ms. */
  everyMs: number
  /** https: of engines that serve TLS. */
  scheme: "http" | "https"
  learnt(endpoint: Endpoint, learnt: Learnt): void
  /** It serves, or no longer; with the reason, for people. */
  changed(endpoint: Endpoint, up: boolean, detail: string): void
}

export class Probes {
  readonly #options: ProbesOptions
  readonly #dispatcher = new Agent({ connections: 2 })
  readonly #probers = new Map<Endpoint, Prober>()
  readonly #down = new Set<Endpoint>()

  constructor(options: ProbesOptions) {
    this.#options = options
  }

  setEndpoints(endpoints: readonly Endpoint[]): void {
    const known = new Set(endpoints)
    for (const [endpoint, prober] of this.#probers) {
      if (known.has(endpoint)) continue
      prober.close()
      this.#probers.delete(endpoint)
      this.#down.delete(endpoint)
    }
    for (const endpoint of endpoints)
      if (!this.#probers.has(endpoint)) this.#probers.set(endpoint, this.#prober(endpoint))
  }

  /** Those that are not down; all of them where none is left: a probe may be refused where requests are not. */
  left(endpoints: readonly Endpoint[]): readonly Endpoint[] {
    if (this.#down.size === 0) return endpoints
    const left = endpoints.filter((endpoint) => !this.#down.has(endpoint))
    return left.length === 0 ? endpoints : left
  }

  close(): void {
    this.setEndpoints([])
    void this.#dispatcher.destroy()
  }

  #prober(endpoint: Endpoint): Prober {
    const { kind, everyMs: probeMs, scheme, learnt, changed } = this.#options
    const options = { url: `${scheme}://${endpoint}`, kind, probeMs, dispatcher: this.#dispatcher }
    return new Prober(options, {
      learnt: (what) => learnt(endpoint, what),
      up: () => {
        if (this.#down.delete(endpoint)) changed(endpoint, true, "")
      },
      down: (detail) => {
        if (this.#down.has(endpoint)) return
        this.#down.add(endpoint)
        changed(endpoint, false, detail)
      },
    })
  }
}
