/** KV accounting of the fake engine with a unified pool: blocks, shared by prefix copies, counted once. */
import type { RequestId } from "../../core/protocol.ts"

interface Block {
  owners: number
}

export class FakePool {
  readonly #blockTokens: number
  readonly #blocks = new Map<RequestId, Block[]>()
  #used = 0

  constructor(blockTokens: number) {
    this.#blockTokens = blockTokens
  }

  get usedTokens(): number {
    return this.#used * this.#blockTokens
  }

  /** `to` holds the first `tokens` tokens of `from`: whole blocks are shared, the rest is copied. */
  share(from: RequestId, to: RequestId, tokens: number): void {
    const shared = this.#of(from).slice(0, Math.floor(tokens / this.#blockTokens))
    for (const block of shared) block.owners++
    this.truncate(to, 0)
    this.#blocks.set(to, shared)
    this.grow(to, shared.length * this.#blockTokens, tokens)
  }

  truncate(id: RequestId, tokens: number): void {
    const blocks = this.#of(id)
    while (blocks.length > Math.ceil(tokens / this.#blockTokens)) this.#drop(blocks.pop()!)
    if (blocks.length === 0) this.#blocks.delete(id)
  }

  /** Writes tokens [position, end): a shared block written into becomes the writer's own. */
  grow(id: RequestId, position: number, end: number): void {
    const blocks = this.#of(id)
    const first = Math.floor(position / this.#blockTokens)
    const last = blocks[first]
    if (position % this.#blockTokens !== 0 && last && last.owners > 1) {
      this.#drop(last)
      blocks[first] = this.#fresh()
    }
    while (blocks.length * this.#blockTokens < end) blocks.push(this.#fresh())
    this.#blocks.set(id, blocks)
  }

  #of(id: RequestId): Block[] {
    return this.#blocks.get(id) ?? []
  }

  #fresh(): Block {
    this.#used++
    return { owners: 1 }
  }

  #drop(block: Block): void {
    if (--block.owners === 0) this.#used--
  }
}
