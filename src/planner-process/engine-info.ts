/** What an engine serves, as far as its planner knows: sizes, no texts. */
import type { ModelInfo } from "../engine/port.ts"
import type { HostInfo } from "../replica/host.ts"
import { plannerOf } from "../replica/planner-view.ts"
import type { EngineSession } from "./engine-session.ts"

/** Stands for a size that is not known. */
const MOST_TOKENS = 2 ** 31 - 1
/** No token stands for more bytes of text, as far as is known of vocabularies. */
const LONGEST_TOKEN_BYTES = 128

export function modelOf(name: string, contextTokens: number): ModelInfo {
  return {
    ...{ name, fingerprint: `planned:${name}`, chatTemplate: null, bosText: "", eosText: "" },
    ...{ trainedContextTokens: contextTokens, vocabSize: MOST_TOKENS, parameters: 0, random: false },
  }
}

export function infoOf({ engine, replica }: EngineSession): HostInfo {
  return {
    model: modelOf(engine.model, engine.limits.contextTokens),
    limits: replica.limits,
    longestTokenBytes: LONGEST_TOKEN_BYTES,
    ...{ vocabulary: null, planner: plannerOf(replica) },
  }
}
