/** What a replica is told of a request that has begun elsewhere. */
import { movedFrom, startRequest } from "../core/moved.ts"
import type { Progress } from "../core/protocol.ts"
import type { SimRequest } from "./world.ts"

/** A step of a request, as its client saw it. */
export interface SeenStep {
  atUs: number
  tokens: number
  answeringFrom: number
}

export function progressOf(
  { spec, atUs, blocks }: SimRequest,
  steps: readonly SeenStep[],
  blockTokens: number,
  zeroLoadUs: (promptTokens: number) => number,
): Progress {
  const request = startRequest({ ...spec, arrivalUs: atUs }, atUs, 0, zeroLoadUs)
  for (const { tokens, answeringFrom, atUs: seenUs } of steps)
    request.emit(tokens, answeringFrom, seenUs, () => {})
  const filled = Math.floor((spec.promptTokens + request.output) / blockTokens)
  const prefix = blocks === undefined ? spec.prefix : blocks.slice(0, filled)
  return { ...movedFrom(request).progress, prefix, preemptions: 1 }
}
