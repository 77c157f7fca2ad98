/** From the chunks of a streamed answer to steps: how many tokens, which ones where the engine says so, and their text. */
import type { AnswerDelta, TextLogprob } from "../../text/answer.ts"
import type { CallDelta } from "../../text/tools/parts.ts"
import { type Chunk, type ChunkChoice, chunkSchema, plainChunk } from "./chunk.ts"

/** A token of which only the text is known. No model has it: a replica that goes on from text alone can be asked only where
 * text is enough. */
export const UNKNOWN_TOKEN = -1

export interface ReadStep {
  tokens: readonly number[]
  delta: AnswerDelta
  /** The first of these tokens is the answer's first after thinking. */
  answering: boolean
  /** Prompt tokens that the engine had in its cache; null while it has not said. */
  cachedTokens: number | null
}

export interface ReadUsage {
  /** null: it has not said. */
  promptTokens: number | null
  cachedTokens: number | null
  completionTokens: number
  reasoningTokens: number
}

/** The engine said something that is no answer. The message says what, for people. */
export class Malformed extends Error {}

export class AnswerReader {
  /** Why the answer ended; null while it has not. */
  finish: string | null = null
  /** The stop string that ended it; undefined where none did, or the engine does not say. */
  stop: string | undefined
  readonly usage: ReadUsage = {
    ...{ promptTokens: null, cachedTokens: null, completionTokens: 0, reasoningTokens: 0 },
  }
  /** Names of calls, "" until they are known. */
  readonly #calls: string[] = []
  #thinking = false
  #answering = false
  #promptTokens: number

  /** `promptTokens`: an estimate, until the engine says. */
  constructor(promptTokens: number) {
    this.#promptTokens = promptTokens
  }

  get calledTools(): boolean {
    return this.#calls.length > 0
  }

  /** The `data` of one event that is not [DONE]. null: nothing new. Throws Malformed. */
  push(data: string): ReadStep | null {
    const chunk = parse(data)
    if (chunk.error) throw new Malformed(`it broke off: ${errorText(chunk.error)}`)
    const choice = chunk.choices?.[0]
    const before = this.usage.completionTokens
    const step = choice === undefined ? null : this.#step(chunk, choice)
    this.#use(chunk)
    // Its own count at the end is right, whatever was counted on the way.
    this.usage.completionTokens = Math.max(before, this.usage.completionTokens)
    return step
  }

  #step(chunk: Chunk, choice: ChunkChoice): ReadStep | null {
    const content = choice.delta?.content ?? choice.text ?? ""
    const reasoning = choice.delta?.reasoning_content ?? choice.delta?.reasoning ?? ""
    const toolCalls = this.#readCalls(choice)
    if (choice.finish_reason) this.finish = choice.finish_reason
    if (typeof choice.stop_reason === "string") this.stop = choice.stop_reason
    const some = content !== "" || reasoning !== "" || (choice.delta?.tool_calls?.length ?? 0) > 0
    const tokens = this.#tokens(chunk, choice, some)
    if (tokens.length === 0 && content === "" && reasoning === "" && toolCalls.length === 0) return null
    const answering = this.#phase(content !== "" || toolCalls.length > 0, reasoning !== "")
    if (reasoning !== "") this.usage.reasoningTokens += tokens.length
    const logprobs = logprobsOf(choice)
    const counts = { promptTokens: this.#promptTokens, completionTokens: this.usage.completionTokens }
    const delta = { content, reasoning, toolCalls, logprobs, ...counts }
    const said = chunk.usage?.prompt_tokens_details?.cached_tokens ?? chunk.timings?.cache_n ?? null
    return { tokens, delta, answering, cachedTokens: said }
  }

  /** What came with this chunk. `some`: it has text, so that it is one token at least. */
  #tokens(chunk: Chunk, choice: ChunkChoice, some: boolean): number[] {
    const said = chunk.usage?.completion_tokens ?? chunk.timings?.predicted_n ?? null
    const before = this.usage.completionTokens
    if (choice.token_ids && choice.token_ids.length > 0) {
      this.usage.completionTokens += choice.token_ids.length
      return [...choice.token_ids]
    }
    const count = said === null ? Number(some) : Math.max(0, said - before)
    this.usage.completionTokens += count
    return new Array<number>(count).fill(UNKNOWN_TOKEN)
  }

  /** True when the answer begins with this step, after thinking. */
  #phase(content: boolean, reasoning: boolean): boolean {
    if (reasoning) this.#thinking = true
    if (!content || this.#answering) return false
    this.#answering = true
    return this.#thinking
  }

  #use({ usage, timings }: Chunk): void {
    const own = this.usage
    if (usage?.prompt_tokens) own.promptTokens = this.#promptTokens = usage.prompt_tokens
    if (usage?.completion_tokens) own.completionTokens = usage.completion_tokens
    own.cachedTokens = usage?.prompt_tokens_details?.cached_tokens ?? timings?.cache_n ?? own.cachedTokens
    own.reasoningTokens = usage?.completion_tokens_details?.reasoning_tokens ?? own.reasoningTokens
  }

  /** Pieces of calls as they come: the name first. */
  #readCalls({ delta }: ChunkChoice): CallDelta[] {
    const read: CallDelta[] = []
    for (const part of delta?.tool_calls ?? []) {
      const index = part.index ?? this.#calls.length
      if (index > this.#calls.length) throw new Malformed(`tool call ${index} comes before those it follows`)
      const known = (this.#calls[index] ??= "")
      const name = part.function?.name ?? ""
      const more = part.function?.arguments ?? ""
      if (known === "") {
        if (name === "") throw new Malformed(`tool call ${index} has arguments before its name`)
        this.#calls[index] = name
        read.push({ index, name, arguments: more })
      } else if (more !== "") read.push({ index, name: null, arguments: more })
    }
    return read
  }
}

function parse(data: string): Chunk {
  let json: unknown
  try {
    json = JSON.parse(data)
  } catch {
    throw new Malformed(`a chunk is not JSON: ${excerpt(data)}`)
  }
  const plain = plainChunk(json)
  if (plain !== null) return plain
  const chunk = chunkSchema.safeParse(json)
  if (chunk.success) return chunk.data
  const { path, message } = chunk.error.issues[0]!
  throw new Malformed(
    `a chunk is not what it should be: ${path.join(".") || "it"} ${message}: ${excerpt(data)}`,
  )
}

function excerpt(text: string): string {
  return JSON.stringify(text.length > 80 ? `${text.slice(0, 80)}…` : text)
}

function errorText(error: NonNullable<Chunk["error"]>): string {
  return (typeof error === "string" ? error : (error.message ?? "no reason given")).slice(0, 300)
}

function logprobsOf({ logprobs }: ChunkChoice): TextLogprob[] {
  if (!logprobs) return []
  const bytesOf = (token: string, bytes?: number[] | null) => Uint8Array.from(bytes ?? Buffer.from(token))
  if (logprobs.content)
    return logprobs.content.map(({ token, bytes, logprob, top_logprobs }) => ({
      bytes: bytesOf(token, bytes),
      logprob,
      top: (top_logprobs ?? []).map((other) => ({
        bytes: bytesOf(other.token, other.bytes),
        logprob: other.logprob,
      })),
    }))
  return (logprobs.tokens ?? []).map((token, i) => ({
    bytes: bytesOf(token),
    logprob: logprobs.token_logprobs?.[i] ?? 0,
    top: Object.entries(logprobs.top_logprobs?.[i] ?? {}).map(([other, logprob]) => ({
      bytes: bytesOf(other),
      logprob,
    })),
  }))
}
