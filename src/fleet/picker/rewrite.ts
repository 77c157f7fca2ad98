/** What is told to the engine that gets a request: its deadline as a priority, its SLO as arguments, and of a TTFT the part
 * that its time in the picker has left. */
import { DEFAULT_TENANT } from "../../config/tenants.ts"
import { othersArgs, SLO_ARGS_FIELD, writeOrigin, writeSloArgs } from "../../serve/slo-args.ts"
import { type Ask, DEFAULT_FLOW } from "./ask.ts"
import { type Fields, withFields } from "./body.ts"

export interface RewriteOptions {
  /** The body's `priority`: the time its first token is due, ms since 1970 (vLLM and SGLang with
   * --schedule-low-priority-values-first: the lower goes first), or its negative (SGLang's default). */
  priority: "off" | "low-first" | "high-first"
  /** The body's `vllm_xargs` have the SLO, for a planner inside vLLM (docs/vllm.md). */
  sloArguments: boolean
}

/** A request without a TTFT ages like one with this: what is due never keeps it away for ever. */
const PATIENCE_US = 600_000_000
/** Held for less, its TTFT is left as it is. */
const LEAST_HELD_US = 1_000

export interface SendTime {
  /** Until its first token is due, infinite without a TTFT. */
  dueInUs: number
  heldUs: number
  /** Now, on the clock that all gateways of these engines share. */
  epochMs: number
}

export function rewrittenBody(body: Buffer, ask: Ask, time: SendTime, options: RewriteOptions): Buffer {
  const { fields } = ask
  const { dueInUs, heldUs, epochMs } = time
  if (fields === null) return body
  const added: Record<string, unknown> = {}
  if (options.priority !== "off") {
    const dueMs = epochMs + Math.min(dueInUs, PATIENCE_US - heldUs) / 1000
    added.priority = Math.round(options.priority === "low-first" ? dueMs : -dueMs)
  }
  if (options.sloArguments)
    added[SLO_ARGS_FIELD] = { ...othersArgs(fields[SLO_ARGS_FIELD]), ...sloArguments(ask, time) }
  const own = fields.slo
  if (heldUs >= LEAST_HELD_US && isObject(own) && typeof own.ttft_ms === "number")
    added.slo = { ...own, ttft_ms: leftMs(own.ttft_ms, heldUs) }
  return withFields(body, fields, added)
}

/** Headers that change with the time held. */
export function rewrittenHeaders(ask: Ask, heldUs: number): Record<string, string> {
  const { ttftUs, ttftSlowdown } = ask.slo.slo
  if (heldUs < LEAST_HELD_US || ttftSlowdown > 0 || !Number.isFinite(ttftUs)) return {}
  return { "x-llm-d-slo-ttft-ms": String(leftMs(ttftUs / 1000, heldUs)) }
}

/** An engine refuses a TTFT under a millisecond. */
function leftMs(ttftMs: number, heldUs: number): number {
  return Math.max(1, Math.round(ttftMs - heldUs / 1000))
}

function sloArguments({ slo, tenant: flow, session }: Ask, { heldUs, epochMs }: SendTime): Fields {
  const tenant = flow === DEFAULT_FLOW ? DEFAULT_TENANT : flow
  return { ...writeSloArgs(slo), ...writeOrigin({ tenant, session, arrivedUnixMs: epochMs - heldUs / 1000 }) }
}

function isObject(value: unknown): value is Record<string, unknown> {
  return typeof value === "object" && value !== null && !Array.isArray(value)
}
