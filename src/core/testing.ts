/** Small builders shared by the core's tests. */
import type { CostModel } from "./cost.ts"
import { KvAccount } from "./kv/account.ts"
import { Calibration } from "./learn/calibration.ts"
import { OutputLengths } from "./learn/output-lengths.ts"
import { PlanningContext, type PlanningParts } from "./planner/context.ts"
import type { EngineLimits, RequestSpec } from "./protocol.ts"
import { LiveRequest } from "./request.ts"

export const LIMITS: EngineLimits = {
  kvTokens: 4096,
  blockTokens: 16,
  maxSequences: 8,
  maxBatchTokens: 512,
  contextTokens: 1024,
  minChunkTokens: 64,
  unifiedKv: true,
}

/** 5 ms a step and 0.1 ms a token: a round-numbered GPU. */
export const COST: CostModel = {
  pieces: [{ step: 5000, tokens: 100 }],
  residualSigma: 0.05,
  fastPassTokens: 64,
  unifiedKv: true,
}

export function specOf(id: number, changes: Partial<RequestSpec> = {}): RequestSpec {
  return {
    id,
    app: 0,
    session: -1,
    promptTokens: 100,
    maxOutputTokens: 50,
    prefix: [],
    slo: { ttftUs: 1_000_000, ttftSlowdown: 0, tpotUs: 100_000, thinkingTpotUs: 50_000, maxGapUs: Infinity },
    tier: "slo",
    thinking: false,
    ...changes,
  }
}

export function liveOf(id: number, changes: Partial<RequestSpec> = {}, arrivalUs = 0): LiveRequest {
  const spec = specOf(id, changes)
  return new LiveRequest(spec, arrivalUs, spec.slo.ttftUs, id)
}

/** A planning context of an engine with these limits, where nothing was learnt yet and effects go nowhere. */
export function contextOf(
  limits: EngineLimits = LIMITS,
  parts: Partial<PlanningParts> = {},
): PlanningContext {
  return new PlanningContext({
    limits,
    cost: COST,
    kv: new KvAccount(limits),
    outputLengths: new OutputLengths(1),
    calibration: new Calibration(),
    actions: { demoted() {}, promoted() {}, admitted() {}, preempted() {} },
    ...parts,
  })
}

/** How often a property test runs: less often where it meets every mutant of the core (test/mutants). */
export function runs(usual: number): number {
  return Math.min(usual, Number(process.env.PROPERTY_RUNS ?? usual))
}
