/** Which blocks are computed, and where a prefix can be found: from the chain hash of a KV block to the blocks that hold
 * it, and from a block to a sequence that has computed it. Sequences that share a block count as one entry: with a long
 * system prompt everything running shares hundreds, and to enter each of them anew would be most of a decision's time. */
import { assert } from "../assert.ts"
import { PrefixIndex } from "./prefix-index.ts"

/** A sequence as far as its computed blocks go. */
export interface ComputedSequence {
  /** Blocks held, in order, and the chain hash of each that is full. */
  readonly blocks: readonly number[]
  readonly prefix: readonly number[]
  /** Leading blocks that it has computed, and so others may share. */
  indexed: number
}

export class ComputedBlocks<S extends ComputedSequence> {
  /** From chain hashes to blocks: several where the same was computed more than once. */
  #index = new PrefixIndex<number>()
  /** Of each block: how many sequences have computed it, and one of them, if one is known. */
  #sequences: Uint32Array
  #one: (S | undefined)[] = []

  constructor(count: number) {
    this.#sequences = new Uint32Array(count)
  }

  /** `sequence` has computed its first `blocks` blocks. */
  grow(sequence: S, blocks: number): void {
    for (; sequence.indexed < blocks; sequence.indexed++) {
      const block = sequence.blocks[sequence.indexed]!
      if (this.#sequences[block]!++ > 0) continue
      this.#index.add(sequence.prefix[sequence.indexed]!, block)
      this.#one[block] = sequence
    }
  }

  /** It has no more of them than its first `blocks`; before it gives up the blocks themselves. */
  shrink(sequence: S, blocks: number): void {
    while (sequence.indexed > blocks) {
      const at = --sequence.indexed
      const block = sequence.blocks[at]!
      if (--this.#sequences[block]! === 0) this.#index.remove(sequence.prefix[at]!, block)
      if (this.#one[block] === sequence) this.#one[block] = undefined
    }
  }

  /** Leading blocks of `prefix`, at most `most`, that some sequence has computed. `near`: the answer last time. */
  longest(prefix: readonly number[], most: number, near = 0): number {
    return this.#index.longest(prefix, most, near)
  }

  /** The blocks with this hash, the one that came first, first. */
  copies(hash: number): Iterable<number> {
    return this.#index.of(hash)
  }

  /** How many sequences have computed a block with this hash. */
  count(hash: number): number {
    let count = 0
    for (const block of this.#index.of(hash)) count += this.#sequences[block]!
    return count
  }

  /** A sequence that has computed this block, which is the `at`-th of all that have; looked for among `all` where the one
   * that was known has left. */
  sequenceWith(block: number, at: number, all: () => Iterable<S>): S {
    const known = this.#one[block]
    if (known !== undefined) return known
    for (const sequence of all()) {
      if (sequence.indexed <= at || sequence.blocks[at] !== block) continue
      this.#one[block] = sequence
      return sequence
    }
    assert(false, `no sequence has block ${block}`)
  }

  /** Throws unless all entries are those of these sequences. */
  check(all: Iterable<S>): void {
    const sequences = new Uint32Array(this.#sequences.length)
    const hashes = new Map<number, number>()
    for (const sequence of all) {
      assert(sequence.indexed <= sequence.blocks.length, "computed blocks that it does not hold")
      for (let at = 0; at < sequence.indexed; at++) {
        const block = sequence.blocks[at]!
        sequences[block]!++
        hashes.set(block, sequence.prefix[at]!)
        const one = this.#one[block]
        assert(
          one === undefined || (one.indexed > at && one.blocks[at] === block),
          "stale sequence of a block",
        )
      }
    }
    for (let block = 0; block < sequences.length; block++)
      assert(
        sequences[block] === this.#sequences[block],
        `${sequences[block]} sequences have computed block ${block}; counted ${this.#sequences[block]}`,
      )
    for (const [hash, block] of this.#index.entries()) {
      assert(hashes.get(block) === hash, "stale prefix index")
      hashes.delete(block)
    }
    assert(hashes.size === 0, "blocks missing in the prefix index")
  }
}
