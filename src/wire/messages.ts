/** What replicas and gateways say to each other: one schema for each message, both ways. Every frame is checked against it
 * where it arrives. A change of meaning is a new version: an end that hears another version refuses to go on. */
import { z } from "zod"
import { GRAPH_MODES } from "../core/graphs.ts"
import { UserError } from "../errors.ts"
import type { Job, JobEnd } from "../replica/host.ts"
import type { Observed, ObservedEffect } from "../replica/observed.ts"
import { areColumns } from "./deltas.ts"
import { demoteReason, outcome } from "./outcome.ts"

export const WIRE_VERSION = 4
export const WIRE_PROTOCOL = "slos-serve"

const whole = z.number().int()
const count = whole.nonnegative()
/** Times, which may be Infinity where there is no objective. */
const us = z.custom<number>((value) => typeof value === "number" && !Number.isNaN(value), "is not a number")
const text = z.string()
const bytes = z.instanceof(Uint8Array)
const tier = z.enum(["slo", "bestEffort"])

const slo = z.object({ ttftUs: us, ttftSlowdown: us, tpotUs: us, thinkingTpotUs: us, maxGapUs: us })

const sampling = z.object({
  temperature: z.number(),
  topK: z.number(),
  topP: z.number(),
  minP: z.number(),
  repeatPenalty: z.number(),
  frequencyPenalty: z.number(),
  presencePenalty: z.number(),
  repeatLastTokens: z.number(),
  seed: count,
  ignoreEos: z.boolean(),
  minTokens: count,
  logitBias: z.array(z.tuple([count, z.number()])),
  grammar: text.nullable(),
  logprobs: count,
  promptLogprobs: count.optional(),
  embedding: z.boolean().optional(),
})

const message = z.looseObject({ role: text, content: text.nullable() })
const prompt = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("chat"),
    messages: z.array(message),
    tools: z.array(z.unknown()).nullable(),
    variables: z.record(text, z.unknown()),
    goesOn: z.boolean().optional(),
  }),
  z.object({ kind: z.literal("text"), text }),
  z.object({ kind: z.literal("tokens"), tokens: z.array(count) }),
])

const sloClass = z.object({
  name: text,
  app: count,
  description: text,
  slo,
  tier,
  thinking: z.boolean(),
  aliases: z.array(text),
  worth: z.number().positive(),
})

const generation = z.object({
  prompt,
  tenant: text,
  maxTokens: count.nullable(),
  toContextEnd: z.boolean().optional(),
  sampling,
  parseSpecial: z.boolean().nullable(),
  stops: z.array(text),
  stopTokens: z.array(count).optional(),
  badWords: z.array(text).optional(),
  singleCall: z.boolean(),
  jsonIsText: z.boolean().optional(),
  callable: z.array(text).optional(),
  lastPromptTokens: z.union([count, z.literal("fitting")]).optional(),
  slo: z.object({ class: sloClass, slo, tier, priority: z.boolean(), thinking: z.boolean() }),
  session: text.nullable(),
  reasoning: z.boolean().nullable(),
  thinkingTokens: count.nullable(),
})

const start = z.object({ ttftUs: us, queuedUs: us, cachedTokens: count })
const begun = z.object({
  steps: z.array(z.object({ tokens: z.array(count), agoUs: us })),
  start: start.optional(),
  text: z.object({ content: text, reasoning: text, toolCalls: count }).optional(),
})

const job = z.object({
  id: count,
  generation,
  ageUs: us,
  choices: z.array(z.object({ index: count, begun: begun.nullable() })).min(1),
  body: z.record(text, z.unknown()).optional(),
  promptTokens: count.optional(),
  api: z.enum(["chat", "completions"]).optional(),
})

/** What a gateway says. */
const toReplica = z.discriminatedUnion("type", [
  z.object({ type: z.literal("hello"), protocol: text, version: whole }),
  z.object({ type: z.literal("offer"), job, deadlineMs: z.number() }),
  z.object({ type: z.literal("submit"), job }),
  z.object({ type: z.literal("cancel"), id: count }),
  z.object({ type: z.literal("withdraw"), id: count }),
  z.object({ type: z.literal("close") }),
])

const logprob = z.object({ bytes, control: text.optional(), logprob: z.number() })
const logprobs = z.array(logprob.extend({ top: z.array(logprob) }))
const delta = z.object({
  content: text,
  reasoning: text,
  toolCalls: z.array(z.object({ index: count, name: text.nullable(), arguments: text })),
  logprobs,
  prompt: logprobs.optional(),
  embedding: bytes.optional(),
  promptTokens: count,
  completionTokens: count,
})

