/** Requests as they enter a replica, new or on their way from another one. */

import type { Progress, RequestSpec } from "./protocol.ts"
import { LiveRequest } from "./request.ts"

/** A request on its way from one replica to another. */
export interface Moved {
  request: RequestSpec
  progress: Progress
}

/** A TTFT or TPOT that was not asked for is one that is always met: an hour a token, so that arithmetic stays finite. */
const NO_OBJECTIVE_US = 3_600_000_000
/** A TTFT given as a slowdown is never shorter: a few times a short prompt's prefill is less than one batch, and
 * no reader feels the difference. */
const LEAST_SLOWDOWN_US = 100_000

/** What so many tokens of a prompt take on an idle engine, µs: see Slo.ttftSlowdown and RequestSpec.allRows. */
export type ZeroLoadUs = (promptTokens: number, allRows?: boolean) => number

/** A request as it starts here: afresh, or where another replica stopped. */
export function startRequest(
  spec: RequestSpec,
  nowUs: number,
  order: number,
  zeroLoadUs: ZeroLoadUs,
  progress?: Progress,
): LiveRequest {
  const arrivalUs = progress?.arrivalUs ?? spec.arrivalUs ?? nowUs
  const ttftUs = progress === undefined ? ttftOf(spec, zeroLoadUs) : progress.deadlineUs - arrivalUs
  const request = new LiveRequest(bounded(spec), arrivalUs, ttftUs, order)
  if (progress !== undefined) request.resume(progress)
  return request
}

/** Times are whole µs: an objective of a third of a millisecond is not one to a fraction of that. */
const finite = (us: number) => Math.max(1, Math.round(Math.min(us, NO_OBJECTIVE_US)))

/** With objectives that are whole and finite. */
export function bounded(spec: RequestSpec): RequestSpec {
  const { slo } = spec
  return { ...spec, slo: { ...slo, tpotUs: finite(slo.tpotUs), thinkingTpotUs: finite(slo.thinkingTpotUs) } }
}

/** When its first token is due, after its arrival. */
export function ttftOf({ slo, promptTokens, allRows }: RequestSpec, zeroLoadUs: ZeroLoadUs): number {
  const { ttftSlowdown, ttftUs } = slo
  if (ttftSlowdown <= 0) return finite(ttftUs)
  return finite(Math.max(LEAST_SLOWDOWN_US, ttftSlowdown * zeroLoadUs(promptTokens, allRows)))
}

/** Its tokens are computed anew, and the replica that takes it has promised nothing yet. */
export function movedFrom(request: LiveRequest): Moved {
  const { spec, progress } = request
  const preemptions = progress.preemptions + (request.computed > 0 ? 1 : 0)
  return { request: spec, progress: { ...progress, tier: spec.tier, admitted: false, preemptions } }
}

/** Why a request that comes has ended already, if it has: all its tokens are out, only its end was not told. */
export function overBy(spec: RequestSpec, progress?: Progress): "stop" | "length" | undefined {
  if (progress?.stopped) return "stop"
  return progress !== undefined && progress.output >= spec.maxOutputTokens ? "length" : undefined
}
