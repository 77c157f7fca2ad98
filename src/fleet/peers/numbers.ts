/** Numbers of processes elsewhere, above those of the processes here; one that is free is given again. */

export class Numbers {
  readonly #first: number
  readonly #taken = new Set<number>()

  constructor(first: number) {
    this.#first = first
  }

  take(): number {
    let number = this.#first
    while (this.#taken.has(number)) number++
    this.#taken.add(number)
    return number
  }

  free(number: number): void {
    this.#taken.delete(number)
  }
}
