/** The blocks of a KV pool: which are free, and what holds the others. A block with one live holder is that holder's own:
 * it is free (or cached) again when that one leaves; the others are shared. */
import { assert } from "../assert.ts"

/** A sequence of blocks, as far as counting goes. */
export interface BlockOwner {
  /** Names it among all owners: the sum of the names of a block's live holders tells which one is left. */
  readonly name: number
  /** Blocks held, in order. */
  blocks: number[]
  /** Of these, those that no other live owner holds. Kept by Blocks. */
  own: number
}

export class Blocks {
  readonly count: number
  #free: number[] = []
  /** Holders of each block: live and cached ones; live ones alone; the sum of the live ones' names. */
  #references: Uint32Array
  #liveReferences: Uint32Array
  #liveNames: Uint32Array
  #owners = new Map<number, BlockOwner>()
  /** With a live holder, and with several. */
  live = 0
  shared = 0

  constructor(count: number) {
    this.count = count
    this.#references = new Uint32Array(count)
    this.#liveReferences = new Uint32Array(count)
    this.#liveNames = new Uint32Array(count)
    for (let block = count - 1; block >= 0; block--) this.#free.push(block)
  }

  get free(): number {
    return this.#free.length
  }
  isLive(block: number): boolean {
    return this.#liveReferences[block]! > 0
  }
  liveHolders(block: number): number {
    return this.#liveReferences[block]!
  }
  /** It has one live holder. */
  isOwn(block: number): boolean {
    return this.liveHolders(block) === 1
  }
  holders(block: number): number {
    return this.#references[block]!
  }

  /** A live owner takes the next free block. */
  take(owner: BlockOwner): void {
    const block = this.#free.pop()
    if (block === undefined) assert(false, "no block is free")
    this.share(owner, block)
  }

  /** A live owner holds this block, too. */
  share(owner: BlockOwner, block: number): void {
    if (owner.blocks.length === 0) this.#owners.set(owner.name, owner)
    this.#references[block]!++
    const before = this.#liveReferences[block]!++
    if (before === 0) {
      this.live++
      owner.own++
    } else if (before === 1) {
      this.shared++
      this.#owners.get(this.#liveNames[block]!)!.own--
    }
    this.#liveNames[block]! += owner.name
    owner.blocks.push(block)
  }

  /** A live owner gives up its last block. */
  pop(owner: BlockOwner): void {
    const block = owner.blocks.pop()!
    this.#leave(owner, block)
    this.#unreference(block)
  }

  /** An owner is live no more, but holds its blocks. */
  retire(owner: BlockOwner): void {
    for (const block of owner.blocks) this.#leave(owner, block)
    this.#owners.delete(owner.name)
  }

  /** A retired owner gives up its last block. */
  popRetired(owner: BlockOwner): void {
    this.#unreference(owner.blocks.pop()!)
  }

  /** A retired owner gives up all it holds. */
  forget(owner: BlockOwner): void {
    for (const block of owner.blocks) this.#unreference(block)
    owner.blocks = []
  }

  /** Throws unless all counts are those of these owners. */
  check(live: Iterable<BlockOwner>, retired: Iterable<BlockOwner>): void {
    const references = new Uint32Array(this.count)
    const liveReferences = new Uint32Array(this.count)
    const alive = [...live]
    for (const { blocks } of alive) for (const block of blocks) liveReferences[block]!++
    for (const { blocks } of [...alive, ...retired]) for (const block of blocks) references[block]!++
    for (let block = 0; block < this.count; block++) {
      assert(
        references[block] === this.#references[block] &&
          liveReferences[block] === this.#liveReferences[block],
        `block ${block} has ${references[block]} holders, ${liveReferences[block]} of them live; counted ` +
          `${this.#references[block]} and ${this.#liveReferences[block]}`,
      )
    }
    const most = (least: number, of: Uint32Array) => of.reduce((n, r) => n + (r >= least ? 1 : 0), 0)
    assert(most(1, references) + this.free === this.count, "blocks lost")
    assert(most(1, liveReferences) === this.live, `${this.live} live blocks counted`)
    assert(most(2, liveReferences) === this.shared, `${this.shared} shared blocks counted`)
    for (const { blocks, own, name } of alive)
      assert(
        own === blocks.filter((block) => liveReferences[block] === 1).length,
        `owner ${name}: ${own} own blocks counted`,
      )
  }

  #leave(owner: BlockOwner, block: number): void {
    this.#liveNames[block]! -= owner.name
    const left = --this.#liveReferences[block]!
    if (left === 0) {
      this.live--
      owner.own--
    } else if (left === 1) {
      this.shared--
      this.#owners.get(this.#liveNames[block]!)!.own++
    }
  }

  #unreference(block: number): void {
    if (--this.#references[block]! === 0) this.#free.push(block)
  }
}
