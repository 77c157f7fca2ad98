/** Captured CUDA graphs (docs/design.md, Cost model): an engine replays the graph of the next captured size, so a batch takes as
 * long as a padded one, and what fills it up to that size is free. The rules are vLLM's. */

/** As one graph, as graphs of what is between attention, or launched kernel by kernel. */
export const GRAPH_MODES = ["full", "piecewise", "eager"] as const
export type GraphMode = (typeof GRAPH_MODES)[number]

export interface CudaGraphs {
  /** Sizes captured, tokens, ascending, at least one. A larger batch runs eagerly and is not padded. */
  sizes: readonly number[]
  /** How a batch runs that has decodes alone, and how any other one does. */
  decodes: GraphMode
  mixed: GraphMode
  /** Tokens of each sequence in a batch of decodes alone: the sure one and as many drafts as the engine always verifies. */
  decodeTokens: number
  /** What a step takes more than as one graph, µs: in pieces, and eagerly (no less). */
  piecewiseUs: number
  eagerUs: number
}

/** What graphs depend on of a batch. */
interface Sized {
  tokens: number
  sequences: number
}

/** The next size captured; `tokens` itself where none is as large. */
export function nextSize({ sizes }: CudaGraphs, tokens: number): number {
  let low = 0
  let high = sizes.length
  while (low < high) {
    const middle = (low + high) >> 1
    if (sizes[middle]! < tokens) low = middle + 1
    else high = middle
  }
  return low < sizes.length ? sizes[low]! : tokens
}

/** The largest size captured that is no larger; `tokens` itself beyond all, 0 below all. */
export function sizeWithin({ sizes }: CudaGraphs, tokens: number): number {
  if (tokens >= sizes[sizes.length - 1]!) return tokens
  let within = 0
  for (const size of sizes) if (size <= tokens) within = size
  return within
}

/** Every sequence has as many tokens as a decode. With drafts some other batch may happen to have as many in all: it is taken
 * for one. */
function isDecodes({ decodeTokens }: CudaGraphs, { tokens, sequences }: Sized): boolean {
  return tokens === sequences * decodeTokens
}

/** How a batch runs. `decodesOnly`: see `CudaGraphs.decodes`. */
export function graphMode(graphs: CudaGraphs, tokens: number, decodesOnly: boolean): GraphMode {
  if (tokens > graphs.sizes[graphs.sizes.length - 1]!) return "eager"
  return decodesOnly ? graphs.decodes : graphs.mixed
}

/** Tokens that a batch computes for nothing. */
export function paddingTokens(graphs: CudaGraphs, tokens: number, decodesOnly: boolean): number {
  return graphMode(graphs, tokens, decodesOnly) === "eager" ? 0 : nextSize(graphs, tokens) - tokens
}

/** What a step takes more than as one graph, µs. */
export function launchUs(graphs: CudaGraphs, tokens: number, decodesOnly: boolean): number {
  const mode = graphMode(graphs, tokens, decodesOnly)
  return mode === "full" ? 0 : mode === "piecewise" ? graphs.piecewiseUs : graphs.eagerUs
}

/** Padding and launches of a batch of such a shape: tokens and µs. */
export function graphExtras(graphs: CudaGraphs, shape: Sized): { tokens: number; us: number } {
  const decodesOnly = isDecodes(graphs, shape)
  return {
    tokens: paddingTokens(graphs, shape.tokens, decodesOnly),
    us: launchUs(graphs, shape.tokens, decodesOnly),
  }
}