const usage = z.object({
  promptTokens: count,
  cachedTokens: count,
  completionTokens: count,
  reasoningTokens: count,
  drafts: count,
  draftedTokens: count,
  acceptedTokens: count,
})
const error = z.object({
  message: text,
  status: whole.min(400).max(599),
  code: text.nullable(),
  param: text.nullable(),
  errorType: text,
})
const end = z.discriminatedUnion("kind", [
  z.object({
    kind: z.literal("finished"),
    reason: z.enum(["stop", "length", "tool_calls"]),
    /** The stop string that ended it. */
    stop: text.optional(),
    ...{ usage, outcome },
  }),
  z.object({ kind: z.literal("failed"), error }),
  z.object({ kind: z.literal("cancelled") }),
  z.object({ kind: z.literal("lost"), reason: z.enum(["refused", "died", "broken"]), detail: text }),
])

const speculation = z.object({
  acceptance: z.number(),
  hitRate: z.number(),
  length: z.number(),
  draftedTokens: count,
  acceptedTokens: count,
})
const snapshot = z.looseObject({
  nowUs: us,
  waiting: count,
  running: count,
  bestEffort: count,
  kvUsedTokens: count,
  kvCachedTokens: count,
  kvCapacityTokens: count,
  batchInFlight: z.boolean(),
  kvEvictedTokens: count,
  prefillBacklogTokens: count,
  prefillUsPerToken: us,
  calibration: z.array(z.number()),
  speculation: z.array(speculation),
})
const engine = z.object({
  state: z.enum(["ok", "hung", "failing"]),
  detail: text,
  trips: count,
  downUs: z.object({ hung: us, failing: us }),
})

const limits = z.looseObject({
  kvTokens: count,
  blockTokens: count,
  maxSequences: count,
  maxBatchTokens: count,
  contextTokens: count,
  minChunkTokens: count,
  unifiedKv: z.boolean(),
})
const planner = z.object({
  limits,
  cost: z.object({
    pieces: z.array(z.record(text, z.number())),
    residualSigma: z.number(),
    fastPassTokens: z.number(),
    unifiedKv: z.boolean(),
    graphs: z
      .object({
        sizes: z.array(count).min(1),
        decodes: z.enum(GRAPH_MODES),
        mixed: z.enum(GRAPH_MODES),
        decodeTokens: count,
        piecewiseUs: z.number(),
        eagerUs: z.number(),
      })
      .optional(),
  }),
  policy: text,
  options: z.record(text, z.unknown()),
})
const model = z.object({
  name: text,
  fingerprint: text,
  chatTemplate: text.nullable(),
  bosText: text,
  eosText: text,
  trainedContextTokens: count,
  vocabSize: count,
  parameters: z.number(),
  random: z.boolean(),
  pooling: z.enum(["last", "mean"]).nullable().optional(),
})

const columns = z.array(count)
const deltas = z
  .object({
    type: z.literal("deltas"),
    ...{ ids: columns, choices: columns, lengths: columns, tokens: columns },
    ...{ texts: z.array(text.nullable()), promptTokens: columns, completionTokens: columns },
  })
  .refine(areColumns, "its columns do not fit together")

/** Of tokens there are as many as of all else together: they come in columns. */
const tokenEffects = z
  .object({ ids: columns, counts: columns, lateUs: z.array(us) })
  .refine(
    ({ ids, counts, lateUs }) => counts.length === ids.length && lateUs.length === ids.length,
    "its columns do not fit together",
  )
const effect = z.discriminatedUnion("type", [
  z.object({
    type: z.literal("finished"),
    id: count,
    reason: z.enum(["stop", "length", "cancelled", "failed"]),
    outcome,
  }),
  z.object({ type: z.literal("admitted"), id: count }),
  z.object({ type: z.literal("demoted"), id: count, reason: demoteReason }),
  z.object({ type: z.literal("promoted"), id: count }),
  z.object({ type: z.literal("preempted"), id: count }),
  z.object({
    type: z.literal("rejected"),
    id: count,
    reason: z.enum(["promptTooLong", "queueFull", "shuttingDown", "engineDown"]),
  }),
])
const step = z.object({
  requests: count,
  tokens: count,
  planUs: us,
  predictedUs: us,
  durationUs: us,
  failed: z.boolean(),
  drafts: z.array(z.object({ drafted: count, accepted: count })),
})

