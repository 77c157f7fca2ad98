/** Steps that several adapters need between them, where a step computes only so many of them (feasible.ts). */
import { Paces } from "./streams.ts"

interface Adapter {
  paces: Paces
  prefills: number
}

export class AdapterSteps {
  readonly #mostAtOnce: number
  readonly #adapters = new Map<number, Adapter>()
  #ofRow: (Adapter | undefined)[] = []

  constructor(mostAtOnce: number) {
    this.#mostAtOnce = mostAtOnce
  }

  clear(): void {
    this.#adapters.clear()
    this.#ofRow.length = 0
  }

  /** Decodes; see Paces. */
  add(adapter: number | undefined, row: number, startUs: number, stepsPerUs: number, steps: number): void {
    const of = adapter === undefined ? undefined : this.#of(adapter)
    this.#ofRow[row] = of
    of?.paces.add(row, startUs, stepsPerUs, steps)
  }

  drop(row: number): void {
    this.#ofRow[row]?.paces.drop(row)
  }

  restore(row: number): void {
    this.#ofRow[row]?.paces.restore(row)
  }

  /** So many more prompts. */
  addPrefill(adapter: number | undefined, count: number): void {
    if (adapter !== undefined) this.#of(adapter).prefills += count
  }

  /** Steps that all of them need by then. A prompt takes one at least. */
  most(horizon: number): number {
    let [steps, longest] = [0, 0]
    for (const { paces, prefills } of this.#adapters.values()) {
      const own = Math.max(paces.most(horizon), prefills > 0 ? 1 : 0)
      steps += own
      longest = Math.max(longest, own)
    }
    return Math.max(longest, steps / this.#mostAtOnce)
  }

  #of(adapter: number): Adapter {
    let of = this.#adapters.get(adapter)
    if (of === undefined) {
      of = { paces: new Paces(), prefills: 0 }
      this.#adapters.set(adapter, of)
    }
    return of
  }
}
