/** What an engine says to its twin, and what a twin answers in its place. */
import type { Prompt } from "./engine-run.ts"
import type { Start } from "./look-ahead.ts"

/** What an engine says of itself. */
export interface EngineLoad {
  /** Requests, of all its clients. */
  running: number
  waiting: number
  /** In tokens; left out where the engine does not say. */
  kvUsedTokens?: number
}

/** `queuesUs` may not be what it was forecast as: times to first tokens so far correct it. */
export interface TwinOffer extends Start {
  /** The first token would be in time, the pace kept, and no promise to another request broken. */
  takes: boolean
  /** When the first token would come, absolute µs; Infinity beyond what is looked ahead. */
  firstTokenUs: number
  /** How much longer the next steps take with its prompt, and all others that are there without a token out, than without any, µs.
   * Where prompts have steps of their own all of these. */
  addsUs: number
  /** No promise to another request would be broken. */
  keepsOthers: boolean
  /** Of best effort: all that is there comes to hold no more KV with it than leaves room for as many promises as there were lately. */
  leavesRoom: boolean
}

/** What it runs the engine with. */
export interface RunWith {
  leastRest?: number
  others?: boolean
  offered?: Prompt
  held?: readonly Prompt[]
}

/** What a twin sees of the steps to come. */
export interface Forecast extends Start, Pick<TwinOffer, "firstTokenUs" | "addsUs" | "leavesRoom"> {
  /** How far it looked. */
  endUs: number
  /** Promises to others that do not hold. */
  broken: string[]
  ownPaceLate: boolean
}

/** What adds less than this to an engine's steps takes nothing from what comes after it, µs. */
const LIGHT_US = 30_000

/** How long it may be kept from the engine, µs: what would only queue there can still be overtaken, or go elsewhere. To miss a step for
 * nothing costs all of the step, and steps are seldom as long as expected: what adds next to nothing to the next one is sent before it
 * can begin. */
export function mayWaitUs({ queuesUs, mayStartNext, nextStepUs, addsUs }: TwinOffer): number {
  return mayStartNext && addsUs <= LIGHT_US ? Math.min(queuesUs, nextStepUs) : queuesUs
}
