/** Bodies of Anthropic's Messages API. What it shares with chats, our extensions included, is the chat's own. */
import { z } from "zod"
import { MOST_STOPS } from "../limits.ts"
import { listOf, textOr } from "../lists.ts"
import { anyObject, anySchema, common, count, only, superseded, text } from "../schemas.ts"
import { contextManagement } from "./context-edits.ts"

const none = (why: string) => z.null({ error: `is not supported: ${why}` }).optional()

const textBlock = z.object({ type: z.literal("text"), text })
const ONLY_TEXT = 'must be "text": this server reads no images, documents or files'
const textBlocks = textOr(
  listOf(z.discriminatedUnion("type", [textBlock], { error: ONLY_TEXT })),
  'must be a string or an array of blocks {"type": "text", "text": …}',
)

const userBlock = z.discriminatedUnion(
  "type",
  [
    textBlock,
    z.object({
      type: z.literal("tool_result"),
      tool_use_id: text,
      content: textBlocks.nullish(),
      is_error: z.boolean().nullish(),
    }),
  ],
  {
    error:
      'must be "text" or "tool_result" in a message of the user: this server reads no images, documents or files',
  },
)
const assistantBlock = z.discriminatedUnion(
  "type",
  [
    textBlock,
    z.object({ type: z.literal("thinking"), thinking: text }),
    // Only Anthropic can read it: of a conversation that has begun there.
    z.object({ type: z.literal("redacted_thinking") }),
    z.object({ type: z.literal("tool_use"), id: text, name: text, input: anyObject }),
  ],
  { error: 'must be "text", "thinking" or "tool_use" in a message of the assistant' },
)
const blocks = 'must be a string or an array of blocks {"type": "text", "text": …}'
const message = z.discriminatedUnion(
  "role",
  [
    z.object({ role: z.literal("user"), content: textOr(listOf(userBlock, 1), blocks) }),
    z.object({ role: z.literal("assistant"), content: textOr(listOf(assistantBlock, 1), blocks) }),
    z.object({ role: z.literal("system"), content: textBlocks }),
  ],
  { error: 'must be "user", "assistant" or "system"' },
)
export type AnthropicMessage = z.output<typeof message>

const tool = z.looseObject({
  type: z
    .literal("custom", { error: 'must be "custom": the tools of Anthropic itself are not here' })
    .nullish(),
  name: text.min(1),
  description: text.nullish(),
  input_schema: anyObject,
  strict: z.boolean().nullish(),
  defer_loading: only(false, "all tools are told at once"),
  allowed_callers: z
    .array(z.literal("direct", { error: 'must be "direct": no code is run on this server' }))
    .nullish(),
  input_examples: none("put examples into the description"),
})

const parallel = { disable_parallel_tool_use: z.boolean().nullish() }
const toolChoice = z.discriminatedUnion(
  "type",
  [
    z.object({ type: z.literal("auto"), ...parallel }),
    z.object({ type: z.literal("any"), ...parallel }),
    z.object({ type: z.literal("tool"), name: text.min(1), ...parallel }),
    z.object({ type: z.literal("none") }),
  ],
  {
    error: 'must be {"type": "auto"}, {"type": "any"}, {"type": "tool", "name": …} or {"type": "none"}',
  },
)

const format = z
  .object({
    type: z.literal("json_schema", { error: 'must be "json_schema"' }),
    schema: anySchema,
  })
  .nullish()

const display = z.enum(["summarized", "omitted"]).nullish()

/** What the prompt is made of: all that tokens are counted of. */
const prompt = {
  messages: listOf(message, 1),
  system: textBlocks.nullish(),
  tools: listOf(tool).nullish(),
  tool_choice: toolChoice.nullish(),
  thinking: z
    .discriminatedUnion(
      "type",
      [
        z.object({ type: z.literal("enabled"), budget_tokens: count.nullish(), display }),
        z.object({ type: z.literal("adaptive"), display }),
        z.object({ type: z.literal("disabled"), display }),
      ],
      { error: 'must be {"type": "enabled"}, {"type": "adaptive"} or {"type": "disabled"}' },
    )
    .nullish(),
  output_config: z
    .object({ format, effort: z.enum(["low", "medium", "high", "xhigh", "max"]).nullish() })
    .nullish(),
  thread: none("send the whole conversation (thread: false of the SDK's tool runner)"),
  mcp_servers: z.array(z.never({ error: "is not supported: the client calls its tools itself" })).nullish(),
  context_management: contextManagement.nullish(),
}

/** Of common fields those that have another name here, or other values. */
const { response_format: _, n: __, stop: ___, max_tokens: ____, service_tier: _____, ...shared } = common

export const messagesSchema = z.object({
  ...shared,
  ...prompt,
  max_tokens: count,
  stop_sequences: z
    .array(z.string().max(1000), { error: `must be an array of at most ${MOST_STOPS} strings` })
    .max(MOST_STOPS)
    .nullish(),
  output_format: format,
  metadata: z.object({ user_id: text.nullish() }).nullish(),
  service_tier: z.enum(["auto", "standard_only", "default", "flex", "priority"]).nullish(),
  chat_template_kwargs: anyObject.nullish(),
  n: only(1, "a message is one answer"),
  container: none("nothing is run on this server"),
  diagnostics: none("metrics say how much of the prompt was cached"),
  inference_geo: none("this server is where it is"),
  speed: only("standard", "ask for latencies with slo"),
  stop: superseded("stop_sequences"),
  response_format: superseded("output_config.format"),
  max_completion_tokens: superseded("max_tokens"),
})
export type MessagesBody = z.output<typeof messagesSchema>

export const countSchema = z.object({
  model: text.nullish(),
  parse_special: z.boolean().nullish(),
  ...prompt,
  chat_template_kwargs: anyObject.nullish(),
})
export type CountBody = z.output<typeof countSchema>
