/** Recorded arrivals as JSONL: one line about the server, then one line for each arrival, times from the beginning of the
 * recording. `GET /v1/slo/arrivals` writes it, `slos-serve advise` reads it. */
import { z } from "zod"
import { COST_FEATURES, type CostModel } from "../core/cost.ts"
import { GRAPH_MODES } from "../core/graphs.ts"
import type { PolicyOptions } from "../core/options.ts"
import type { PolicyName } from "../core/policy/index.ts"
import { POLICY_NAMES } from "../core/policy/index.ts"
import { UserError } from "../errors.ts"
import { ROUTER_KINDS } from "../router/routers.ts"
import { type Arrival, ENDS } from "./arrival.ts"
import type { FleetSetup } from "./play.ts"
import type { Recording } from "./score.ts"

export interface RecordedFleet {
  recording: Recording
  setup: FleetSetup
  /** That served at the time. */
  replicas: number
}

const amount = z.number().nonnegative()
const count = z.int().min(1).max(1e9)

const setupSchema = z.object({
  limits: z.object({
    ...{
      kvTokens: count,
      blockTokens: count,
      maxSequences: count,
      maxBatchTokens: count,
      contextTokens: count,
    },
    ...{ minChunkTokens: count, unifiedKv: z.boolean(), cachedSequences: z.int().min(0).optional() },
  }),
  cost: z.object({
    pieces: z.array(z.partialRecord(z.enum(COST_FEATURES), amount)).min(1),
    ...{ residualSigma: amount, fastPassTokens: amount, unifiedKv: z.boolean() },
    graphs: z
      .object({
        sizes: z.array(count).min(1),
        ...{ decodes: z.enum(GRAPH_MODES), mixed: z.enum(GRAPH_MODES), decodeTokens: count },
        ...{ piecewiseUs: amount, eagerUs: amount },
      })
      .optional(),
  }),
  calibration: z.number().positive(),
  policy: z.enum(POLICY_NAMES as [string, ...string[]]),
  options: z.record(z.string(), z.union([z.string(), z.number(), z.null()])),
  apps: count,
  acceptance: z.number().min(0).max(1),
  router: z.object({
    kind: z.enum(ROUTER_KINDS as [string, ...string[]]).optional(),
    ...{ hops: count.optional(), affinity: z.boolean().optional(), reoffers: amount.optional() },
  }),
  maxQueue: count,
})

const headerSchema = z.object({
  arrivals: z.literal(1),
  durationMs: z.number().positive(),
  replicas: count,
  setup: setupSchema,
})

const ms = z.number().nonnegative().nullable()
const lineSchema = z.object({
  atMs: amount,
  app: z.int().min(0).max(10_000),
  session: z.int().min(-1).default(-1),
  promptTokens: z.int().min(0).max(1e8),
  maxOutputTokens: z.int().min(0).max(1e8),
  outputTokens: z.int().min(0).max(1e8),
  thinkingTokens: z.int().min(0).max(1e8).default(0),
  cachedTokens: z.int().min(0).max(1e8).default(0),
  slo: z.object({ ttftMs: ms, ttftSlowdown: amount, tpotMs: ms, thinkingTpotMs: ms, maxGapMs: ms }),
  tier: z.enum(["slo", "bestEffort"]),
  worth: z.number().positive().default(1),
  thinking: z.boolean().default(false),
  end: z.enum(ENDS),
  endMs: amount.default(0),
  attained: z.boolean().default(false),
})
type Line = z.output<typeof lineSchema>

const toMs = (us: number) => (Number.isFinite(us) ? us / 1000 : null)
const toUs = (value: number | null) => (value === null ? Number.POSITIVE_INFINITY : value * 1000)

/** Line by line, so that a server can write it a piece at a time. */
export function* linesOf({ recording, setup, replicas }: RecordedFleet): Generator<string, void, void> {
  const { arrivals, sinceUs, nowUs } = recording
  const header = { arrivals: 1, durationMs: Math.max(1, (nowUs - sinceUs) / 1000), replicas, setup }
  yield `${JSON.stringify(header)}\n`
  // Numbers of their own: a recording tells nothing of the server's names.
  const sessions = new Map<number, number>([[-1, -1]])
  for (const arrival of arrivals) {
    const { slo, atUs, endUs, session, ...rest } = arrival
    if (!sessions.has(session)) sessions.set(session, sessions.size - 1)
    const line = {
      ...rest,
      atMs: Math.max(0, (atUs - sinceUs) / 1000),
      endMs: endUs === 0 ? 0 : Math.max(0, (endUs - sinceUs) / 1000),
      session: sessions.get(session)!,
      slo: {
        ...{ ttftMs: toMs(slo.ttftUs), ttftSlowdown: slo.ttftSlowdown, tpotMs: toMs(slo.tpotUs) },
        ...{ thinkingTpotMs: toMs(slo.thinkingTpotUs), maxGapMs: toMs(slo.maxGapUs) },
      },
    } satisfies Line
    yield `${JSON.stringify(line)}\n`
  }
}

/** `name` is what error messages call the file. */
export function parseRecording(text: string, name: string): RecordedFleet {
  const lines = text.split(/\r?\n/).filter((line) => line.trim() !== "")
  const header = parsed(headerSchema, lines[0], `${name}:1`)
  const arrivals = lines.slice(1).map((line, at) => arrivalOf(parsed(lineSchema, line, `${name}:${at + 2}`)))
  arrivals.sort((a, b) => a.atUs - b.atUs)
  const { setup, replicas, durationMs } = header
  return {
    recording: { arrivals, sinceUs: 0, nowUs: durationMs * 1000 },
    setup: {
      ...setup,
      limits: withoutUndefined(setup.limits),
      cost: setup.cost as CostModel,
      policy: setup.policy as PolicyName,
      options: setup.options as Partial<PolicyOptions>,
      router: withoutUndefined(setup.router),
    } as FleetSetup,
    replicas,
  }
}

function parsed<T>(schema: z.ZodType<T>, line: string | undefined, where: string): T {
  const remedy = "take the recording anew from GET /v1/slo/arrivals"
  let value: unknown
  try {
    value = JSON.parse(line ?? "")
  } catch {
    throw new UserError(`${where}: not JSON; ${remedy}`)
  }
  const found = schema.safeParse(value)
  if (found.success) return found.data
  const issue = found.error.issues[0]!
  throw new UserError(`${where}: ${issue.path.join(".") || "line"}: ${issue.message}; ${remedy}`)
}

function arrivalOf({ atMs, endMs, slo, ...line }: Line): Arrival {
  return {
    ...line,
    atUs: atMs * 1000,
    endUs: endMs * 1000,
    slo: {
      ...{ ttftUs: toUs(slo.ttftMs), ttftSlowdown: slo.ttftSlowdown, tpotUs: toUs(slo.tpotMs) },
      ...{ thinkingTpotUs: toUs(slo.thinkingTpotMs), maxGapUs: toUs(slo.maxGapMs) },
    },
  }
}

function withoutUndefined<T extends object>(value: T): T {
  return Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as T
}
