/** What an engine says to its twin, and what a twin answers in its place. */
import type { Prompt } from "./engine-run.ts"

/** What an engine says of itself. */
export interface EngineLoad {
  /** Requests, of all its clients. */
  running: number
  waiting: number
  /** In tokens; left out where the engine does not say. */
  kvUsedTokens?: number
}

export interface TwinOffer {
  /** The first token would be in time, the pace kept, and no promise to another request broken. */
  takes: boolean
  /** When the first token would come, absolute µs; Infinity beyond what is looked ahead. */
  firstTokenUs: number
  /** How long its prompt would wait in the engine's own queue, the way there not counted, µs; Infinity as above. */
  queuesUs: number
  /** It would begin with the engine's next step. */
  startsNext: boolean
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
export interface Forecast extends Pick<TwinOffer, "firstTokenUs" | "queuesUs" | "startsNext" | "leavesRoom"> {
  /** How far it looked. */
  endUs: number
  /** Promises to others that do not hold. */
  broken: string[]
  ownPaceLate: boolean
}
