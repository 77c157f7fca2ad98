/** One choice of a job at a backend: held, sent, and what has come of it. */
import type { RequestId } from "../../core/protocol.ts"
import type { Job, JobChoice, JobSink } from "../../replica/host.ts"
import type { Usage } from "../../text/answer.ts"
import type { TwinSpec } from "../twin.ts"
import type { ReadUsage } from "./answer-reader.ts"
import type { Judge } from "./judge.ts"

export interface Course {
  readonly id: RequestId
  readonly job: Job
  readonly choice: JobChoice
  readonly sink: JobSink
  readonly judge: Judge
  /** As its twin knows it; best effort once it was turned down. */
  spec: TwinSpec
  /** Tokens that were out when it came. */
  readonly begunTokens: number
  /** When it came, µs. */
  readonly sinceUs: number
  /** Gives up the exchange; null while it is held. */
  abort: (() => void) | null
  /** Some token of it is out. */
  begun: boolean
}

/** What it came to, by the engine's word; what was out when it came was computed elsewhere. */
export function usageOf({ spec, begunTokens }: Course, usage: ReadUsage): Usage {
  return {
    promptTokens: usage.promptTokens ?? spec.promptTokens,
    cachedTokens: usage.cachedTokens ?? 0,
    completionTokens: begunTokens + usage.completionTokens,
    reasoningTokens: usage.reasoningTokens,
    ...{ drafts: 0, draftedTokens: 0, acceptedTokens: 0 },
  }
}
