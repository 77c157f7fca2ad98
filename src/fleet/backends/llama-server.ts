/** llama.cpp's llama-server: as many at a time as it has slots. */
import { ENGINE_RULES } from "../engine-rules.ts"
import { llamaServerForm } from "./form.ts"
import type { BackendKind } from "./kind.ts"

export const llamaServer: BackendKind = {
  name: "llama-server",
  rules: ENGINE_RULES["llama-server"],
  withPriority: null,
  takesSloArgs: false,
  takesBadWords: false,
  // Often a CPU: hundreds of prompt tokens a second.
  prior: { steps: 50_000, tokens: 3000 },
  healthPath: "/health",
  fields: { timings_per_token: true, stream_options: { include_usage: true } },
  form: llamaServerForm,
  ...{ repeatPenalty: "repeat_penalty", takesTemplateVariables: true, clampsLength: true },
  goOn: { continue_final_message: true, add_generation_prompt: false },
  load(gauges) {
    const running = gauges.of("llamacpp:requests_processing")
    const waiting = gauges.of("llamacpp:requests_deferred")
    return running === null || waiting === null ? null : { load: { running, waiting } }
  },
  probe: {
    path: "/props",
    learn(answer) {
      const slots = (answer as { total_slots?: unknown }).total_slots
      return typeof slots === "number" && slots > 0 ? { rules: { maxSequences: slots } } : {}
    },
  },
}
