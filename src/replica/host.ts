/** The port of a replica as a fleet sees it: in this process, in a worker process, or on another machine. Only plain data
 * and deltas cross it, and every question may stay without an answer. Times cross as ages (how long ago, µs): clocks
 * of two machines do not agree. */
import type { EngineLimits, RejectReason, Snapshot } from "../core/protocol.ts"
import type { SeenStart } from "../core/seen.ts"
import type { ModelInfo } from "../engine/port.ts"
import type { AnswerDelta, AnswerEnd } from "../text/answer.ts"
import type { Generation } from "./generation.ts"
import type { Observed } from "./observed.ts"
import type { PlannerView } from "./planner-view.ts"

/** Number of a job, chosen by the side that submits it; not used again. */
export type JobId = number

/** What a replica is asked to do: some or all of the answers to one prompt. */
export interface Job {
  id: JobId
  generation: Generation
  /** Since the request reached the first gateway, µs. */
  ageUs: number
  choices: readonly JobChoice[]
  /** The body as its client sent it, for a replica that is another server of the same API. */
  body?: Readonly<Record<string, unknown>>
  /** Headers that name its trace, for such a server. */
  trace?: Readonly<Record<string, string>>
  /** Tokens of its prompt, estimated: for a replica that is asked for offers alone and reads no prompts. */
  promptTokens?: number
  /** What that server's API calls it. Default: chat or completions, by the prompt. */
  api?: "chat" | "completions"
}

export interface JobChoice {
  /** 0, 1, 2 …: its seed is the generation's, plus this. */
  index: number
  /** It goes on where another replica stopped; null: from its beginning. */
  begun: Begun | null
}

/** How far an answer had come elsewhere, as the gateway saw it. */
export interface Begun {
  /** Its steps so far, in order: their tokens, and how long ago they came, µs. */
  steps: readonly BegunStep[]
  /** What its replica said of its beginning (JobSink.started); left out: it did not. */
  start?: SeenStart
  /** What they said, for a replica that knows texts alone (fleet/backends/); left out: not known. */
  text?: BegunText
}

/** The text of an answer that has begun. */
export interface BegunText {
  content: string
  reasoning: string
  toolCalls: number
}

export interface BegunStep {
  tokens: readonly number[]
  agoUs: number
}

/** What a planner says to a job that it is offered. */
export interface Offer {
  /** It could keep this job's SLOs, and all that it has promised. */
  takes: boolean
  /** The prompt's tokens; 0 when unknown. */
  promptTokens: number
}

export const DECLINED: Offer = { takes: false, promptTokens: 0 }

/** Why a replica does not go on with a job. */
export interface JobLost {
  kind: "lost"
  /** `refused`: it never began; `died`: the replica is gone; `broken`: it answered nonsense. */
  reason: "refused" | "died" | "broken"
  detail: string
}

/** `JobLost.detail` of what is refused for a full queue. */
export const QUEUE_FULL = "queueFull" satisfies RejectReason

export type JobEnd = AnswerEnd | JobLost

/** Where the answers of a job go. Called synchronously: be quick. */
export interface JobSink {
  /** How it began, before its first tokens: another replica then judges it by the same deadline. */
  started?(choice: number, start: SeenStart): void
  /** Tokens of a step, and the text that they gave, if any. Text that is held back comes with later tokens, so that
   * with these tokens another replica can go on. Without tokens: the rest of the text, and its end follows at once. It
   * must not be shown before the end is there, or a replica that goes on would say it again. */
  tokens(choice: number, tokens: readonly number[], delta: AnswerDelta | null): void
  /** Its SLOs will not be kept here: another replica may still take it, if no token is out. */
  turnedDown?(choice: number): void
  /** Exactly once for each choice, after all its tokens. */
  end(choice: number, end: JobEnd): void
}

/** A job that does not begin: all its answers end. */
export function refuse({ choices }: Job, sink: JobSink, detail: string): void {
  for (const { index } of choices) sink.end(index, { kind: "lost", reason: "refused", detail })
}

/** What a replica was when it said so. */
export interface Digest {
  snapshot: Snapshot
  /** How old it is by now, µs. */
  ageUs: number
  /** Whether its engine computes. */
  engine: EngineHealth
}

export interface EngineHealth {
  state: "ok" | "hung" | "failing"
  /** Why it is down; empty while it is not. */
  detail: string
  /** Steps that hung, and the time in each state, µs: since the start. */
  trips: number
  downUs: { hung: number; failing: number }
}

/** What a replica serves; known once it is ready. */
export interface HostInfo {
  model: ModelInfo
  limits: EngineLimits
  /** No token stands for more bytes of text. */
  longestTokenBytes: number
  /** Bytes of each token; null when unknown. */
  vocabulary: readonly Uint8Array[] | null
  /** null where it is not known. */
  planner: PlannerView | null
}

/** `starting`: loads, or is being reached. `down`: its jobs are lost; it may come back by itself. */
export type HostState = "starting" | "ready" | "draining" | "down" | "closed"

export interface ReplicaHost {
  /** For people and metrics; unique in a fleet. */
  readonly name: string
  readonly state: HostState
  /** Why it is not ready, for people. */
  readonly detail: string
  /** null until it was ready once. */
  readonly info: HostInfo | null
  /** Whether its engine computes, as far as it has said: asked for every request, which `digest` would be dear for. */
  readonly computes: boolean
  /** Requests may wait for it where no replica is up: it is to be back soon. Left out: they may not. */
  readonly comesBack?: boolean
  /** Another length of its queue, and other tenants, from now on; left out: they are its operator's own. */
  renew?(shares: { maxQueue: number; tenants: readonly { name: string; weight: number }[] }): void
  /** It is down: how long until it takes requests again, at the latest, µs; Infinity: it is not to be expected. null, or left
   * out: that is not known. */
  readonly backInUs?: number | null
  /** Times it came back; left out: it does not come back. */
  readonly restarts?: number
  /** Called on each change of `state`. The answer ends that. */
  onState(listener: (state: HostState) => void): () => void
  /** What its core does, for metrics. */
  onObserved(listener: (observed: Observed) => void): () => void
  /** Whether its planner would take the job now. Never rejects; no answer in time is a no. What is prepared for an offer
   * is kept for a while, so that to submit the same job next costs less. */
  offer(job: Job, deadlineMs: number): Promise<Offer>
  /** All that becomes of it goes to the sink, refusals included. */
  submit(job: Job, sink: JobSink): void
  /** Its client has gone. Unknown jobs are ignored. */
  cancel(id: JobId): void
  /** Give the job up, if none of its tokens is out or being computed: true when it is gone from here, and its sink
   * is told nothing more. */
  withdraw(id: JobId): Promise<boolean>
  /** The last word on how busy it is; null before the first. */
  digest(): Digest | null
  /** Takes nothing new; resolves when all it has has ended. */
  drain(): Promise<void>
  /** It is as good as dead: it ends at once, whatever it does, and what it had is lost. It may come back by itself. */
  giveUp(detail: string): void
  /** Ends what is left and frees all. */
  close(): Promise<void>
}
