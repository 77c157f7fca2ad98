/** The table of backend kinds. */
import type { BackendKindName } from "../../config/backends.ts"
import type { BackendKind } from "./kind.ts"
import { llamaServer } from "./llama-server.ts"
import { openai } from "./openai.ts"
import { sglang } from "./sglang.ts"
import { vllm } from "./vllm.ts"

/** `slos-serve` is no engine that owns its batching: it answers offers itself, over the wire (src/wire/). */
export type OwnBatchingKind = Exclude<BackendKindName, "slos-serve">

export const BACKEND_KINDS: Readonly<Record<OwnBatchingKind, BackendKind>> = {
  vllm,
  sglang,
  "llama-server": llamaServer,
  openai,
}

/** By what /v1/models says that owns the model; null where that is none of these. */
export function kindOfOwner(owner: unknown): OwnBatchingKind | "slos-serve" | null {
  if (owner === "llamacpp") return "llama-server"
  return owner === "vllm" || owner === "sglang" || owner === "slos-serve" ? owner : null
}
