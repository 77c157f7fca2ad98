/** The KV blocks of an engine that owns them, as vLLM's block pool has them: blocks that several requests compute on their own are
 * there several times, full ones are found by their hashes until they are taken for something else, and those that were given up
 * longest ago are taken first. */
import { assert } from "../core/assert.ts"
import type { RequestId } from "../core/protocol.ts"

interface Block {
  holders: number
  /** Chain hash, once it is full. */
  hash: number | null
}

interface Held {
  blocks: Block[]
  /** Leading blocks that can be found. */
  hashed: number
}

export class BlockPool {
  readonly #held = new Map<RequestId, Held>()
  /** Blocks that no request holds: the first is taken first. */
  #free = new Set<Block>()
  /** The copies of each block that can be found, the one that came first, first. */
  readonly #byHash = new Map<number, Set<Block>>()

  constructor(blocks: number) {
    for (let i = 0; i < blocks; i++) this.#free.add({ holders: 0, hash: null })
  }

  /** Blocks that no request holds. */
  get free(): number {
    return this.#free.size
  }
  get holders(): Iterable<RequestId> {
    return this.#held.keys()
  }
  holds(id: RequestId): boolean {
    return this.#held.has(id)
  }

  /** Leading blocks with these hashes that are there. */
  found(prefix: readonly number[]): number {
    let blocks = 0
    while (blocks < prefix.length && this.#byHash.has(prefix[blocks]!)) blocks++
    return blocks
  }

  /** Give a request the first `shared` blocks of `prefix`, which are there, and new ones up to `blocks`; or, where it holds some
   * already, new ones up to `blocks`. False, and nothing changes, when there are too few. */
  take(id: RequestId, prefix: readonly number[], shared: number, blocks: number): boolean {
    const held = this.#held.get(id)
    if (held !== undefined) return this.#grow(held, blocks)
    const copies = prefix.slice(0, shared).map((hash) => this.#copyOf(hash))
    const unheld = copies.filter(({ holders }) => holders === 0)
    if (blocks - shared + unheld.length > this.free) return false
    for (const block of unheld) this.#free.delete(block)
    for (const block of copies) block.holders++
    const begun: Held = { blocks: copies, hashed: shared }
    this.#held.set(id, begun)
    return this.#grow(begun, blocks)
  }

  /** Its first blocks are full: `prefix` has their hashes. */
  fill(id: RequestId, prefix: readonly number[]): void {
    const held = this.#held.get(id)
    if (held === undefined) return
    for (; held.hashed < Math.min(prefix.length, held.blocks.length); held.hashed++) {
      const block = held.blocks[held.hashed]!
      const hash = prefix[held.hashed]!
      block.hash = hash
      const copies = this.#byHash.get(hash)
      if (copies === undefined) this.#byHash.set(hash, new Set([block]))
      else copies.add(block)
    }
  }

  /** It gives up all it holds: what can be found stays until it is taken. */
  release(id: RequestId): void {
    const { blocks } = this.#held.get(id) ?? { blocks: [] }
    this.#held.delete(id)
    const nameless: Block[] = []
    for (const block of blocks.toReversed()) {
      if (--block.holders > 0) continue
      if (block.hash === null) nameless.push(block)
      else this.#free.add(block)
    }
    if (nameless.length > 0) this.#free = new Set([...nameless, ...this.#free])
  }

  #grow(held: Held, blocks: number): boolean {
    if (blocks - held.blocks.length > this.free) return false
    while (held.blocks.length < blocks) held.blocks.push(this.#taken())
    return true
  }

  #taken(): Block {
    const { value: block } = this.#free.values().next()
    assert(block !== undefined, "no block is free")
    this.#free.delete(block)
    if (block.hash !== null) {
      const copies = this.#byHash.get(block.hash)!
      copies.delete(block)
      if (copies.size === 0) this.#byHash.delete(block.hash)
    }
    block.hash = null
    block.holders = 1
    return block
  }

  /** One that a request holds, if there is one: sharing it takes no room. */
  #copyOf(hash: number): Block {
    const copies = [...this.#byHash.get(hash)!]
    return copies.find(({ holders }) => holders > 0) ?? copies[0]!
  }
}
