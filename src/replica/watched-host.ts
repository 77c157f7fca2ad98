/** What replicas seen from afar have alike: a state with its reason, what they serve, and those that are told of changes. */
import type { Digest, HostInfo, HostState } from "./host.ts"
import type { Observed } from "./observed.ts"

export abstract class WatchedHost {
  readonly name: string
  readonly #stateListeners = new Set<(state: HostState) => void>()
  readonly #observedListeners = new Set<(observed: Observed) => void>()
  #state: HostState = "starting"
  #detail: string
  #info: HostInfo | null = null

  /** `detail`: what it does until it is ready. */
  constructor(name: string, detail: string) {
    this.name = name
    this.#detail = detail
  }

  get state(): HostState {
    return this.#state
  }
  get detail(): string {
    return this.#detail
  }
  get info(): HostInfo | null {
    return this.#info
  }

  abstract digest(): Digest | null

  get computes(): boolean {
    return (this.digest()?.engine.state ?? "ok") === "ok"
  }

  onState(listener: (state: HostState) => void): () => void {
    this.#stateListeners.add(listener)
    return () => this.#stateListeners.delete(listener)
  }

  onObserved(listener: (observed: Observed) => void): () => void {
    this.#observedListeners.add(listener)
    return () => this.#observedListeners.delete(listener)
  }

  protected serves(info: HostInfo | null): void {
    this.#info = info
  }

  protected become(state: HostState, detail: string): void {
    if (this.#state === state && this.#detail === detail) return
    this.#state = state
    this.#detail = detail
    for (const listener of [...this.#stateListeners]) listener(state)
  }

  /** Another reason for the same state: nothing new happened. */
  protected explain(detail: string): void {
    this.#detail = detail
  }

  protected observed(observed: Observed): void {
    for (const listener of this.#observedListeners) listener(observed)
  }
}
