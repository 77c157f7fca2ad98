/** The table of policies. A new one is a file and a row. */
import { edf, edfDrop } from "./edf.ts"
import type { PolicyFactory } from "./policy.ts"
import { qoserve } from "./qoserve.ts"
import { slosServe } from "./slos-serve.ts"
import { slosServePaper } from "./slos-serve-paper.ts"
import { sarathi, vllm, vllmPrefillFirst } from "./vllm.ts"
import { vllmPriority } from "./vllm-priority.ts"

export const POLICIES = {
  "slos-serve": slosServe,
  "slos-serve-paper": slosServePaper,
  vllm,
  "vllm-prefill-first": vllmPrefillFirst,
  "vllm-priority": vllmPriority,
  sarathi,
  edf,
  "edf-drop": edfDrop,
  qoserve,
} as const satisfies Record<string, PolicyFactory>

export type PolicyName = keyof typeof POLICIES
export const POLICY_NAMES = Object.keys(POLICIES) as PolicyName[]
