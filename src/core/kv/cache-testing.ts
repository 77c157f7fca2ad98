/** What the tests of kept KV share. Blocks of 16 tokens. */
import { LIMITS } from "../testing.ts"
import { KvAccount } from "./account.ts"

/** Chain hashes of the blocks of one prompt. */
export const hashes = (family: number, blocks: number) =>
  Array.from({ length: blocks }, (_, i) => family * 1000 + i)

interface Round {
  session?: number
  /** Tokens, all computed. Default: the prefix and one block. */
  tokens?: number
  spent?: boolean
}

/** A request with this prefix takes what it can share and computes the rest. Answers what it could share. */
export function begin(
  kv: KvAccount,
  id: number,
  prefix: number[],
  { session = -1, tokens, spent }: Round = {},
): number {
  const size = tokens ?? prefix.length * 16 + 16
  const found = kv.attach(id, prefix, session, kv.match(prefix, size))
  kv.grow(id, size)
  kv.computed(id, size)
  if (spent) kv.wontReturn(id)
  kv.check()
  return found
}
export function ended(kv: KvAccount, id: number, prefix: number[], round: Round = {}): void {
  begin(kv, id, prefix, round)
  kv.end(id)
}
export const pool = (blocks: number, changes: Partial<typeof LIMITS> = {}) =>
  new KvAccount({ ...LIMITS, kvTokens: 16 * blocks, ...changes })
