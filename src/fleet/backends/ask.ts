/** A job's choice as a request in an engine's own API. */

import type { Generation } from "../../replica/generation.ts"
import type { Job, JobChoice } from "../../replica/host.ts"
import { SLO_ARGS_FIELD, type SloArgs } from "../../serve/slo-args.ts"
import { exactNumber, isRawNumber } from "../../text/constraint/exact-json.ts"
import { withForm } from "./form.ts"
import type { Api, BackendKind } from "./kind.ts"
import { withSloArgs } from "./slo-args.ts"
import { reword } from "./wording.ts"

export interface Ask {
  path: string
  body: Record<string, unknown>
}

export interface AskOptions {
  kind: BackendKind
  /** What the engine calls the model. */
  model: string
  /** First token due, ms since 1970, where the engine takes priorities; null: it takes none. */
  priorityMs: number | null
  /** What an engine that takes SLOs is told of this one's; null: it takes none. */
  sloArgs: SloArgs | null
  /** Longest prompt and answer together; null: the engine does not say. */
  contextTokens: number | null
  /** Tokens that are out already, and their text. */
  begun: { tokens: number; text: string } | null
}

/** Ours alone, said anew, or of no effect here: engines may refuse what they do not know, or do not take just now. */
const NOT_HANDED_ON = new Set([
  ...["slo", SLO_ARGS_FIELD, "parse_special", "stream", "stream_options", "priority"],
  ...["n", "best_of", "model", "prompt", "echo"],
])
/** Requests without a promise come after all that have one: a day. */
const LAST_MS = 86_400_000

/** Why an answer that has begun elsewhere cannot be gone on with here; null: it can. */
export function cannotGoOn(job: Job, { begun }: JobChoice, kind: BackendKind): string | null {
  if (begun === null || begun.steps.every(({ tokens }) => tokens.length === 0)) return null
  const { text } = begun
  if (text === undefined) return "its text so far is not known"
  if (text.reasoning !== "" || text.toolCalls > 0) return "it has thought or called tools already"
  if (apiOf(job) === "chat" && kind.goOn === null) return `${kind.name} cannot go on with a message`
  if (job.generation.prompt.kind === "tokens") return "its prompt is tokens and its answer text"
  return null
}

export function apiOf({ api, generation }: Job): Api {
  return api ?? (generation.prompt.kind === "chat" ? "chat" : "completions")
}

export function askOf(job: Job, { index }: JobChoice, options: AskOptions): Ask {
  const { kind, model, priorityMs, sloArgs, contextTokens, begun } = options
  const { generation } = job
  const api = apiOf(job)
  const own = job.body === undefined ? fieldsOf(generation, api) : withForm(handedOn(job.body), kind, api)
  const body: Record<string, unknown> = {
    ...own,
    ...(api === "chat" ? {} : { prompt: promptOf(generation) }),
    ...kind.fields,
    ...withSloArgs(job.body ?? {}, sloArgs),
    ...(own.seed !== undefined && { seed: seedOf(own.seed, index) }),
    ...(priorityMs !== null && { priority: Math.round(priorityMs) }),
    model,
    stream: true,
  }
  reword(body, kind, api, contextTokens)
  if (begun !== null && begun.tokens > 0) goOn(body, api, kind, begun)
  if (!kind.clampsLength) toContextEnd(body, api, generation.toContextEnd ? contextTokens : null)
  return { path: api === "chat" ? "/v1/chat/completions" : "/v1/completions", body }
}

const LIMITS = ["max_tokens", "max_completion_tokens"] as const

/** -1 is llama.cpp's word for what the context leaves. Others: what a chat does by default, and vLLM's completions for null.
 * `contextTokens`: an answer of so many is asked for no more than fits; null: it must be as long as it was asked for. */
function toContextEnd(body: Record<string, unknown>, api: Api, contextTokens: number | null): void {
  for (const limit of LIMITS) {
    const most = body[limit]
    if (most !== -1 && !(contextTokens !== null && Number(most) >= contextTokens)) continue
    if (api === "chat") delete body[limit]
    else body[limit] = null
  }
}

/** The same for as long an answer as fits, once the engine has refused it as it was: its prompt's tokens are the engine's to
 * count. null: it was asked for nothing that could be too long. */
export function unlimited({ path, body }: Ask, { generation }: Job, kind: BackendKind): Ask | null {
  if (!generation.toContextEnd || kind.clampsLength) return null
  if (LIMITS.every((limit) => typeof body[limit] !== "number")) return null
  const { max_tokens: _, max_completion_tokens: __, ...rest } = body
  return { path, body: rest }
}

