/** Servers that answer as each kind of engine does, in shapes recorded from real ones, with an engine behind them that takes
 * time. For tests. */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import type { OwnBatchingKind } from "./kinds.ts"

export interface FakeOptions {
  kind?: OwnBatchingKind
  /** Words of each answer. */
  words?: number
  /** Between two words, ms. */
  wordMs?: number
  /** Before the first. Default: the same. */
  firstMs?: number
  model?: string
  /** Other models, listed before it. */
  listedFirst?: readonly string[]
  port?: number
  /** Most at a time; further ones wait. */
  slots?: number
  /** Load that comes from others. */
  others?: { running: number; waiting: number }
}

/** What it was asked. */
export interface Asked {
  path: string
  body: Record<string, unknown>
  headers: IncomingMessage["headers"]
}

export const WORDS = ["one", " two", " three", " four", " five", " six", " seven", " eight"]
const FIRST_TOKEN = 100

export class FakeBackend {
  readonly asked: Asked[] = []
  /** Instead of an answer. Taken as often as it is there. */
  misbehave: ((asked: Asked, response: ServerResponse, word: number) => boolean) | null = null
  healthy = true
  /** What /metrics answer with. */
  metricsStatus = 200
  /** Answers under way, and those that were given up by their clients. */
  live = 0
  most = 0
  aborted = 0
  options: Required<FakeOptions>
  #held: Promise<void> | null = null
  #server!: Server
  #waiting: (() => void)[] = []

  private constructor(options: FakeOptions) {
    this.options = {
      ...{
        kind: "vllm",
        words: 4,
        wordMs: 1,
        firstMs: options.wordMs ?? 1,
        model: "m-1",
        listedFirst: [],
        port: 0,
        slots: 1000,
      },
      others: { running: 0, waiting: 0 },
      ...options,
    }
  }

  static async open(options: FakeOptions = {}): Promise<FakeBackend> {
    const backend = new FakeBackend(options)
    await backend.listen()
    return backend
  }

  async listen(): Promise<void> {
    this.#server = createServer((request, response) => void this.#answer(request, response))
    await new Promise<void>((resolve) => this.#server.listen(this.options.port, "127.0.0.1", resolve))
    this.options.port = (this.#server.address() as AddressInfo).port
  }

  get url(): string {
    return `http://127.0.0.1:${this.options.port}`
  }

  /** All answers stand still after their first word until what it returns is called. */
  hold(): () => void {
    let goOn = () => {}
    this.#held = new Promise((resolve) => {
      goOn = resolve
    })
    return goOn
  }

