/** What is told together at the end of the moment in which it came. */
export class Moment<T> {
  readonly #tell: (all: readonly T[]) => void
  #all: T[] = []

  constructor(tell: (all: readonly T[]) => void) {
    this.#tell = tell
  }

  add(one: T): void {
    if (this.#all.length === 0) queueMicrotask(() => this.#end())
    this.#all.push(one)
  }

  #end(): void {
    const all = this.#all
    this.#all = []
    this.#tell(all)
  }
}
