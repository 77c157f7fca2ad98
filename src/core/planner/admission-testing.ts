/** What the tests of admission share. A step is 5 ms and 0.1 ms a token, without a margin, and a batch 100 ms at most. */
import { OutputLengths } from "../learn/output-lengths.ts"
import { DEFAULT_OPTIONS, type PolicyOptions } from "../options.ts"
import type { EngineLimits, RequestSpec } from "../protocol.ts"
import type { LiveRequest } from "../request.ts"
import { contextOf, LIMITS, liveOf } from "../testing.ts"
import { Admission } from "./admission.ts"
import type { PlanningContext } from "./context.ts"
import { Speculator } from "./speculation/speculator.ts"

export const NOW_US = 1_000_000
export const OPTIONS: PolicyOptions = { ...DEFAULT_OPTIONS, margin: 0 }
export const LARGE: EngineLimits = { ...LIMITS, kvTokens: 64_000, maxSequences: 64, maxBatchTokens: 4096 }

/** Due so long from now, and then a token each `tpotUs`. */
export function prompt(
  id: number,
  promptTokens: number,
  dueUs: number,
  changes: Partial<RequestSpec> = {},
  tpotUs = 1e9,
) {
  const slo = { ttftUs: dueUs, ttftSlowdown: 0, tpotUs, thinkingTpotUs: tpotUs, maxGapUs: Infinity }
  return liveOf(id, { promptTokens, maxOutputTokens: 1, slo, ...changes }, NOW_US)
}

/** It has `output` of its tokens; its TPOT clock is `aheadUs` ahead of now. */
export function stream(
  context: PlanningContext,
  id: number,
  tpotUs: number,
  { aheadUs = 0, left = 50 } = {},
  changes: Partial<RequestSpec> = {},
) {
  const request = prompt(id, 100, 0, { maxOutputTokens: left + 1, ...changes }, tpotUs)
  const { promptTokens } = request.spec
  context.kv.attach(id, [], -1, null)
  context.kv.grow(id, promptTokens)
  request.computed = promptTokens
  request.emit(1, -1, NOW_US, () => {})
  request.paceDueUs += aheadUs
  request.dueUs = request.paceDueUs
  return request
}

/** Outputs have so many tokens. */
export function lengths(tokens: number): OutputLengths {
  const outputLengths = new OutputLengths(1)
  for (let i = 0; i < 300; i++) {
    outputLengths.grew(0, 0, tokens)
    outputLengths.ended(0, tokens)
  }
  return outputLengths
}

export interface Given {
  context?: PlanningContext
  decodes?: LiveRequest[]
  overdue?: LiveRequest[]
  slackNeeded?: number
  options?: Partial<PolicyOptions>
  limits?: Partial<EngineLimits>
}

/** Ids of those that are kept. */
export function kept(prefills: LiveRequest[], given: Given = {}): number[] {
  const { decodes = [], overdue = [], slackNeeded = 1, limits = {} } = given
  const options = { ...OPTIONS, ...given.options }
  const context = given.context ?? contextOf({ ...LARGE, ...limits }, { margin: options.margin })
  const running = { decodes, overdue, slackNeeded, speculator: new Speculator(options) }
  const chosen = new Admission(options).select(running, prefills, context, NOW_US)
  return [...chosen].map(({ id }) => id).sort((a, b) => a - b)
}

export const large = () => contextOf(LARGE, { margin: 0 })
