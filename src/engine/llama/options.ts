/** What opening a model with llama.cpp can be told. */
import type { Speculation } from "../drafter.ts"
import type { LibraryChoice } from "./files.ts"

export interface LlamaOptions {
  modelPath: string
  /** Shown by /v1/models. Default: the file's name. */
  name?: string
  threads: number
  /** Most requests with KV in place, ≤ 256. Default: what suits model and machine (sizes.ts). */
  maxSequences?: number
  /** Most tokens of one request. Default: 4096, or what the model was trained on, or what there is memory for. */
  contextTokens?: number
  /** Processes that share what would be one's where sizes are chosen. Default 1. */
  processes?: number
  maxBatchTokens: number
  /** One pool, one pass per step; else a stream per sequence. Default: true on a GPU (docs/design.md, Engine). */
  kvUnified?: boolean
  /** Size of a unified pool. Default: maxSequences × contextTokens. */
  kvTokens?: number
  /** Default: on a GPU where it can, and where the KV type needs it; plain attention on a CPU. */
  flashAttention?: boolean
  kvType?: "f16" | "f32" | "q8_0"
  /** Layers on the GPU; default all where there is one. */
  gpuLayers?: number
  library?: LibraryChoice
  /** What drafts. Default: nothing does, and batches that speculate are refused. */
  speculate?: Speculation
  /** Most tokens of a request verified in one step, the sure one included; drafts beyond are not made.
   * Default 8. */
  maxSpeculation?: number
  onLog?: (line: string) => void
}
