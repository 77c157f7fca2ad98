/** Tokens of API keys that have so many a minute: what a request may come to is taken when it comes, and what it did not use is given
 * back when it ends. */
import { userError } from "../errors.ts"
import type { Prompt } from "../replica/generation.ts"
import type { AnswerSink } from "../text/answer.ts"
import type { GenerationRequest } from "./intake.ts"
import { type ApiKey, rateRefusal } from "./key-ring.ts"

/** Before a prompt is read its tokens are estimated: few texts have more than one to so many bytes. */
const BYTES_PER_TOKEN = 3
/** Of a message, what the template writes around it. */
const TOKENS_PER_MESSAGE = 8

/** Lets `serve` answer the requests into these sinks, within what the key has left. Throws UserError where that is too little. */
export async function spend(
  key: ApiKey | null,
  {
    requests,
    sinks,
    defaultMaxTokens,
  }: { requests: readonly GenerationRequest[]; sinks: readonly AnswerSink[]; defaultMaxTokens: number },
  serve: (sinks: readonly AnswerSink[]) => Promise<void>,
): Promise<void> {
  const window = key?.tokens ?? null
  if (key === null || window === null) return serve(sinks)
  const each = sinks.length / requests.length
  const prompts = requests.map(({ prompt }) => estimated(prompt))
  const held = requests.reduce(
    (sum, { maxTokens }, i) => sum + prompts[i]! + each * (maxTokens ?? defaultMaxTokens),
    0,
  )
  const slot = await take(key, held)
  const usage = new Usage(requests.length, sinks.length)
  const settle = () => window.add(usage.tokens - held, slot)
  try {
    await serve(sinks.map((sink, at) => usage.counted(sink, at, settle)))
  } catch (error) {
    usage.nothing(settle)
    throw error
  }
}

async function take({ config, tokens }: ApiKey, held: number): Promise<number> {
  const window = tokens!
  const nowMs = performance.now()
  const slot = await window.take(held, nowMs)
  if (slot !== null) return slot
  const waitMs = window.waitMs(held, nowMs)
  if (Number.isFinite(waitMs)) throw rateRefusal(config.name, "tokens", window, waitMs)
  throw userError("token_limit_too_small", { name: config.name, asked: held, limit: window.limit })
}

/** What the answers of an exchange came to. */
class Usage {
  readonly #prompt: number[]
  readonly #answers: number[]
  readonly #each: number
  #left: number

  constructor(prompts: number, answers: number) {
    this.#prompt = Array.from({ length: prompts }, () => 0)
    this.#answers = Array.from({ length: answers }, () => 0)
    this.#each = answers / prompts
    this.#left = answers
  }

  get tokens(): number {
    return [...this.#prompt, ...this.#answers].reduce((sum, count) => sum + count, 0)
  }

  /** `settle` is called when all have ended. */
  counted(sink: AnswerSink, at: number, settle: () => void): AnswerSink {
    let open = true
    const over = () => {
      if (open && --this.#left === 0) settle()
      open = false
    }
    return {
      delta: (delta) => {
        this.#note(at, delta.promptTokens, delta.completionTokens)
        sink.delta(delta)
      },
      end: (end) => {
        if (end.kind === "finished") this.#note(at, end.usage.promptTokens, end.usage.completionTokens)
        over()
        sink.end(end)
      },
    }
  }

  /** It was refused: nothing was computed. */
  nothing(settle: () => void): void {
    if (this.#left > 0) settle()
    this.#left = 0
  }

  #note(at: number, prompt: number, answer: number): void {
    const of = Math.floor(at / this.#each)
    this.#prompt[of] = Math.max(this.#prompt[of]!, prompt)
    this.#answers[at] = Math.max(this.#answers[at]!, answer)
  }
}

function estimated(prompt: Prompt): number {
  if (prompt.kind === "tokens") return prompt.tokens.length
  if (prompt.kind === "text") return inBytes(prompt.text)
  const { messages, tools } = prompt
  const written = tools === null ? 0 : inBytes(JSON.stringify(tools))
  return messages.reduce(
    (sum, { content, tool_calls: calls }) =>
      sum + TOKENS_PER_MESSAGE + inBytes(content ?? "") + (calls ? inBytes(JSON.stringify(calls)) : 0),
    written,
  )
}

const inBytes = (text: string): number => Math.ceil(Buffer.byteLength(text) / BYTES_PER_TOKEN)
