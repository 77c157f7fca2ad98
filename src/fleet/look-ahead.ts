/** What comes of an offered request: an engine run forward until it has its first token, and somewhat further. */
import type { EngineRun, Prompt } from "./engine-run.ts"

/** How far at the most, in all, and beyond the offered request's first token. */
export const MOST_STEPS = 600
const STEPS_AFTER = 32
/** Few steps end sooner than this many spreads before they are expected to. */
const SPREADS = 2

/** When it begins. */
export interface Start {
  /** How long its prompt waits in the engine's own queue, the way there not counted, µs; Infinity beyond what is looked ahead. */
  queuesUs: number
  /** With the engine's next step. */
  startsNext: boolean
  /** … or with the one after, where it is too late for that one: a step that should be over by now may last a while yet. */
  mayStartNext: boolean
  /** In how long the engine's next step begins at the earliest, µs; not above 0 where it may have begun. */
  nextStepUs: number
}

/** Of a run that has not made a step. `sigma`: the relative spread of its steps' times. What was not seen by `nowUs` has not happened. */
export function lookAhead(run: EngineRun, offered: Prompt, sigma: number, nowUs: number): Start {
  const beganUs = run.nowUs
  const landsUs = run.step(nowUs)
  let reachedUs = landsUs
  let after = offered.firstTokenUs < Infinity ? 1 : 0
  for (let steps = 1; steps < MOST_STEPS && after < STEPS_AFTER; steps++) {
    if (run.step(nowUs) < 0) break
    if (reachedUs <= offered.readyUs) reachedUs = run.nowUs
    if (offered.firstTokenUs < Infinity) after++
  }
  run.lookAhead()
  const { startsUs, readyUs } = offered
  const earliestUs = beganUs + (landsUs - beganUs) * (1 - SPREADS * sigma)
  return {
    ...{ queuesUs: startsUs - readyUs, nextStepUs: earliestUs - nowUs },
    ...{ startsNext: startsUs <= landsUs, mayStartNext: startsUs <= reachedUs },
  }
}
