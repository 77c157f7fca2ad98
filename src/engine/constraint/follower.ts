/** One request's place in its grammar: which tokens may come next, after what has come. Nearly always one branch.
 * Where a bounded string may begin and something else as well, it follows all of them: a mark is taken or not. */
import { type Beginning, Branch, type Course } from "./branch.ts"
import { allows, allowsNothing } from "./mask.ts"

/** More are not followed; what they would let come is then not to be had. */
const MOST_BRANCHES = 8

export class Follower {
  #branches: Branch[]
  /** Of what comes next; null where a token was taken since. */
  #mask: Int32Array | null = null

  static async start(course: Course, beginning: Beginning | null = null): Promise<Follower> {
    return new Follower(await Branch.start(course, beginning))
  }

  private constructor(branch: Branch) {
    this.#branches = [branch]
  }

  /** Tokens that may come next, a bit each; none after the end. Not to be changed. */
  async mask(): Promise<Int32Array> {
    this.#mask ??= await this.#next()
    return this.#mask
  }

  /** Goes on by a token; false, and where it was, when the grammar does not let it come. */
  async take(token: number): Promise<boolean> {
    const gone = await this.#advance(token)
    for (const branch of gone ?? []) branch.dispose()
    return gone !== null
  }

  /** Masks before each of these tokens and after the last, as far as the grammar lets them come; then it is back where
   * it was. */
  async ahead(tokens: readonly number[]): Promise<Int32Array[]> {
    const mask = await this.mask()
    const before = this.#branches.map((branch) => ({ branch, place: branch.place }))
    const masks = [mask]
    const passed = new Set<Branch>()
    for (const token of tokens) {
      const gone = await this.#advance(token)
      if (gone === null) break
      masks.push(await this.mask())
      for (const branch of [...gone, ...this.#branches]) passed.add(branch)
    }
    for (const { branch, place } of before) {
      branch.back(place)
      passed.delete(branch)
    }
    for (const branch of passed) branch.dispose()
    this.#branches = before.map(({ branch }) => branch)
    this.#mask = mask
    return masks
  }

  dispose(): void {
    for (const branch of this.#branches) branch.dispose()
  }

  /** The branches that a token has ended, or null when it ended all: then nothing has changed. */
  async #advance(token: number): Promise<Branch[] | null> {
    if (!allows(await this.mask(), token)) return null
    const alive = this.#branches.filter((branch) => branch.allowed(token) && branch.take(token))
    if (alive.length === 0) return null
    const gone = this.#branches.filter((branch) => !alive.includes(branch))
    this.#branches = alive
    this.#mask = null
    return gone
  }

  /** The union of what branches let come, after each bounded string that may begin has begun. */
  async #next(): Promise<Int32Array> {
    let union: Int32Array | null = null
    // Those that are added are visited, too.
    for (const branch of this.#branches) {
      const mask = await this.#enterStrings(branch)
      if (union === null) union = mask.slice()
      else for (const [i, word] of mask.entries()) union[i]! |= word
    }
    return union!
  }

  /** What a branch lets come. It enters the string that must begin there; where one may, others enter it. */
  async #enterStrings(branch: Branch): Promise<Int32Array> {
    const mask = await branch.next()
    const [first, ...others] = branch.marksOf(mask)
    if (first === undefined) return branch.settle(mask)
    const more = branch.settle(mask)
    const must = allowsNothing(more)
    for (const mark of must ? others : [first, ...others]) {
      if (this.#branches.length >= MOST_BRANCHES) break
      const fork = await branch.fork()
      fork.enter(mark)
      this.#branches.push(fork)
    }
    if (!must) return more
    branch.enter(first)
    return branch.settle(await branch.next())
  }
}
