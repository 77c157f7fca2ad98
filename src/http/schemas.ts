/** The wire format of requests: OpenAI's, with the extensions of llama.cpp and vLLM, and our `slo` object.
 * Fields that would change the answer but are not supported are refused; other unknown fields are ignored. */
import { z } from "zod"
import { MOST_CHOICES, MOST_STOPS } from "./limits.ts"
import { listOf, mapOf, promptSchema, readsAs } from "./lists.ts"

export const text = z.string()
const probability = z.number().gt(0).max(1)
const penalty = z.number().min(-2).max(2)
/** Most tokens of an answer. */
const most = z
  .int()
  .min(-1)
  .max(1_000_000)
  .refine((tokens) => tokens !== 0, "must be at least 1, or -1: until the context ends")
/** Beyond 2^53 only the body as it was sent has it exactly. */
const bits64 = z
  .number()
  .min(-(2 ** 63))
  .max(2 ** 64 - 2 ** 11)
const seed = readsAs(
  bits64.refine(Number.isInteger, "must be a whole number of 64 bits"),
  bits64.multipleOf(1),
)
export const count = z.int().min(1).max(1_000_000)

/** Entries of `guided_choice`, `stop_token_ids`, `bad_words`. */
const MOST_GUIDED = 5000
const MOST_STOP_TOKENS = 1000
const MOST_BAD_WORDS = 1000

/** Any object: what is in it is looked at elsewhere. */
export const anyObject = readsAs(
  z.custom<Record<string, unknown>>(isObject, "must be an object"),
  z.looseObject({}),
)

export const slo = z.strictObject({
  ttft_ms: z.number().nullish(),
  ttft_slowdown: z.number().nullish(),
  tpot_ms: z.number().nullish(),
  thinking_tpot_ms: z.number().nullish(),
  max_gap_ms: z.number().nullish(),
  class: text.nullish(),
  session: text.min(1).max(256).nullish(),
  thinking_tokens: z.int().min(0).max(1_000_000).nullish(),
})

/** Present, but only with the one value that changes nothing. */
export const only = <T extends string | number | boolean>(value: T, why: string) =>
  z.literal(value, { error: `is not supported other than ${JSON.stringify(value)}: ${why}` }).nullish()

/** Fields whose newer form this server has. */
export const superseded = (instead: string) =>
  z.null({ error: `is not supported: use ${instead}` }).optional()

export const anySchema = readsAs(
  z.custom<Record<string, unknown>>(isObject, "must be a JSON schema (an object)"),
  z.looseObject({}),
)
const schemaOrText = z.union([text, anySchema], { error: "must be a JSON schema, as an object or as text" })

const NAME = "must be 1 to 64 letters, digits, _ or -"
/** Of a schema that an answer is to fit. */
export const formatName = z.string({ error: NAME }).regex(/^[\w-]{1,64}$/, NAME)

const responseFormat = z.discriminatedUnion(
  "type",
  [
    z.object({ type: z.literal("text") }),
    z.object({ type: z.literal("json_object"), schema: anySchema.nullish() }),
    z.object({
      type: z.literal("json_schema"),
      json_schema: z.object({
        name: formatName,
        description: text.nullish(),
        schema: anySchema,
        strict: z.boolean().nullish(),
      }),
    }),
  ],
  { error: 'must be {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "json_schema": …}' },
)

const tokenIds = z.array(z.int().min(0)).max(MOST_STOP_TOKENS)

/** Fields of other servers that would change the answer, and the one value that changes nothing. */
const refused = {
  allowed_token_ids: z.null({ error: "is not supported: hold the text to a regex or a grammar" }).optional(),
  include_stop_str_in_output: only(false, "stop strings are no part of the answer"),
  skip_special_tokens: only(true, "control tokens are no text"),
  use_beam_search: only(false, "answers are sampled; n gives several"),
  prompt_logprobs: z
    .null({ error: "is not supported: log-probabilities are those of the answer" })
    .optional(),
  add_special_tokens: only(true, "the model's beginning is always set before a prompt"),
  guided_whitespace_pattern: z
    .null({ error: "is not supported: JSON has the white space that this server lets it have" })
    .optional(),
  mirostat: only(0, "temperature, top_p, top_k and min_p choose tokens"),
  typical_p: only(1, "temperature, top_p, top_k and min_p choose tokens"),
  xtc_probability: only(0, "temperature, top_p, top_k and min_p choose tokens"),
  dry_multiplier: only(0, "use repeat_penalty, presence_penalty or frequency_penalty"),
}

export const serviceTierField = z.enum(["auto", "default", "flex", "priority"]).nullish()
export const truncation = z
  .int()
  .min(-1)
  .max(1_000_000)
  .refine((count) => count !== 0, "must be -1 or at least 1")
  .nullish()

