/** Requests that were lost with their replica: how far they had come, out of what was seen of them. */
import { bounded, movedFrom, ttftOf, type ZeroLoadUs } from "./moved.ts"
import type { Progress, RequestSpec } from "./protocol.ts"
import { LiveRequest } from "./request.ts"

/** A step of a request, as it was seen from outside its replica. */
export interface SeenStep {
  atUs: number
  /** Tokens that came out, ≥ 1. */
  tokens: number
  /** See StepResult. */
  answeringFrom: number
}

/** A request that has begun elsewhere, as it was seen from outside: times on the clock of the replica that takes it. */
export interface Seen {
  /** In order, at least one. */
  steps: readonly SeenStep[]
  /** Chain hashes of its full KV blocks, its output's included. */
  prefix: readonly number[]
  /** What its replica said of its beginning; left out: it did not. */
  start?: SeenStart
  /** See Progress. */
  stopped?: boolean
}

/** How a request began. */
export interface SeenStart {
  /** First token due this long after arrival: a slowdown counts from the prefill time of the replica that promised it. */
  ttftUs: number
  /** First in a batch this long after arrival. */
  queuedUs: number
  /** See Outcome. */
  cachedTokens: number
}

/** null before it has. */
export function startOf(request: LiveRequest | undefined): SeenStart | null {
  if (request === undefined || request.startedUs < 0) return null
  const { arrivalUs, deadlineUs, startedUs, cachedTokens } = request
  return { ttftUs: deadlineUs - arrivalUs, queuedUs: startedUs - arrivalUs, cachedTokens }
}

/** How far a request has come that was lost with its replica: what the replica would have said of it, had it been
 * asked (`movedFrom`), out of what was seen of it. */
export function progressOf(
  spec: RequestSpec,
  { steps, prefix, start, stopped }: Seen,
  zeroLoadUs: ZeroLoadUs,
): Progress {
  const firstUs = steps[0]!.atUs
  const arrivalUs = spec.arrivalUs ?? firstUs
  const ttftUs = start?.ttftUs ?? ttftOf(spec, zeroLoadUs)
  const request = new LiveRequest(bounded(spec), arrivalUs, ttftUs, 0)
  for (const { tokens, answeringFrom, atUs } of steps) request.emit(tokens, answeringFrom, atUs, () => {})
  return {
    ...movedFrom(request).progress,
    prefix,
    startedUs: start === undefined ? firstUs : arrivalUs + start.queuedUs,
    cachedTokens: start?.cachedTokens ?? 0,
    // Its KV was lost.
    preemptions: 1,
    ...(stopped && { stopped }),
  }
}
