/** What differs between engines that speak OpenAI's API. A new one is a file and a row of the table (kinds.ts). */
import type { TextFormat } from "../../text/constraint/grammar.ts"
import type { CostFit } from "../cost-fit.ts"
import type { EngineRules } from "../engine-rules.ts"
import type { EngineLoad } from "../twin.ts"
import type { Gauges } from "./gauges.ts"

export type Api = "chat" | "completions"

/** Fields of an engine's request that hold its text to a form; null: it cannot be held to that. */
export type Form = (format: TextFormat, api: Api) => Readonly<Record<string, unknown>> | null

/** What an engine turns out to be, as far as it says. */
export interface Learnt {
  rules?: Partial<EngineRules>
  load?: EngineLoad
}

/** What is asked of it besides the models: a path, and what its answer says. */
export interface Probe {
  path: string
  learn(answer: unknown): Learnt
}

export interface BackendKind {
  readonly name: string
  /** As it starts without flags. */
  readonly rules: EngineRules
  /** How it batches where it takes priorities; null: it takes none. */
  readonly withPriority: EngineRules | null
  /** It hands extra arguments (vllm_xargs) on to what schedules in it: SLOs are told there. */
  readonly takesSloArgs: boolean
  /** It keeps answers from words (bad_words). */
  readonly takesBadWords: boolean
  /** What is believed of its step times until they were seen. */
  readonly prior: ConstructorParameters<typeof CostFit>[0]
  /** Answers 200 while it serves. */
  readonly healthPath: string
  /** Fields of every request: how many tokens came, which ones. */
  readonly fields: Readonly<Record<string, unknown>>
  /** How it is told what its text shall be. */
  readonly form: Form
  /** What it calls a penalty on repetition (llama.cpp's `repeat_penalty`); null: it has none. */
  readonly repeatPenalty: "repetition_penalty" | "repeat_penalty" | null
  /** It reads `chat_template_kwargs`. */
  readonly takesTemplateVariables: boolean
  /** An answer may be asked to be longer than its context leaves: it ends there. Others refuse that. */
  readonly clampsLength: boolean
  /** Fields with which a chat's last message, the assistant's, is gone on with; null: it cannot. */
  readonly goOn: Readonly<Record<string, unknown>> | null
  /** What its /metrics say; null: it has none. */
  readonly load: ((gauges: Gauges) => Learnt | null) | null
  /** Where else it says what it can hold. */
  readonly probe: Probe | null
}
