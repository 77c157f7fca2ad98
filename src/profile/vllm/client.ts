/** Rounds on a running vLLM, over its API. */
import { createParser } from "eventsource-parser"
import { Agent, type Dispatcher, request } from "undici"
import { z } from "zod"
import { UserError } from "../../errors.ts"
import { Random } from "../../random.ts"
import type { Player, Round, RoundStream, StreamTimes } from "./rounds.ts"

const modelsSchema = z.object({
  data: z
    .array(z.object({ id: z.string(), root: z.string().nullish(), max_model_len: z.number().nullish() }))
    .min(1),
})
const versionSchema = z.object({ version: z.string() })
const chunkSchema = z.object({
  error: z.unknown().optional(),
  choices: z
    .array(z.object({ text: z.string().nullish(), token_ids: z.array(z.number()).nullish() }))
    .optional(),
})

export interface Served {
  /** As requests name it, and as it was loaded. */
  id: string
  root: string
  contextTokens: number
  version: string
}

export interface VllmClientOptions {
  url: string
  /** Which of its models; default: the first. */
  model?: string
  apiKey?: string
  /** Without any byte for so long it is given up, ms. */
  timeoutMs?: number
  seed?: number
}

/** Tokens that every model has, and none that end an answer. */
const [FIRST_TOKEN, TOKENS] = [200, 600]
const USUAL_CONTEXT = 2048
const ANSWER_MS = 10_000
const SILENCE_MS = 120_000

export class VllmClient implements Player {
  readonly served: Served
  #options: VllmClientOptions
  #agent: Agent
  #random: Random

  private constructor(options: VllmClientOptions, served: Served, agent: Agent) {
    this.#options = options
    this.served = served
    this.#agent = agent
    this.#random = new Random(options.seed ?? 1)
  }

  /** Throws UserError where nothing answers as vLLM does. */
  static async connect(options: VllmClientOptions): Promise<VllmClient> {
    const silence = options.timeoutMs ?? SILENCE_MS
    const agent = new Agent({
      bodyTimeout: silence,
      headersTimeout: silence,
      connections: null,
      pipelining: 1,
    })
    const get = async (path: string) => {
      const { statusCode, body } = await answerOf(options, path, { dispatcher: agent })
      return { statusCode, value: jsonOf(await body.text()) }
    }
    const models = await get("/v1/models")
    const found = modelsSchema.safeParse(models.value)
    if (!found.success)
      throw new UserError(
        `${options.url}/v1/models answers ${models.statusCode} and no list of models; give the address of a running vLLM${models.statusCode === 401 ? " and --api-key" : ""}`,
      )
    const { model } = options
    const one = model === undefined ? found.data.data[0]! : found.data.data.find(({ id }) => id === model)
    if (one === undefined)
      throw new UserError(
        `${options.url} serves no model "${model}"; it serves ${found.data.data.map(({ id }) => id).join(", ")}`,
      )
    const version = versionSchema.safeParse((await get("/version")).value)
    const served = {
      ...{ id: one.id, root: one.root ?? one.id, contextTokens: one.max_model_len ?? USUAL_CONTEXT },
      version: version.data?.version ?? "unknown",
    }
    return new VllmClient(options, served, agent)
  }

  async close(): Promise<void> {
    await this.#agent.destroy()
  }

  async play({ streams }: Round): Promise<StreamTimes[]> {
    const abort = new AbortController()
    const waiting = streams.map((stream, at) => ({ stream, at })).filter(({ stream }) => stream.after > 0)
    const running: Promise<StreamTimes>[] = []
    let seen = 0
    const start = (stream: RoundStream, at: number) => {
      running[at] = this.#stream(
        stream,
        abort.signal,
        at > 0
          ? null
          : (count) => {
              seen += count
              while (waiting.length > 0 && waiting[0]!.stream.after <= seen) {
                const next = waiting.shift()!
                start(next.stream, next.at)
              }
            },
      )
    }
    streams.forEach((stream, at) => {
      if (stream.after === 0) start(stream, at)
    })
    try {
      await Promise.all(running)
      // Those that were started meanwhile; the others have not been: the first stream ended before.
      return await Promise.all(streams.map((_, at) => running[at] ?? { sentUs: 0, tokens: [] }))
    } finally {
      abort.abort()
      await Promise.allSettled(running)
    }
  }

  async #stream(
    { promptTokens, outputTokens }: RoundStream,
    signal: AbortSignal,
    told: ((count: number) => void) | null,
  ): Promise<StreamTimes> {
    const sentUs = nowUs()
    const tokens: { count: number; atUs: number }[] = []
    const body = JSON.stringify({
      ...{ model: this.served.id, prompt: this.#prompt(promptTokens), stream: true, temperature: 0 },
      ...{ max_tokens: outputTokens, min_tokens: outputTokens, ignore_eos: true, return_token_ids: true },
    })
    const headers = { "content-type": "application/json" }
    const answer = await answerOf(this.#options, "/v1/completions", {
      method: "POST",
      body,
      headers,
      signal,
      dispatcher: this.#agent,
    })
    if (answer.statusCode !== 200) throw this.#refused(answer.statusCode, await answer.body.text())
    const parser = createParser({
      onEvent: ({ data }) => {
        const count = data === "[DONE]" ? 0 : this.#countOf(data)
        if (count === 0) return
        tokens.push({ count, atUs: nowUs() })
        told?.(count)
      },
    })
    const decoder = new TextDecoder()
    try {
      for await (const bytes of answer.body)
        parser.feed(decoder.decode(bytes as Uint8Array, { stream: true }))
    } catch (error) {
      if (error instanceof UserError) throw error
      throw new UserError(`${this.#options.url} broke an answer off: ${(error as Error).message}`)
    }
    return { sentUs, tokens }
  }

  /** Tokens of a chunk: as many ids as it lists, one where it lists none. */
  #countOf(data: string): number {
    const chunk = chunkSchema.safeParse(jsonOf(data))
    if (!chunk.success || chunk.data.error !== undefined)
      throw new UserError(`${this.#options.url} broke an answer off: ${data.slice(0, 200)}`)
    const choice = chunk.data.choices?.[0]
    if (choice === undefined) return 0
    return choice.token_ids?.length ?? ((choice.text ?? "") === "" ? 0 : 1)
  }

  /** Unlike any other: a shared prefix would be computed once. */
  #prompt(tokens: number): number[] {
    return Array.from({ length: tokens }, () => FIRST_TOKEN + this.#random.below(TOKENS))
  }

  #refused(status: number, text: string): UserError {
    const message = z.object({ error: z.object({ message: z.string() }) }).safeParse(jsonOf(text)).data
      ?.error.message
    return new UserError(
      `${this.#options.url} refuses a request (${status}): ${(message ?? text).slice(0, 300)}`,
    )
  }
}

type RequestOptions = {
  dispatcher: Dispatcher
  signal?: AbortSignal
  method?: "POST"
  body?: string
  headers?: Record<string, string>
}

async function answerOf({ url, apiKey }: VllmClientOptions, path: string, options: RequestOptions) {
  const headers = { ...options.headers, ...(apiKey !== undefined && { authorization: `Bearer ${apiKey}` }) }
  const signal = options.signal ?? AbortSignal.timeout(ANSWER_MS)
  try {
    return await request(`${url.replace(/\/+$/, "")}${path}`, { ...options, headers, signal })
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw new UserError(
      `${url} does not answer (${code ?? message}); start vLLM first, or correct the address`,
    )
  }
}

function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

function nowUs(): number {
  return performance.now() * 1000
}
