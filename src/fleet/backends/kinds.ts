/** The table of backend kinds. */
import type { BackendKind } from "./kind.ts"
import { llamaServer } from "./llama-server.ts"
import { openai } from "./openai.ts"
import { sglang } from "./sglang.ts"
import { vllm } from "./vllm.ts"

/** `slos-serve` is no engine that owns its batching: it answers offers itself, over the wire (src/wire/). */
export const BACKEND_KINDS = {
  vllm,
  sglang,
  "llama-server": llamaServer,
  openai,
} as const satisfies Record<string, BackendKind>

export type OwnBatchingKind = keyof typeof BACKEND_KINDS
export type BackendKindName = OwnBatchingKind | "slos-serve"
export const BACKEND_KIND_NAMES: readonly BackendKindName[] = [
  "slos-serve",
  ...(Object.keys(BACKEND_KINDS) as OwnBatchingKind[]),
]
