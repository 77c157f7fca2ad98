/** The body of /v1/embeddings: OpenAI's, with our `slo`. */
import { z } from "zod"
import { MOST_INPUTS } from "./limits.ts"
import { promptSchema } from "./lists.ts"
import { anyObject, serviceTierField, slo, truncation } from "./schemas.ts"

export const embeddingsSchema = z.object({
  model: z.string().nullish(),
  input: promptSchema.refine(
    (input) => typeof input === "string" || typeof input[0] === "number" || input.length <= MOST_INPUTS,
    `has more than ${MOST_INPUTS} texts: send them in several requests`,
  ),
  encoding_format: z.enum(["float", "base64"]).nullish(),
  dimensions: z
    .null({ error: "is not supported: a model's first dimensions are no embedding by themselves" })
    .optional(),
  user: z.string().nullish(),
  parse_special: z.boolean().nullish(),
  truncate_prompt_tokens: truncation,
  service_tier: serviceTierField,
  slo: slo.nullish(),
  vllm_xargs: anyObject.nullish(),
})
