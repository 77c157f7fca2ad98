/** An exchange as spans: the request by OpenTelemetry's conventions for generative AI, and one below it for each stage of each answer. */
import type { Decision, Outcome, Slo, StageOutcome } from "../core/protocol.ts"
import { logLine } from "../explain/log-line.ts"
import type { AnswerRecord } from "../explain/record.ts"

export type Attributes = Record<string, string | number | boolean | string[]>

/** Times are Unix times, ms. */
export interface SpanPlan {
  name: string
  startMs: number
  endMs: number
  attributes: Attributes
  events: { name: string; atMs: number; attributes: Attributes }[]
  /** Why it failed. */
  error: string | null
  children: SpanPlan[]
}

/** What is known of an exchange besides its answers. */
export interface Asked {
  operation: "chat" | "text_completion" | "embeddings"
  /** As it was asked for. */
  model: string
}

/** More than any objective is: one that was not asked for. */
const NO_OBJECTIVE_US = 3_600_000_000

export function spansOf(records: readonly AnswerRecord[], { operation, model }: Asked): SpanPlan {
  const [first] = records as [AnswerRecord]
  const endMs = Math.max(...records.map((record) => record.endedMs))
  const error = records.find((record) => record.error !== null)?.error ?? null
  return {
    ...{ name: `${operation} ${model}`, startMs: first.arrivedMs, endMs },
    attributes: {
      "gen_ai.operation.name": operation,
      "gen_ai.provider.name": "slos-serve",
      "gen_ai.request.model": model,
      "gen_ai.response.id": first.id,
      "gen_ai.response.finish_reasons": records.map(({ end }) => end),
      ...(records.length > 1 && { "gen_ai.request.choice.count": records.length }),
      ...usageOf(records),
      ...latenciesOf(records),
      ...verdictOf(records),
      ...(error !== null && { "error.type": error.code }),
    },
    events: records.flatMap(eventsOf),
    error: error?.message ?? null,
    children: records.flatMap(stagesOf),
  }
}

function usageOf(records: readonly AnswerRecord[]): Attributes {
  const outcomes = records.flatMap(({ outcome }) => outcome ?? [])
  const [first] = outcomes
  if (first === undefined) return {}
  return {
    "gen_ai.usage.input_tokens": first.promptTokens,
    "gen_ai.usage.output_tokens": outcomes.reduce((sum, { outputTokens }) => sum + outputTokens, 0),
    "gen_ai.usage.cache_read.input_tokens": first.cachedTokens,
  }
}

/** vLLM's names, in s. */
function latenciesOf(records: readonly AnswerRecord[]): Attributes {
  const outcome = records[0]!.outcome
  if (outcome === null) return {}
  const { arrivalUs, startedUs, firstTokenUs, finishedUs } = outcome
  return {
    ...(startedUs >= 0 && { "gen_ai.latency.time_in_queue": (startedUs - arrivalUs) / 1e6 }),
    ...(firstTokenUs >= 0 && { "gen_ai.latency.time_to_first_token": (firstTokenUs - arrivalUs) / 1e6 }),
    "gen_ai.latency.e2e": (finishedUs - arrivalUs) / 1e6,
  }
}

function verdictOf(records: readonly AnswerRecord[]): Attributes {
  const { tenant, class: className, kept, reason, why } = logLine(records)
  const [{ tier }] = records as [AnswerRecord]
  return {
    ...{
      "slos_serve.tenant": String(tenant),
      "slos_serve.class": String(className),
      "slos_serve.tier": tier,
    },
    ...(typeof kept === "boolean" && { "slos_serve.kept": kept }),
    ...(typeof reason === "string" && { "slos_serve.reason": reason, "slos_serve.why": String(why) }),
  }
}

function eventsOf({ outcome, arrivedMs }: AnswerRecord): SpanPlan["events"] {
  return (outcome?.account?.decisions ?? []).map((decision: Decision) => ({
    name: decision.what,
    atMs: arrivedMs + decision.afterUs / 1000,
    attributes: {
      ...(decision.reason !== undefined && { reason: decision.reason }),
      ...(decision.bound !== undefined && { bound: decision.bound }),
    },
  }))
}

/** The queue, then what it was judged by. */
function stagesOf(record: AnswerRecord): SpanPlan[] {
  const { outcome } = record
  if (outcome === null) return []
  const { arrivalUs, startedUs, firstTokenUs, finishedUs, stages } = outcome
  const firstUs = firstTokenUs < 0 ? finishedUs : firstTokenUs
  const begunUs = startedUs < 0 ? firstUs : startedUs
  const answeringUs = arrivalUs + (outcome.account?.answeringUs ?? finishedUs - arrivalUs)
  const ends = { prefill: firstUs, thinking: answeringUs, answer: finishedUs }
  const spans = [spanOf(record, "queue", arrivalUs, begunUs, {})]
  let fromUs = begunUs
  for (const stage of stages) {
    const toUs = ends[stage.stage]
    spans.push(spanOf(record, stage.stage, fromUs, toUs, judgedAs(stage, outcome, record.slo)))
    fromUs = toUs
  }
  return spans
}

function spanOf(
  { arrivedMs, choice, choices, outcome }: AnswerRecord,
  name: string,
  fromUs: number,
  toUs: number,
  attributes: Attributes,
): SpanPlan {
  const at = (us: number) => arrivedMs + (us - outcome!.arrivalUs) / 1000
  return {
    ...{
      name,
      startMs: at(fromUs),
      endMs: at(Math.max(fromUs, toUs)),
      events: [],
      error: null,
      children: [],
    },
    attributes: { ...attributes, ...(choices > 1 && { "slos_serve.choice": choice }) },
  }
}

/** When its last token was due, after the arrival, and by how much its tightest token was early (negative: late). */
function judgedAs(stage: StageOutcome, outcome: Outcome, slo: Slo): Attributes {
  const tokens = { "slos_serve.stage.tokens": stage.tokens }
  const dueUs = dueOf(stage, outcome, slo)
  if (outcome.tier === "bestEffort" || dueUs >= NO_OBJECTIVE_US) return tokens
  return {
    ...tokens,
    "slos_serve.stage.attained": stage.attained,
    "slos_serve.stage.deadline_ms": dueUs / 1000,
    "slos_serve.stage.slack_ms": -stage.worstLateUs / 1000,
  }
}

function dueOf(
  { stage }: StageOutcome,
  { stages, ttftUs, firstTokenUs, arrivalUs }: Outcome,
  slo: Slo,
): number {
  if (stage === "prefill") return ttftUs
  const tokensOf = (name: StageOutcome["stage"]) => stages.find((one) => one.stage === name)?.tokens ?? 0
  const firstUs = firstTokenUs - arrivalUs
  const hasTtft = ttftUs < NO_OBJECTIVE_US
  const fromUs = hasTtft ? Math.max(ttftUs, firstUs) : firstUs
  const [thought, answered] = [tokensOf("thinking"), tokensOf("answer")]
  const thoughtUs = fromUs + Math.max(0, thought - 1) * (thought > 1 ? slo.thinkingTpotUs : 0)
  if (stage === "thinking") return thoughtUs
  const afterFirst = answered - (thought > 0 ? 0 : 1)
  return thoughtUs + (afterFirst > 0 ? afterFirst * slo.tpotUs : 0)
}
