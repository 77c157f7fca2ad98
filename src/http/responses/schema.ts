/** Bodies of OpenAI's Responses API. What it shares with chats, our extensions included, is the chat's own. */
import { z } from "zod"
import { listOf, readsAs, textOr } from "../lists.ts"
import { anyObject, anySchema, common, count, formatName, only, superseded, text } from "../schemas.ts"

/** Entries of `input`, those of the responses before it included. */
export const MOST_ITEMS = 4096

const none = (why: string) => z.null({ error: `is not supported: ${why}` }).optional()

const part = z.discriminatedUnion(
  "type",
  [
    z.object({ type: z.enum(["input_text", "output_text", "text"]), text }),
    z.object({ type: z.literal("refusal"), refusal: text }),
  ],
  { error: 'must be "input_text", "output_text" or "refusal": this server reads no images, audio or files' },
)
const parts = textOr(listOf(part), 'must be a string or an array of parts {"type": "input_text", "text": …}')
export type ContentPart = z.output<typeof part>

const named = { id: text.max(256).nullish(), status: text.nullish() }
const ofMessage = {
  role: z.enum(["system", "developer", "user", "assistant"]),
  content: parts,
  ...named,
}
const item = z.discriminatedUnion(
  "type",
  [
    z.object({ type: z.literal("message"), ...ofMessage }),
    z.object({ type: z.literal("function_call"), call_id: text, name: text, arguments: text, ...named }),
    z.object({ type: z.literal("function_call_output"), call_id: text, output: parts, ...named }),
    z.object({
      type: z.literal("reasoning"),
      summary: listOf(z.object({ text })).nullish(),
      content: listOf(z.object({ text })).nullish(),
      encrypted_content: text.nullish(),
      ...named,
    }),
    z.object({ type: z.literal("item_reference"), id: text }),
  ],
  {
    error:
      'must be "message", "function_call", "function_call_output", "reasoning" or "item_reference": ' +
      "this server has no other items",
  },
)
export type InputItem = z.output<typeof item>
export type StoredItem = Exclude<InputItem, { type: "item_reference" }>

/** Messages may leave their type out, and references. */
function typed(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value
  const { type, role, id } = value as Record<string, unknown>
  if (type !== undefined && type !== null) return value
  if (role !== undefined) return { ...value, type: "message" }
  return id === undefined ? value : { ...value, type: "item_reference" }
}

const anyItem = readsAs(
  z.preprocess(typed, item),
  z.union([
    item,
    z.object({ type: z.null().optional(), ...ofMessage }),
    z.object({ type: z.null().optional(), id: text }),
  ]),
)

const functionTool = z.looseObject({
  type: z.literal("function", {
    error: 'must be "function": the tools of OpenAI itself, custom ones and MCP are not here',
  }),
  name: text.min(1),
  description: text.nullish(),
  parameters: anyObject.nullish(),
  strict: z.boolean().nullish(),
})

const namedTool = z.object({ type: z.literal("function"), name: text.min(1) })
const toolChoice = z.union(
  [
    z.enum(["auto", "none", "required"]),
    namedTool,
    z.object({
      type: z.literal("allowed_tools"),
      mode: z.enum(["auto", "required"]),
      tools: z.array(namedTool).min(1),
    }),
  ],
  {
    error:
      'must be "auto", "none", "required", {"type": "function", "name": …} or ' +
      '{"type": "allowed_tools", "mode": …, "tools": […]}',
  },
)

const format = z.discriminatedUnion(
  "type",
  [
    z.object({ type: z.literal("text") }),
    z.object({ type: z.literal("json_object") }),
    z.object({
      type: z.literal("json_schema"),
      name: formatName,
      description: text.nullish(),
      schema: anySchema,
      strict: z.boolean().nullish(),
    }),
  ],
  {
    error:
      'must be {"type": "text"}, {"type": "json_object"} or {"type": "json_schema", "name": …, "schema": …}',
  },
)

const INCLUDED = ["message.output_text.logprobs", "reasoning.encrypted_content"] as const
export type Included = (typeof INCLUDED)[number]

/** Of common fields those that have another name here, or other values. */
const { max_tokens: _, response_format: __, n: ___, ...shared } = common

export const responsesSchema = z.object({
  ...shared,
  input: textOr(listOf(anyItem, 1), "must be a string or an array of items"),
  instructions: z.string({ error: "must be a string" }).nullish(),
  max_output_tokens: count.nullish(),
  tools: listOf(functionTool).nullish(),
  tool_choice: toolChoice.nullish(),
  parallel_tool_calls: z.boolean().nullish(),
  text: z
    .object({
      format: format.nullish(),
      verbosity: only("medium", "say in the instructions how long answers shall be"),
    })
    .nullish(),
  reasoning: z
    .object({
      effort: z.enum(["none", "minimal", "low", "medium", "high", "xhigh"]).nullish(),
      summary: z
        .enum(["auto", "detailed"], {
          error: 'must be "auto" or "detailed": thoughts are given as they are, not shortened',
        })
        .nullish(),
      generate_summary: superseded("reasoning.summary"),
    })
    .nullish(),
  include: listOf(
    z.enum(INCLUDED, { error: `is not supported: this server can include ${INCLUDED.join(", ")}` }),
  ).nullish(),
  top_logprobs: z.int().min(0).max(20).nullish(),
  truncation: z.enum(["auto", "disabled"]).nullish(),
  store: z.boolean().nullish(),
  previous_response_id: text.max(256).nullish(),
  metadata: z
    .record(text.max(64), text.max(512))
    .refine((given) => Object.keys(given).length <= 16, "has more than 16 entries")
    .nullish(),
  stream_options: z
    .object({ include_obfuscation: only(false, "nothing is added to the events of a stream") })
    .nullish(),
  background: only(false, "stream, or wait for the answer"),
  n: only(1, "a response is one answer"),
  max_tool_calls: z.int().min(1).nullish(),
  conversation: none("use previous_response_id"),
  prompt: none("there are no stored prompts: send input and instructions"),
  context_management: none("use truncation"),
  moderation: none("this server has none"),
  max_tokens: superseded("max_output_tokens"),
  max_completion_tokens: superseded("max_output_tokens"),
  messages: superseded("input"),
  response_format: superseded("text.format"),
  reasoning_effort: superseded("reasoning.effort"),
  chat_template_kwargs: anyObject.nullish(),
  safety_identifier: text.nullish(),
  prompt_cache_key: text.nullish(),
  prompt_cache_retention: text.nullish(),
})
export type ResponsesBody = z.output<typeof responsesSchema>
