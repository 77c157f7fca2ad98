/** The fitted cost model as the paper's planner sees it: batch time in prefill tokens and draft steps alone. */
import { type CostModel, pieceUs } from "../../cost.ts"
import { launchUs } from "../../graphs.ts"
import { BatchTime } from "./segment.ts"

export interface PaperCost {
  time: BatchTime
  /** Prefill tokens that one decode costs as much as (1 on a GPU in the paper's model). */
  decodeWeight: number
}

/** `scale`: margin and calibration. `contextTokens`: mean context of the requests, for the attention terms that
 * the paper's model does not have. Times in µs. */
export function paperCost(
  cost: CostModel,
  scale: number,
  contextTokens: number,
  maxBatchTokens: number,
): PaperCost {
  const none = { tokens: 0, sequences: 0, passes: 0, fastPairs: 0, slowPairs: 0, outputs: 0, specSteps: 0 }
  const empty = { ...none, sequences: 1, outputs: 1, passes: cost.unifiedKv ? 1 : 2 }
  // Of a batch with prompts: the paper's model knows one kind.
  const launch = cost.graphs === undefined ? 0 : launchUs(cost.graphs, 1, false)
  const pieces = cost.pieces.map((piece) => {
    const k2 = (piece.specSteps ?? 0) * scale
    return {
      k1: ((piece.tokens ?? 0) + ((piece.fastPairs ?? 0) * contextTokens) / 2) * scale,
      k2,
      // The paper counts the sure token as a step; the cost model counts drafted ones.
      b: (pieceUs(piece, empty) + launch) * scale - k2,
    }
  })
  const worst = cost.pieces.reduce((a, b) => ((b.tokens ?? 0) > (a.tokens ?? 0) ? b : a))
  const pairs = { ...none, tokens: 1, sequences: 1, outputs: 1, slowPairs: contextTokens }
  const decode = pieceUs({ ...worst, step: 0 }, pairs)
  const prefill = (worst.tokens ?? 0) + ((worst.fastPairs ?? 0) * contextTokens) / 2
  return {
    time: new BatchTime(pieces, maxBatchTokens, cost.graphs),
    decodeWeight: prefill > 0 ? Math.max(1, decode / prefill) : 1,
  }
}
