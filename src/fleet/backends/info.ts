/** What a backend serves, as far as one can know from outside: no weights, no vocabulary. */
import type { HostInfo } from "../../replica/host.ts"
import type { EngineRules } from "../engine-rules.ts"
import type { Served } from "./prober.ts"

/** Stands for a size that is not known. */
export const MOST_TOKENS = 2 ** 31 - 1
/** Of a context, where the engine does not say. */
const USUAL_CONTEXT_TOKENS = 8192
/** No token stands for more bytes of text, as far as is known of vocabularies. */
const LONGEST_TOKEN_BYTES = 128

/** `name`: what clients call the model, where that is not what the engine does. */
export function infoOf(
  { kind, model, contextTokens: said }: Served,
  rules: EngineRules,
  name = model,
): HostInfo {
  const contextTokens = said ?? USUAL_CONTEXT_TOKENS
  return {
    model: {
      ...{ name, fingerprint: `${kind.name}:${model}`, chatTemplate: null, bosText: "", eosText: "" },
      ...{ trainedContextTokens: contextTokens, vocabSize: MOST_TOKENS, parameters: 0, random: false },
    },
    limits: {
      kvTokens: Math.min(MOST_TOKENS, rules.kvTokens),
      ...{ blockTokens: 16, maxSequences: rules.maxSequences, maxBatchTokens: rules.tokenBudget },
      ...{ contextTokens, minChunkTokens: 1, unifiedKv: true },
    },
    longestTokenBytes: LONGEST_TOKEN_BYTES,
    vocabulary: null,
    planner: null,
  }
}
