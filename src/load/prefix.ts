/** Prompts that begin alike: which blocks of a planned prompt other requests have too, in a plan, in the text that
 * replay sends, and in the block hashes that the simulated scheduler sees. */
import { Random } from "../random.ts"
import type { PlannedRequest } from "./plan.ts"
import type { PromptPrefix } from "./trace.ts"

/** A request whose prefix ids hold within `space` only (its trace and copy of it). */
export interface Prefixed {
  request: PlannedRequest
  space: string
}

/** Number the plan's prefix ids afresh over all spaces, and leave out those that one request alone has (ids name
 * whole prefixes, so what follows an unshared one is unshared). */
export function shareWithin(entries: readonly Prefixed[]): void {
  const uses = new Map<string, number>()
  const keysOf = ({ request, space }: Prefixed) => request.prefix?.ids.map((id) => `${space}:${id}`) ?? []
  for (const entry of entries) for (const key of keysOf(entry)) uses.set(key, (uses.get(key) ?? 0) + 1)
  const names = new Map<string, number>()
  for (const entry of entries) {
    const { request } = entry
    if (request.prefix === undefined) continue
    const shared = keysOf(entry).filter((key) => uses.get(key)! > 1)
    if (shared.length === 0) delete request.prefix
    else {
      for (const key of shared) if (!names.has(key)) names.set(key, names.size)
      request.prefix.ids = shared.map((key) => names.get(key)!)
    }
  }
}

/** The part of an unscaled prefix that a prompt shortened by `scale` to `promptTokens` still holds. Its blocks are divided
 * exactly, into fractions of tokens: rounded ones would drift from the prompts' lengths, block by block. */
export function scaledPrefix(prefix: PromptPrefix, scale: number, promptTokens: number): PromptPrefix {
  const blockTokens = prefix.blockTokens / scale
  return { blockTokens, ids: prefix.ids.slice(0, Math.ceil(promptTokens / blockTokens)) }
}

/** Token at which each block of the prefix ends in a prompt of `promptTokens`. */
function blockEnds({ blockTokens, ids }: PromptPrefix, promptTokens: number): number[] {
  return ids.map((_, k) => Math.min(promptTokens, Math.floor((k + 1) * blockTokens)))
}

/** Requests of one plan, and blocks of one prompt, that block hashes can tell apart. */
const MOST_BLOCKS = 2 ** 20

/** RequestSpec.prefix of one round: a hash of each full KV block of its prompt of `promptTokens` (history included).
 * Equal over requests as far as their planned prefixes are; else of this request (`index` in the plan) alone, whose
 * rounds share their history. */
export function prefixBlocks(
  request: PlannedRequest,
  index: number,
  promptTokens: number,
  blockTokens: number,
): number[] {
  const ids = request.prefix?.ids ?? []
  const ends = request.prefix === undefined ? [] : blockEnds(request.prefix, request.rounds[0]!.promptTokens)
  let planned = 0
  return Array.from({ length: Math.floor(promptTokens / blockTokens) }, (_, block) => {
    // The planned block that holds the KV block's last token says what all tokens up to it are.
    while (planned < ids.length && ends[planned]! < (block + 1) * blockTokens) planned++
    const id = ids[planned]
    return id === undefined ? index * MOST_BLOCKS + block : -1 - (id * MOST_BLOCKS + block)
  })
}

/** Token ids of what a prompt of `promptTokens` begins with, the same for every request of the run (`nonce`) that
 * shares it. */
export function prefixTokens(
  prefix: PromptPrefix,
  promptTokens: number,
  nonce: string,
  range: { from: number; to: number },
): number[] {
  const ends = blockEnds(prefix, promptTokens)
  return prefix.ids.flatMap((id, k) => {
    const random = new Random(nonce, "prefix", id)
    return Array.from({ length: ends[k]! - (ends[k - 1] ?? 0) }, () => random.integer(range.from, range.to))
  })
}
