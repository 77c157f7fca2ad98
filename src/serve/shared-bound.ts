/** Something of which there is so much for all tenants: when others have taken it all, each still gets its share of what is
 * kept for that. */

export class SharedBound {
  readonly #free: number
  readonly #shareOf: (tenant: number) => number
  readonly #kept: number
  readonly #taken = new Map<number, number>()
  #all = 0

  /** `free`: for the first to come; `kept`: for those that have less than their share of it, `shareOf` 1. */
  constructor(free: number, kept = 0, shareOf: (tenant: number) => number = () => 0) {
    this.#free = free
    this.#kept = kept
    this.#shareOf = shareOf
  }

  get taken(): number {
    return this.#all
  }

  /** False when that would be too much. */
  take(amount: number, tenant = 0): boolean {
    const own = (this.#taken.get(tenant) ?? 0) + amount
    if (this.#all + amount > this.#free && own > this.#kept * this.#shareOf(tenant)) return false
    this.#taken.set(tenant, own)
    this.#all += amount
    return true
  }

  give(amount: number, tenant = 0): void {
    const own = (this.#taken.get(tenant) ?? 0) - amount
    if (own > 0) this.#taken.set(tenant, own)
    else this.#taken.delete(tenant)
    this.#all -= amount
  }
}