  /** As if its machine was switched off. */
  async close(): Promise<void> {
    this.#server.closeAllConnections()
    await new Promise((resolve) => this.#server.close(resolve))
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const path = request.url ?? ""
    if (request.method === "GET") return this.#get(path, response)
    let text = ""
    for await (const part of request) text += part
    const asked = { path, body: JSON.parse(text) as Record<string, unknown>, headers: request.headers }
    this.asked.push(asked)
    if (this.misbehave?.(asked, response, 0)) return
    if (asked.body.model !== this.options.model)
      return json(response, 404, this.#error("The model does not exist"))
    if (this.live >= this.options.slots) await new Promise<void>((resolve) => this.#waiting.push(resolve))
    await this.#stream(asked, response)
  }

  #get(path: string, response: ServerResponse): void {
    const { kind, model } = this.options
    if (!this.healthy) json(response, 503, { error: "not now" })
    else if (path === "/health") json(response, 200, kind === "llama-server" ? { status: "ok" } : {})
    else if (path === "/v1/models") {
      const data = [...this.options.listedFirst, model].map((each) => this.#model(each))
      json(response, 200, { object: "list", data })
    } else if (path === "/metrics" && kind !== "openai")
      response.writeHead(this.metricsStatus).end(this.#metrics())
    else if (path === "/props" && kind === "llama-server")
      json(response, 200, { total_slots: this.options.slots })
    else if (path === "/get_server_info" && kind === "sglang")
      json(response, 200, {
        max_running_requests: 64,
        chunked_prefill_size: 4096,
        max_total_num_tokens: 90_000,
      })
    else json(response, 404, { detail: "Not Found" })
  }

  #model(id: string): object {
    const base = { id, object: "model", created: 1 }
    return this.options.kind === "llama-server"
      ? { ...base, owned_by: "llamacpp", meta: { n_ctx: 4096, n_ctx_train: 8192 } }
      : { ...base, owned_by: this.options.kind, max_model_len: 4096 }
  }

  #metrics(): string {
    const { kind, others } = this.options
    const running = this.live + others.running
    const { waiting } = others
    if (kind === "llama-server")
      return `# TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing ${running}\nllamacpp:requests_deferred ${waiting}\n`
    if (kind === "sglang")
      return `sglang:num_running_reqs{model_name="m"} ${running}.0\nsglang:num_queue_reqs{model_name="m"} ${waiting}.0\nsglang:num_used_tokens{model_name="m"} 100.0\n`
    return [
      `vllm:num_requests_running{engine="0",model_name="m"} ${running}.0`,
      `vllm:num_requests_waiting{engine="0",model_name="m"} ${waiting}.0`,
      `vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.01`,
      `vllm:cache_config_info{block_size="16",engine="0",num_gpu_blocks="5000"} 1.0`,
    ].join("\n")
  }

  #error(message: string): object {
    return { error: { message, type: "NotFoundError", param: null, code: 404 } }
  }

  async #stream(asked: Asked, response: ServerResponse): Promise<void> {
    const { words, wordMs, firstMs } = this.options
    this.most = Math.max(this.most, ++this.live)
    let gone = false
    response.on("close", () => {
      gone = true
    })
    response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" })
    const chat = asked.path.endsWith("/chat/completions")
    const most = Number(asked.body.max_tokens ?? asked.body.max_completion_tokens ?? words)
    const from = chat ? goesOnFrom(asked.body) : 0
    const count = Math.min(most, Math.max(1, words - from))
    await pause(firstMs)
    if (chat) response.write(event(this.#chunk(chat, { role: "assistant", content: "" }, null, null, 0)))
    for (let i = 0; i < count && !gone; i++) {
      if (i > 0) await Promise.all([pause(wordMs), this.#held])
      if (this.misbehave?.(asked, response, i + 1)) break
      const word = WORDS[(from + i) % WORDS.length]!
      const last = this.options.kind === "vllm" && i === count - 1 ? "stop" : null
      response.write(event(this.#chunk(chat, { content: word }, last, FIRST_TOKEN + from + i, i + 1)))
    }
    if (gone) this.aborted++
    else if (!response.writableEnded) this.#finish(chat, count, most, response)
    this.live--
    this.#waiting.shift()?.()
  }

  #finish(chat: boolean, count: number, most: number, response: ServerResponse): void {
    const reason = count >= most ? "length" : "stop"
    if (this.options.kind !== "vllm") response.write(event(this.#chunk(chat, {}, reason, null, count)))
    const usage = {
      ...{ prompt_tokens: 12, completion_tokens: count, total_tokens: 12 + count },
      prompt_tokens_details: { cached_tokens: 4 },
    }
    response.write(event({ ...this.#base(chat), choices: [], usage }))
    response.end("data: [DONE]\n\n")
  }

  #base(chat: boolean): object {
    const object = chat ? "chat.completion.chunk" : "text_completion"
    return { id: "cmpl-1", object, created: 1_700_000_000, model: this.options.model }
  }

  #chunk(
    chat: boolean,
    delta: Record<string, unknown>,
    finish: string | null,
    token: number | null,
    count: number,
  ) {
    const { kind } = this.options
    const said = chat ? { delta } : { text: delta.content ?? "" }
    const ids = kind === "vllm" ? { token_ids: token === null ? null : [token] } : {}
    const choice = { index: 0, ...said, logprobs: null, finish_reason: finish, ...ids }
    const usage =
      kind === "sglang"
        ? { usage: { prompt_tokens: 12, completion_tokens: count, total_tokens: 12 + count } }
        : {}
    const timings =
      kind === "llama-server" && count > 0 ? { timings: { cache_n: 4, predicted_n: count } } : {}
    return { ...this.#base(chat), choices: [choice], ...usage, ...timings }
  }
}

/** How many words of an answer are in the request already. */
function goesOnFrom({ messages, continue_final_message }: Record<string, unknown>): number {
  const last = (messages as { role: string; content: string }[]).at(-1)!
  if (last.role !== "assistant" || continue_final_message !== true) return 0
  return last.content.trim().split(" ").length
}

function event(data: object): string {
  return `data: ${JSON.stringify(data)}\n\n`
}
function json(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(body))
}
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
