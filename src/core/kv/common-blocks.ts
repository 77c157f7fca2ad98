/** Blocks that several live sequences have, where an engine that owns its KV may count otherwise than the core. */
import type { Sequence } from "./sequence.ts"

type Common = Pick<Sequence, "blocks" | "prefix">

/** Of the blocks that only this live sequence holds, those of a prefix that others in `live` have, too: which of the copies is
 * shared is the engine's choice, so that they may not be free when this one goes. */
export function doubtfulBlocks(
  { blocks, prefix }: Common,
  live: Iterable<Common>,
  isOwn: (block: number) => boolean,
): number {
  let common = 0
  for (const other of live) {
    const most = Math.min(blocks.length, prefix.length, other.blocks.length, other.prefix.length)
    if (other.blocks !== blocks) while (common < most && other.prefix[common] === prefix[common]) common++
  }
  let count = 0
  for (let at = 0; at < common; at++) if (isOwn(blocks[at]!)) count++
  return count
}

/** Of the blocks that a sequence has left, those that none but `heirs` hold: how many, by the first of them that does. `holders`: of
 * a block, among live sequences. */
export function inheritedBlocks(
  left: readonly number[],
  heirs: readonly Pick<Sequence, "blocks">[],
  holders: (block: number) => number,
): number[] {
  const inherited = heirs.map(() => 0)
  for (const [at, block] of left.entries()) {
    const first = heirs.findIndex(({ blocks }) => blocks[at] === block)
    // A prefix is shared from its beginning on.
    if (first < 0) break
    const holding = heirs.filter(({ blocks }) => blocks[at] === block).length
    if (holding === holders(block)) inherited[first]!++
  }
  return inherited
}
