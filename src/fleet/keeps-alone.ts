/** Could an engine with nothing else to do keep what a request asks for? What none keeps is no reason to keep others waiting. */
import { EngineRun } from "./engine-run.ts"
import { lookAhead } from "./look-ahead.ts"
import { Sent, type TwinSpec } from "./sent.ts"
import type { Twin } from "./twin.ts"

/** The pace of a longer answer is told from so much of it. */
const MOST_TOKENS = 64

/** As far as is known of the engine. */
export function keepsAlone(spec: TwinSpec, twin: Pick<Twin, "rules" | "fit" | "zeroLoadPrefillUs">): boolean {
  const { rules, fit } = twin
  const sent = new Sent({ ...spec, arrivalUs: 0 }, 0, (tokens) => twin.zeroLoadPrefillUs(tokens))
  const prompt = sent.prompt(spec.id, fit.entryUs, Math.min(spec.maxOutputTokens, MOST_TOKENS))
  const run = new EngineRun({
    ...{ rules, cost: fit.model, prompts: [prompt], streams: [], atUs: 0, watched: spec.id },
  })
  lookAhead(run, prompt, 0, 0)
  return prompt.firstTokenUs <= sent.deadlineUs && !run.latePaces.has("watched")
}
