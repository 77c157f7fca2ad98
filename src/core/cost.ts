/** Batch-time model: how long the engine takes for a batch, from the batch's shape. The largest of several linear
 * pieces (paper §3.1: k1·tokens + k2·specSteps + b), with the extra terms a CPU needs (docs/design.md, Cost model). */
import type { CostModel, CostPiece } from "./cost-model.ts"
import { type CudaGraphs, graphExtras } from "./graphs.ts"
import type { Batch, BatchItem, StepResult } from "./protocol.ts"

export { COST_FEATURES, type CostFeature, type CostModel, type CostPiece } from "./cost-model.ts"

/** What the time of a step depends on. Pairs are (token, context token) products: attention work. */
export interface StepShape {
  tokens: number
  sequences: number
  /** Forward passes: llama.cpp splits a non-unified batch into passes of equal tokens per sequence. */
  passes: number
  /** Attention pairs in passes of at least `fastPassTokens` tokens per sequence, and in shorter ones. */
  fastPairs: number
  slowPairs: number
  /** Rows that come out: what is sampled, or read otherwise. */
  outputs: number
  /** Sequential draft steps (longest speculation in the batch). */
  specSteps: number
}

/** The shape of a batch. Items in any order. */
export function shapeOf(
  items: readonly Pick<BatchItem, "position" | "tokens" | "sample" | "rows" | "draft">[],
  layout: Pick<CostModel, "fastPassTokens" | "unifiedKv">,
): StepShape {
  const shape = {
    tokens: 0,
    sequences: items.length,
    passes: 0,
    fastPairs: 0,
    slowPairs: 0,
    outputs: 0,
    specSteps: 0,
  }
  const lengths = layout.unifiedKv
    ? []
    : [...new Set(items.map((item) => item.tokens + item.draft))].sort((a, b) => a - b)
  shape.passes = layout.unifiedKv ? Math.min(1, items.length) : lengths.length
  for (const item of items) {
    const n = item.tokens + item.draft
    shape.tokens += n
    shape.outputs += outputsOf(item, item.draft)
    shape.specSteps = Math.max(shape.specSteps, item.draft)
    if (layout.unifiedKv) {
      const pairs = attentionPairs(item.position, n)
      if (n >= layout.fastPassTokens) shape.fastPairs += pairs
      else shape.slowPairs += pairs
    }
    let done = 0
    for (const length of lengths) {
      if (length > n) break
      const pairs = attentionPairs(item.position + done, length - done)
      if (length - done >= layout.fastPassTokens) shape.fastPairs += pairs
      else shape.slowPairs += pairs
      done = length
    }
  }
  return shape
}

/** Output rows of an item that drafts `draft` tokens. */
export function outputsOf(
  { sample, rows = sample ? 1 : 0 }: Pick<BatchItem, "sample" | "rows">,
  draft: number,
): number {
  return rows === 0 ? 0 : rows + draft
}

/** Σ over `tokens` tokens starting at `position` of the context each attends to (itself included). */
export function attentionPairs(position: number, tokens: number): number {
  return tokens * position + (tokens * (tokens + 1)) / 2
}

/** Predicted step time in µs: the largest piece. An empty batch takes no time. */
export function stepUs(model: CostModel, shape: StepShape): number {
  if (shape.sequences === 0) return 0
  if (model.graphs !== undefined) return graphedUs(model.pieces, model.graphs, shape)
  let worst = 0
  for (const piece of model.pieces) worst = Math.max(worst, pieceUs(piece, shape))
  return worst
}

function graphedUs(pieces: readonly CostPiece[], graphs: CudaGraphs, shape: StepShape): number {
  const extra = graphExtras(graphs, shape)
  let worst = 0
  for (const piece of pieces)
    worst = Math.max(worst, pieceUs(piece, shape) + (piece.tokens ?? 0) * extra.tokens)
  return worst + extra.us
}

/** The shape of a step as it ran, where a drafter had less of an idea than the batch asked for; else null. */
export function ranShape(
  layout: Pick<CostModel, "fastPassTokens" | "unifiedKv">,
  batch: Pick<Batch, "items">,
  results: readonly StepResult[],
): StepShape | null {
  if (results.every((result) => result.drafted === undefined)) return null
  const drafted = new Map(results.map((result) => [result.id, result.drafted]))
  const items = batch.items.map((item) => ({ ...item, draft: drafted.get(item.id) ?? item.draft }))
  return shapeOf(items, layout)
}

export function pieceUs(piece: CostPiece, shape: StepShape): number {
  return (
    (piece.step ?? 0) +
    (piece.tokens ?? 0) * shape.tokens +
    (piece.sequences ?? 0) * shape.sequences +
    (piece.passes ?? 0) * shape.passes +
    (piece.fastPairs ?? 0) * shape.fastPairs +
    (piece.slowPairs ?? 0) * shape.slowPairs +
    (piece.outputs ?? 0) * shape.outputs +
    (piece.specSteps ?? 0) * shape.specSteps
  )
}
