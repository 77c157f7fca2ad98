/** Which batches are measured: the shapes a scheduler runs. Decodes alone, prefill chunks alone (long and
 * under the engine's fast length), both together; each at several contexts. */
import type { EngineLimits } from "../core/protocol.ts"

export type PointKind = "decode" | "prefill" | "mixed" | "short" | "speculation"

/** A batch shape: so many decodes and these prefill chunks, all at the context of their scene. */
export interface GridPoint {
  kind: PointKind
  decodes: number
  /** Tokens that every decode drafts. */
  draft: number
  /** Tokens of each prefill chunk, one request each. */
  chunks: number[]
}

export interface Grid {
  /** Tokens already in place before the batch, ascending. */
  contexts: number[]
  points: GridPoint[]
  /** Times that every context is visited. */
  rounds: number
  /** Total step time to spend, µs. */
  budgetUs: number
}

const QUICK_BUDGET_US = 8e6
const FULL_BUDGET_US = 120e6
/** Share of the budget that filling the longest context may take. */
const FILL_SHARE = 0.25
/** No step may take more than this share, unless it has few tokens: schedulers keep steps short, too. */
const STEP_SHARE = 0.05
const FEW_TOKENS = 64
const MOST_CHUNKS = 2

/** The shortest context. So few tokens that requests can compute them afresh, and decode from there: else
 * sampling would be seen only together with long contexts, and take the blame for them. */
export const START_CONTEXT = 4

/** How many requests play which part. With a source of prefixes the others copy their context from it; too few
 * sequences for one, and every request computes its own. */
export function partsFor(limits: EngineLimits): { source: boolean; decodes: number; prefills: number } {
  const { maxSequences, maxBatchTokens } = limits
  if (maxSequences < MOST_CHUNKS + 2) return { source: false, decodes: maxSequences - 1, prefills: 1 }
  const decodes = Math.min(maxSequences - MOST_CHUNKS - 1, maxBatchTokens)
  return { source: true, decodes, prefills: MOST_CHUNKS }
}

/** A grid for an engine that prefills so many tokens per second; `maxDraft`: most tokens that a decode drafts,
 * 0 where nothing speculates. */
export function gridFor(limits: EngineLimits, tokensPerSec: number, quick: boolean, maxDraft = 0): Grid {
  const budgetUs = quick ? QUICK_BUDGET_US : FULL_BUDGET_US
  const affordable = (share: number) => Math.floor((budgetUs / 1e6) * share * tokensPerSec)
  const room = Math.max(32, limits.contextTokens - 64)
  const longest = Math.max(16, Math.min(Math.floor(room * 0.75), affordable(FILL_SHARE)))
  const mostChunk = Math.min(
    limits.maxBatchTokens,
    room - longest,
    Math.max(FEW_TOKENS, affordable(STEP_SHARE)),
  )
  const contexts = quick
    ? [START_CONTEXT, longest / 3, longest]
    : [START_CONTEXT, longest / 8, longest / 3, (2 * longest) / 3, longest]
  return {
    contexts: [...new Set(contexts.map((n) => Math.max(1, Math.round(n))))].sort((a, b) => a - b),
    points: pointsFor(limits, mostChunk, Math.max(FEW_TOKENS, affordable(STEP_SHARE)), quick, maxDraft),
    rounds: quick ? 1 : 4,
    budgetUs,
  }
}

function pointsFor(
  limits: EngineLimits,
  mostChunk: number,
  mostTokens: number,
  quick: boolean,
  maxDraft: number,
): GridPoint[] {
  const fast = limits.minChunkTokens
  const parts = partsFor(limits)
  const counts = upTo(
    parts.decodes,
    quick ? [1, 2, 4, 8, 16, 32] : [1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 128],
  )
  const chunks = upTo(mostChunk, quick ? [64, 128, 256, 512] : [64, 96, 128, 192, 256, 384, 512])
  const points: GridPoint[] = []
  const add = (kind: PointKind, decodes: number, ...sizes: number[]) => point(0, kind, decodes, ...sizes)
  const point = (draft: number, kind: PointKind, decodes: number, ...sizes: number[]) => {
    const tokens = decodes * (1 + draft) + sizes.reduce((sum, size) => sum + size, 0)
    const fits =
      tokens <= Math.min(limits.maxBatchTokens, mostTokens) &&
      sizes.every((size) => size >= 1 && size <= mostChunk)
    if (fits && sizes.length <= Math.min(MOST_CHUNKS, limits.maxSequences - decodes - 1))
      points.push({ kind, decodes, draft, chunks: sizes })
  }
  for (const count of counts) add("decode", count)
  for (const chunk of chunks) {
    add("prefill", 0, chunk)
    if (!quick) add("prefill", 0, Math.floor(chunk / 2), Math.ceil(chunk / 2))
  }
  add("prefill", 0, 32, 32)
  add("prefill", 0, 64, 64)
  add("prefill", 0, 64, 128)
  for (const short of [1, 2, 4, 8, 16, 32, fast - 1].filter((size) => size >= 1)) {
    add("short", 0, short)
    if (!quick) add("short", 0, short, 64)
  }
  add("short", 0, 8, 40)
  add("short", 0, 24, 96)
  const full = counts.at(-1) ?? 0
  const some = quick ? [full, Math.ceil(full / 4)] : counts.filter((_, i) => i % 2 === 0)
  for (const count of new Set(some.filter((n) => n > 0))) {
    for (const chunk of quick ? [64, mostChunk >> 1] : chunks) add("mixed", count, chunk)
    add("mixed", count, 16)
    add("mixed", count, 32)
    add("mixed", count, 64, 100)
  }
  for (const length of maxDraft > 0 ? upTo(maxDraft, quick ? [1, 3, 7] : [1, 2, 3, 4, 5, 6, 7]) : []) {
    const few = quick ? [1, Math.ceil(full / 4), full] : counts
    for (const count of new Set(few.filter((n) => n > 0))) point(length, "speculation", count)
    point(length, "speculation", Math.ceil(full / 4), 64)
  }
  return points
}

function upTo(most: number, sizes: number[]): number[] {
  if (most < 1) return []
  const fitting = sizes.filter((size) => size < most)
  return [...fitting, Math.min(most, sizes.at(-1)!)]
}
