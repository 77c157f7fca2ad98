/** Answers that are about the server: models, tokens, status, how requests went. */
import { z } from "zod"
import { count, ms, msOrNone, reason, text, tier, timeParts, unixSeconds } from "./common.ts"

export const model = z.object({
  id: text,
  object: z.literal("model"),
  created: unixSeconds,
  owned_by: text,
  root: text.describe("The model that is served."),
  parent: text.nullable().describe("null: it is that one; else one with an SLO class."),
  max_model_len: count.describe("Most tokens of a prompt and its answer."),
  slo_class: text.optional().describe("Its SLO class."),
  description: text.nullish(),
  random_weights: z.literal(true).optional().describe("Its answers are noise."),
})
export const models = z.object({ object: z.literal("list"), data: z.array(model) })

const piece = z.object({
  id: count,
  piece: z.union([text, z.array(count)]).describe("Bytes of what is no whole character."),
})
export const tokenized = z.union([
  z.object({
    count,
    max_model_len: count,
    tokens: z.array(count),
    token_strs: z.array(text).nullable(),
  }),
  z
    .object({ tokens: z.union([z.array(count), z.array(piece)]) })
    .describe("Of `content`: in llama-server's form."),
])
export const detokenized = z.object({
  prompt: text,
  content: text.describe("The same, by llama-server's name."),
})

export const tokenizerInfo = z.object({
  bos_token: text.nullable(),
  eos_token: text.nullable(),
  chat_template: text.nullable(),
  vocab_size: count,
  model_max_length: count.describe("Most tokens of a prompt and its answer."),
})

export const version = z.object({ version: text })
export const health = z.object({ status: z.literal("ok") })
export const readiness = z.object({ status: z.literal("ready") })

const ratio = z.object({ total: count, attained: count })
const engine = z.object({
  state: z.enum(["ok", "hung", "failing"]),
  detail: text.nullable(),
  hung_steps: count,
  hung_s: z.number(),
  failing_s: z.number(),
})
const tenant = z.object({
  name: text,
  weight: z.number(),
  live: count.describe("Answers that have a place in the queue."),
  requests: ratio,
  best_effort: count,
  refused: count,
  prompt_tokens: count,
  output_tokens: count,
})
const replica = z.object({
  name: text,
  state: z.enum(["starting", "ready", "draining", "down", "closed"]),
  detail: text.nullable(),
  restarts: count,
  requests: z.object({ running: count, waiting: count }),
  kv: z.object({ used_tokens: count, capacity_tokens: count }),
})
const sloClass = z.object({
  name: text,
  description: text.nullish(),
  tier,
  thinking: z.boolean(),
  ttft_ms: msOrNone.describe("ms; null: no objective, or a multiple."),
  ttft_slowdown: z.number().nullable().describe("As a multiple of the time on an idle server."),
  tpot_ms: msOrNone,
  thinking_tpot_ms: msOrNone,
  max_gap_ms: msOrNone,
  window: z
    .object({
      requests: ratio,
      stages: z.object({ prefill: ratio, thinking: ratio, answer: ratio }),
      bestEffort: count,
      demoted: count,
      outputTokens: count,
    })
    .describe("Of the last `window_s` seconds."),
  speculation: z
    .object({
      acceptance: z.number(),
      hit_rate: z.number(),
      length: z.number(),
      drafted_tokens: count,
      accepted_tokens: count,
    })
    .nullable(),
})

/** Before there is a model no more than what is being waited for. */
const starting = z.object({ phase: z.enum(["starting", "ready", "draining"]), detail: text })
const serving = z.object({
  ...starting.shape,
  model: z.object({
    name: text,
    random: z.boolean(),
    parameters: z.number(),
    context_tokens: count,
  }),
  engine,
  policy: text,
  default_class: text,
  uptime_s: count,
  window_s: count.describe("What `window` of the classes is about, s."),
  requests: z.object({ running: count, waiting: count, best_effort: count }),
  kv: z.object({ used_tokens: count, cached_tokens: count, capacity_tokens: count }),
  prefill_backlog_tokens: z.number(),
  calibration: z.array(z.number()).describe("Actual over predicted step time, by kind of batch."),
  tokens_per_sec: z.number(),
  requests_per_sec: z.number(),
  step_ms: z.number(),
  needs_key: z.boolean(),
  tenants: z.array(tenant),
  replicas: z.array(replica).describe("Empty where there is but one."),
  classes: z.array(sloClass),
})
export const status = z.union([serving, starting])

const decision = z.object({
  after_ms: ms.describe("Since its arrival, ms."),
  what: z.enum(["promised", "turned_down", "came_back", "preempted"]),
  reason: z.enum(["wont_fit", "violated", "revoked"]).nullable(),
  bound: text.nullable(),
})

export const explained = z
  .object({
    id: text.describe("Its header x-request-id."),
    choice: count,
    choices: count,
    tenant: text,
    class: text,
    arrived_at: z.iso.datetime(),
    ended_at: z.iso.datetime(),
    end: z.enum(["stop", "length", "tool_calls", "cancelled", "failed", "refused", "invalid"]),
    error: z.object({ code: text, message: text }).nullable(),
    tier,
    served_tier: tier.nullable(),
    attained: z.boolean().nullable(),
    prompt_tokens: count.nullable(),
    cached_tokens: count.nullable(),
    output_tokens: count.nullable(),
    time_to_first_token_ms: msOrNone,
    max_gap_ms: msOrNone,
    e2e_ms: ms,
    preemptions: count.nullable(),
    slo: z.object({ ttft_ms: msOrNone, tpot_ms: msOrNone, max_gap_ms: msOrNone }).describe("Objectives, ms."),
    reason: reason.nullable(),
    time: timeParts.nullable().describe("All of its time."),
    time_to_first_token: timeParts.nullable(),
    time_before_late: timeParts.nullable().describe("Before the first token that was late."),
    late_token: z
      .object({ token: count, stage: text, objective: z.enum(["ttft", "tpot", "max_gap"]) })
      .nullable(),
    decisions: z.array(decision),
    requests_per_sec: z.number().describe("Requests that ended a second about then."),
    expected_wait_ms: count.nullable().describe("Of one that was refused: when there should be room, ms."),
  })
  .describe("How one answer went, and why.")
export const explainedRequests = z.object({
  requests: z.array(explained).describe("The latest first."),
  kept: count.describe("Answers that are remembered."),
})
export const explainedRequest = z.object({ id: text, answers: z.array(explained) })

export const page = text.describe("HTML.")
export const arrivals = text.describe(
  "A line of JSON for each of the last arrivals, as `slos-serve advise` reads them: numbers, no text.",
)
export const prometheus = text.describe("Metrics in Prometheus' text form.")
export const document = z.looseObject({ openapi: text }).describe("This document.")
