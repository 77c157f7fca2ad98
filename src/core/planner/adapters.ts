/** Adapters (LoRA) of the batch under construction: an engine computes at most so many different ones in a step. */
import type { LiveRequest } from "../request.ts"

/** Stands for no adapter: the model itself, of which every batch has room. */
export const NO_ADAPTER = 0

export const adapterOf = ({ spec }: LiveRequest): number => spec.adapter ?? NO_ADAPTER

export class AdapterPlaces {
  readonly most: number
  readonly #taken = new Set<number>()
  /** Kept for requests that are still to be added. */
  readonly #reserved = new Set<number>()

  constructor(most = Infinity) {
    this.most = most
  }

  clear(): void {
    this.#taken.clear()
    this.#reserved.clear()
  }

  /** The request may join the batch. */
  allow(request: LiveRequest): boolean {
    return this.#has(adapterOf(request)) || this.isFree
  }

  get isFree(): boolean {
    return this.#taken.size + this.#reserved.size < this.most
  }

  /** It has joined. */
  take(request: LiveRequest): void {
    const adapter = adapterOf(request)
    if (adapter === NO_ADAPTER || this.most === Infinity) return
    this.#reserved.delete(adapter)
    this.#taken.add(adapter)
  }

  /** Nothing else gets this place, unless it is given up. */
  reserve(adapter: number): void {
    if (!this.#has(adapter) && this.isFree) this.#reserved.add(adapter)
  }

  /** What was reserved and not taken is for all that is still to come. Answers whether any was. */
  release(): boolean {
    const any = this.#reserved.size > 0
    this.#reserved.clear()
    return any
  }

  #has(adapter: number): boolean {
    return adapter === NO_ADAPTER || this.#taken.has(adapter) || this.#reserved.has(adapter)
  }
}