/** Exact, also beyond what a number holds. Engines take signed numbers of 64 bits: of larger ones the same bits. */
function seedOf(seed: unknown, index: number): unknown {
  const exact = BigInt(isRawNumber(seed) ? JSON.stringify(seed) : (seed as number)) + BigInt(index)
  return exactNumber(String(BigInt.asIntN(64, exact)))
}

/** By absolute deadline, and those without one after all others. */
export function priorityOf(deadlineMs: number, nowMs: number): number {
  return Number.isFinite(deadlineMs) ? deadlineMs : nowMs + LAST_MS
}

/** What of the answer is out is part of the prompt, and of what it may be long. */
function goOn(
  body: Record<string, unknown>,
  api: Api,
  kind: BackendKind,
  { tokens, text }: { tokens: number; text: string },
): void {
  if (api === "completions") body.prompt = `${body.prompt as string}${text}`
  else {
    body.messages = [...(body.messages as object[]), { role: "assistant", content: text }]
    Object.assign(body, kind.goOn)
  }
  for (const limit of ["max_tokens", "max_completion_tokens"]) {
    const most = body[limit]
    if (typeof most === "number" && most > 0) body[limit] = Math.max(1, most - tokens)
  }
  const least = body.min_tokens
  if (typeof least === "number") body.min_tokens = Math.max(0, least - tokens)
}

/** What the engine calls the model that the job asks for. `models`: what clients call them, and what it does; `served`: its first. */
export function modelFor(
  { body }: Job,
  models: ReadonlyMap<string, string> = new Map(),
  served: string | undefined,
): string {
  const asked = typeof body?.model === "string" ? body.model : ""
  // `model:class` asks for an SLO class as well.
  const found = models.get(asked) ?? models.get(asked.slice(0, asked.lastIndexOf(":")))
  return found ?? [...models.values()][0] ?? served ?? asked
}

function handedOn(body: Readonly<Record<string, unknown>>): Record<string, unknown> {
  const own: Record<string, unknown> = {}
  for (const field of Object.keys(body))
    if (!NOT_HANDED_ON.has(field) && body[field] !== null) own[field] = body[field]
  return own
}

function promptOf({ prompt }: Generation): unknown {
  if (prompt.kind === "tokens") return prompt.tokens
  return prompt.kind === "text" ? prompt.text : ""
}

/** Of a request whose body is not at hand. */
function fieldsOf({ prompt, maxTokens, stops, badWords, sampling, reasoning }: Generation, api: Api) {
  const variables = reasoning === null ? {} : { enable_thinking: reasoning }
  const chat = prompt.kind === "chat" ? prompt : null
  const template = { ...chat?.variables, ...variables }
  return {
    ...(chat !== null && { messages: chat.messages }),
    ...(chat?.tools && { tools: chat.tools }),
    ...(chat !== null && Object.keys(template).length > 0 && { chat_template_kwargs: template }),
    ...(maxTokens !== null && { max_tokens: maxTokens }),
    ...(stops.length > 0 && { stop: stops }),
    ...(badWords && { bad_words: badWords }),
    ...samplingFields(sampling, api),
  } as Record<string, unknown>
}

function samplingFields(sampling: Generation["sampling"], api: Api): Record<string, unknown> {
  const { temperature, topP, topK, minP, seed, logprobs, ignoreEos, minTokens, logitBias } = sampling
  const { frequencyPenalty, presencePenalty, repeatPenalty } = sampling
  const top = Math.max(0, logprobs - 1)
  return {
    ...{ temperature, seed },
    ...(topP < 1 && { top_p: topP }),
    ...(topK > 0 && { top_k: topK }),
    ...(minP > 0 && { min_p: minP }),
    ...(frequencyPenalty !== 0 && { frequency_penalty: frequencyPenalty }),
    ...(presencePenalty !== 0 && { presence_penalty: presencePenalty }),
    ...(repeatPenalty !== 1 && { repetition_penalty: repeatPenalty }),
    ...(ignoreEos && { ignore_eos: true }),
    ...(minTokens > 0 && { min_tokens: minTokens }),
    ...(logitBias.length > 0 && { logit_bias: Object.fromEntries(logitBias) }),
    ...(logprobs > 0 && (api === "chat" ? { logprobs: true, top_logprobs: top } : { logprobs: top })),
  }
}
