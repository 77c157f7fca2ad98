/** How engines that own their batching choose what runs next, as far as a forecast needs it. */

export interface EngineRules {
  /** Prompt chunks and decodes share a step (vLLM, llama-server); else prompts go first, alone (SGLang). */
  mixed: boolean
  /** Which waiting prompt starts next: the first to come, or the one with the earliest deadline (vLLM's priority mode). */
  order: "arrival" | "deadline"
  /** Most tokens of a step. */
  tokenBudget: number
  /** Most requests that run at once. */
  maxSequences: number
  /** KV capacity, tokens; Infinity where it is not known. */
  kvTokens: number
}

/** As these engines start without flags, where no more is known of one. */
export const ENGINE_RULES = {
  vllm: { mixed: true, order: "arrival", tokenBudget: 2048, maxSequences: 256, kvTokens: Infinity },
  "vllm-priority": {
    mixed: true,
    order: "deadline",
    tokenBudget: 2048,
    maxSequences: 256,
    kvTokens: Infinity,
  },
  sglang: { mixed: false, order: "arrival", tokenBudget: 8192, maxSequences: 256, kvTokens: Infinity },
  "llama-server": { mixed: true, order: "arrival", tokenBudget: 2048, maxSequences: 4, kvTokens: Infinity },
  openai: { mixed: true, order: "arrival", tokenBudget: 2048, maxSequences: 256, kvTokens: Infinity },
} as const satisfies Record<string, EngineRules>

export type EngineRulesName = keyof typeof ENGINE_RULES