/** What all endpoints that generate have. */
export const common = {
  model: text.nullish(),
  stream: z.boolean().nullish(),
  stream_options: z
    .object({ include_usage: z.boolean().nullish(), continuous_usage_stats: z.boolean().nullish() })
    .nullish(),
  max_tokens: most.nullish(),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: probability.nullish(),
  top_k: z.int().min(-1).max(1_000_000).nullish(),
  min_p: z.number().min(0).max(1).nullish(),
  presence_penalty: penalty.nullish(),
  frequency_penalty: penalty.nullish(),
  repeat_penalty: z.number().gt(0).max(10).nullish(),
  repetition_penalty: z.number().gt(0).max(10).nullish(),
  repeat_last_n: z.int().min(0).max(1_000_000).nullish(),
  seed: seed.nullish(),
  logit_bias: mapOf(z.string().regex(/^\d+$/, "keys are token ids"), z.number().min(-100).max(100)).nullish(),
  stop: z
    .union([z.string(), z.array(z.string().max(1000)).max(MOST_STOPS)], {
      error: `must be a string or an array of at most ${MOST_STOPS} strings`,
    })
    .nullish(),
  stop_token_ids: tokenIds.nullish(),
  bad_words: z.array(text.min(1, "must not be empty").max(200)).max(MOST_BAD_WORDS).nullish(),
  parse_special: z.boolean().nullish(),
  ignore_eos: z.boolean().nullish(),
  min_tokens: z.int().min(0).max(1_000_000).nullish(),
  n: z.int().min(1).max(MOST_CHOICES).nullish(),
  best_of: only(1, "choices are not ranked; n gives several answers"),
  user: text.nullish(),
  priority: z.int().nullish(),
  service_tier: serviceTierField,
  slo: slo.nullish(),
  /** vLLM's extra arguments: what ours are is read elsewhere (serve/slo-args.ts), others are engines'. */
  vllm_xargs: anyObject.nullish(),
  response_format: responseFormat.nullish(),
  structured_outputs: anyObject.nullish(),
  guided_json: schemaOrText.nullish(),
  guided_regex: text.nullish(),
  guided_choice: z.array(text).max(MOST_GUIDED).nullish(),
  guided_grammar: text.nullish(),
  json_schema: schemaOrText.nullish(),
  grammar: text.nullish(),
  ebnf: text.nullish(),
  regex: text.nullish(),
  truncate_prompt_tokens: truncation,
  ...refused,
}

const contentPart = z.object({ type: z.literal("text"), text })

/** What is wrong with a content that has a part which is no text. */
function otherPart(content: unknown): string | undefined {
  const types = Array.isArray(content) ? content.map((part) => (part as { type?: unknown } | null)?.type) : []
  const other = types.find((type) => typeof type === "string" && type !== "text")
  if (other === undefined) return undefined
  return `has a part of type "${String(other).slice(0, 40)}": this server reads no images, audio or files, only text`
}

export const message = z.object({
  role: z.enum(["system", "developer", "user", "assistant", "tool"]),
  content: z
    .union([text, listOf(contentPart)], {
      error: ({ input }) =>
        otherPart(input) ?? 'must be a string or an array of parts {"type": "text", "text": …}',
    })
    .nullish(),
  name: text.nullish(),
  reasoning_content: text.nullish(),
  /** As vLLM calls it by now. */
  reasoning: text.nullish(),
  tool_call_id: text.nullish(),
  tool_calls: listOf(
    z.object({
      id: text.nullish(),
      type: z.literal("function").nullish(),
      function: z.object({ name: text, arguments: z.unknown() }),
    }),
  ).nullish(),
})

export const toolList = listOf(
  z.looseObject({
    type: z.literal("function"),
    function: z.looseObject({ name: text.min(1), parameters: anyObject.nullish() }),
  }),
)
const namedTool = z.object({ type: z.literal("function"), function: z.object({ name: text.min(1) }) })

export const chatSchema = z.object({
  ...common,
  messages: listOf(message, 1),
  max_completion_tokens: most.nullish(),
  logprobs: z.boolean().nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  tools: toolList.nullish(),
  tool_choice: z
    .union(
      [
        z.enum(["auto", "none", "required"]),
        namedTool,
        z.object({
          type: z.literal("allowed_tools"),
          allowed_tools: z.object({ mode: z.enum(["auto", "required"]), tools: listOf(namedTool, 1) }),
        }),
      ],
      {
        error:
          'must be "auto", "none", "required", {"type": "function", "function": {"name": …}} or ' +
          '{"type": "allowed_tools", "allowed_tools": {"mode": "auto" or "required", "tools": […]}}',
      },
    )
    .nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  functions: superseded("tools"),
  function_call: superseded("tool_choice"),
  reasoning: z.boolean({ error: "must be true or false" }).nullish(),
  reasoning_effort: text.nullish(),
  chat_template_kwargs: anyObject.nullish(),
  continue_final_message: z.boolean().nullish(),
  add_generation_prompt: z.boolean().nullish(),
  chat_template: z.null({ error: "is not supported: the model's own template is applied" }).optional(),
  documents: z.null({ error: "is not supported: put documents into messages" }).optional(),
})
export type ChatBody = z.output<typeof chatSchema>

export const completionSchema = z.object({
  ...common,
  prompt: promptSchema,
  max_tokens: z.int().min(-1).max(1_000_000).nullish(),
  logprobs: z.int().min(0).max(20).nullish(),
  echo: z.boolean().nullish(),
  suffix: only("", "the model does not fill in the middle"),
})
export type CompletionBody = z.output<typeof completionSchema>
/** What both endpoints have. */
export type CommonBody = Omit<CompletionBody, "prompt" | "logprobs" | "echo" | "suffix"> & {
  max_completion_tokens?: number | null | undefined
}

function isObject(value: unknown): boolean {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}
