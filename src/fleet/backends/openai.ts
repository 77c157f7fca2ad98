/** Any server of OpenAI's API: nothing is known of it but what comes back. */
import { ENGINE_RULES } from "../engine-rules.ts"
import { openaiForm } from "./form.ts"
import type { BackendKind } from "./kind.ts"

export const openai: BackendKind = {
  name: "openai",
  rules: ENGINE_RULES.openai,
  withPriority: null,
  takesSloArgs: false,
  takesBadWords: false,
  prior: {},
  healthPath: "/v1/models",
  fields: { stream_options: { include_usage: true } },
  form: openaiForm,
  ...{ repeatPenalty: null, takesTemplateVariables: false, clampsLength: false },
  goOn: null,
  load: null,
  probe: null,
}
