/** What answers of all endpoints have: how a request went, and errors. */
import { z } from "zod"
import { TIME_PARTS } from "../../../core/time-account.ts"
import { PART_NAMES } from "../../../explain/reason.ts"

export const text = z.string()
export const count = z.int().min(0)
export const ms = z.number()
export const msOrNone = z.number().nullable()

export const tier = z.enum(["slo", "best_effort"])
export const serviceTier = z
  .enum(["default", "priority", "flex"])
  .describe("What it was served in: flex where it ended as best effort, of several choices the lowest.")
export const unixSeconds = z.int().describe("Seconds since 1970.")

export const reason = z.object({
  code: text.describe(
    "turned_down, revoked, own_work, elsewhere, unknown, or the part of the time that was the most.",
  ),
  bound: z
    .enum(["time", "memory", "alone", "plan", "turn"])
    .nullable()
    .describe("Of what was turned down: by what."),
  text: text.describe("The same in words."),
  late_ms: msOrNone.describe("How late the first late token was, ms."),
  would_have_kept: z
    .object({
      ttft_ms: ms.optional().describe("TTFT, ms."),
      tpot_ms: ms.optional().describe("Time per output token, ms."),
      max_gap_ms: ms.optional().describe("Longest time between two tokens, ms."),
      load: z
        .number()
        .nullable()
        .describe("Share of the load with which it would have been on time; null: less was not enough."),
    })
    .nullable()
    .describe("Objectives that would have been kept with what it got."),
})

const stage = z.object({
  stage: z.enum(["prefill", "thinking", "answer"]),
  attained: z.boolean().nullable().describe("All of its tokens were on time; null for best effort."),
  worst_late_ms: msOrNone.describe("Of its latest token against when it was due, ms; negative: early."),
  tokens: count,
})

export const metrics = z
  .object({
    time_to_first_token_ms: msOrNone.describe("From arrival to the first token, ms."),
    mean_itl_ms: msOrNone.describe("Mean time between tokens, ms; null for one token."),
    max_gap_ms: msOrNone.describe("Longest time between two tokens, ms; null for one token."),
    time_to_first_text_ms: msOrNone.describe(
      "From arrival to the first text that could be sent, ms: later than its token where text is held back.",
    ),
    max_text_gap_ms: msOrNone.describe("Longest time between two texts that could be sent, ms."),
    queue_time_ms: msOrNone.describe("From arrival to its first batch, ms."),
    e2e_ms: msOrNone.describe("From arrival to the last token, ms."),
    cached_tokens: count.describe("Prompt tokens that were not computed."),
    preemptions: count.describe("How often its KV memory was given up and computed again."),
    speculation: z
      .object({
        drafts: count,
        drafted_tokens: count,
        accepted_tokens: count,
        acceptance: z.number(),
        mean_length: z.number().describe("Tokens verified a step, the sure one included."),
      })
      .nullable()
      .describe("null: nothing was drafted."),
    slo: z.object({
      class: text.describe("Name of its SLO class."),
      tier: tier.describe("What it asked for."),
      served_tier: tier.describe("What it ended in."),
      attained: z.boolean().nullable().describe("All stages were on time; null for best effort."),
      reason: reason.nullable().describe("Why not; null where all was kept, and for best effort."),
      ttft_ms: msOrNone.describe("Objective: time to first token, ms; null: none."),
      tpot_ms: msOrNone.describe("Objective: time per output token, ms; null: none."),
      thinking_tpot_ms: msOrNone.describe("Objective: time per output token while thinking, ms; null: none."),
      max_gap_ms: msOrNone.describe("Objective: longest time between two tokens, ms; null: none."),
      stages: z.array(stage),
    }),
    ignored: z.array(text).optional().describe("Fields of the request that have no effect."),
  })
  .describe("How the request went. Times count from its arrival.")

export const usage = z
  .object({
    prompt_tokens: count,
    completion_tokens: count,
    total_tokens: count,
    prompt_tokens_details: z
      .object({ cached_tokens: count.describe("Those that earlier requests had computed.") })
      .optional(),
    completion_tokens_details: z.object({ reasoning_tokens: count }).optional(),
  })
  .describe("A prompt counts once, however many answers it has.")

const expectedWait = z
  .object({ expected_wait_ms: count.describe("When there should be room, ms from now.") })
  .optional()

export const error = z.object({
  error: z.object({
    message: text.describe("What was wrong, and what to do."),
    type: text,
    param: text.nullable().describe("The field that is wrong."),
    code: text.nullable().describe("One of those that the status lists."),
  }),
  metrics: expectedWait,
})

export const anthropicError = z.object({
  type: z.literal("error"),
  error: z.object({
    type: text,
    message: text.describe("What was wrong, and what to do."),
    param: text.nullable().describe("The field that is wrong."),
    details: z.object({ error_code: text.describe("One of those that the status lists.") }).nullable(),
  }),
  request_id: text,
  metrics: expectedWait,
})

/** What ends a stream in OpenAI's form. */
export const done = z.literal("[DONE]").describe("The last event: no JSON.")

export const timeParts = z
  .object(Object.fromEntries(TIME_PARTS.map((part) => [`${PART_NAMES[part]}_ms`, ms])))
  .describe("A time by what it went into, ms: the parts add up to it.")