/** What a replica says. */
const toGateway = z.discriminatedUnion("type", [
  z.object({ type: z.literal("hello"), protocol: text, version: whole }),
  z.object({
    type: z.literal("info"),
    info: z.object({
      model,
      limits,
      longestTokenBytes: count,
      vocabulary: z.array(bytes).nullable(),
      planner: planner.nullable(),
    }),
  }),
  z.object({
    type: z.literal("state"),
    state: z.enum(["starting", "ready", "draining", "down", "closed"]),
    detail: text,
  }),
  z.object({ type: z.literal("offered"), id: count, takes: z.boolean(), promptTokens: count }),
  z.object({ type: z.literal("started"), id: count, choice: count, start }),
  z.object({
    type: z.literal("tokens"),
    id: count,
    choice: count,
    tokens: z.array(count),
    delta: delta.nullable(),
  }),
  deltas,
  z.object({ type: z.literal("turnedDown"), id: count, choice: count }),
  z.object({ type: z.literal("end"), id: count, choice: count, end }),
  z.object({ type: z.literal("withdrawn"), id: count, gone: z.boolean() }),
  z.object({ type: z.literal("digest"), snapshot, ageUs: us, engine }),
  z.object({
    type: z.literal("observed"),
    tokens: tokenEffects,
    effects: z.array(effect),
    steps: z.array(step),
  }),
])

export type ToReplica = z.infer<typeof toReplica>
export type ToGateway = z.infer<typeof toGateway>
type WireEnd = z.infer<typeof end>

/** What arrived is a frame, but says nothing that can be understood. */
export class MessageError extends Error {
  override readonly name = "MessageError"
}

export const readToReplica = (frame: unknown): ToReplica => readMessage(toReplica, frame)
export const readToGateway = (frame: unknown): ToGateway => readMessage(toGateway, frame)

/** As its schema has it. Throws MessageError that names the first wrong field. */
export function readMessage<T>(schema: z.ZodType<T>, frame: unknown): T {
  const result = schema.safeParse(frame)
  if (result.success) return result.data
  const [issue] = result.error.issues
  const type = String((frame as { type?: unknown } | null)?.type)
  throw new MessageError(`a message (${type.slice(0, 40)}): ${issue?.path.join(".")}: ${issue?.message}`)
}

/** Null, or why an end that says this hello cannot be talked to. */
export function refusalOf({ protocol, version }: { protocol: string; version: number }): string | null {
  if (protocol !== WIRE_PROTOCOL) return `it speaks ${protocol.slice(0, 40)}, not ${WIRE_PROTOCOL}`
  if (version === WIRE_VERSION) return null
  return `it speaks version ${version} of the wire protocol, this end version ${WIRE_VERSION}: update one of them`
}

export function hello(): { type: "hello"; protocol: string; version: number } {
  return { type: "hello", protocol: WIRE_PROTOCOL, version: WIRE_VERSION }
}

export function observedToWire({ effects, steps }: Observed): ToGateway {
  const tokens = { ids: [] as number[], counts: [] as number[], lateUs: [] as number[] }
  const others: Exclude<ObservedEffect, { type: "token" }>[] = []
  for (const effect of effects) {
    if (effect.type !== "token") others.push(effect)
    else {
      tokens.ids.push(effect.id)
      tokens.counts.push(effect.count)
      tokens.lateUs.push(effect.lateUs)
    }
  }
  return { type: "observed", tokens, effects: others, steps } as ToGateway
}

/** A moment's tokens come before all else of it: nothing that is told of a request goes by their order, but its end. */
export function observedFromWire({
  tokens,
  effects,
  steps,
}: Extract<ToGateway, { type: "observed" }>): Observed {
  const all = tokens.ids.map((id, i): ObservedEffect => {
    return { type: "token", id, count: tokens.counts[i]!, lateUs: tokens.lateUs[i]! }
  })
  return { effects: all.concat(effects), steps }
}

/** As the port has it. */
export function jobOf(sent: Extract<ToReplica, { type: "submit" | "offer" }>["job"]): Job {
  return sent as Job
}

export function endToWire(end: JobEnd): WireEnd {
  if (end.kind !== "failed") return end
  const { message, status, code, param, type } = end.error
  return { kind: "failed", error: { message, status, code, param, errorType: type } }
}

export function endFromWire(end: WireEnd): JobEnd {
  if (end.kind !== "failed") return end
  const { message, errorType, ...rest } = end.error
  return { kind: "failed", error: new UserError(message, { ...rest, type: errorType }) }
}
