/** The engine of the overhead bench: an OpenAI server that writes each token's time into the token, so that whatever stands
 * before it can be judged. `engine.ts <servers> <first port>`; one process, so that all are equally fast. Each steps as engines
 * do: a token to every request that was there when the step began. A request asks for its pace in its prompt: `gap=20` ms a step. */
import { createServer, type IncomingMessage, type ServerResponse } from "node:http"

const MODEL = "bench"
const [servers, firstPort] = process.argv.slice(2).map(Number) as [number, number]

interface Asked {
  max_tokens?: number
  messages?: { content: string }[]
  stream_options?: { include_usage?: boolean; continuous_usage_stats?: boolean }
  return_token_ids?: boolean
}

function serve(port: number): void {
  const steps = new Steps()
  const server = createServer((request, response) => {
    if (request.method === "GET") return answerGet(request.url ?? "", steps.running, response)
    readBody(request, (asked) => stream(asked, response, steps))
  })
  // A proxy keeps its connections; one that is closed under it costs a request, which is not what is measured.
  server.keepAliveTimeout = 600_000
  server.listen(port, "127.0.0.1", 4096)
}

/** One engine's steps, as long as it has something to do. */
class Steps {
  #streams: (() => boolean)[] = []
  #coming: (() => boolean)[] = []
  #gapMs = 0
  #stepping = false

  get running(): number {
    return this.#streams.length + this.#coming.length
  }

  /** `emit`: one token; false after the last. */
  join(gapMs: number, emit: () => boolean): void {
    this.#gapMs = gapMs
    this.#coming.push(emit)
    if (!this.#stepping) this.#begin()
  }

  #begin(): void {
    this.#stepping = this.running > 0
    if (!this.#stepping) return
    this.#streams.push(...this.#coming.splice(0))
    setTimeout(() => {
      this.#streams = this.#streams.filter((emit) => emit())
      this.#begin()
    }, this.#gapMs)
  }
}

/** As vLLM names things: gateways ask for these. */
function answerGet(url: string, running: number, response: ServerResponse): void {
  if (url.startsWith("/v1/models"))
    response.setHeader("content-type", "application/json").end(
      JSON.stringify({
        object: "list",
        data: [{ id: MODEL, object: "model", owned_by: "vllm", max_model_len: 8192 }],
      }),
    )
  else if (url === "/metrics")
    response.end(
      `vllm:num_requests_running{model_name="${MODEL}"} ${running}\nvllm:num_requests_waiting{model_name="${MODEL}"} 0\n`,
    )
  else if (url === "/health" || url === "/ping") response.end()
  else response.writeHead(404).end()
}

function readBody(request: IncomingMessage, then: (asked: Asked) => void): void {
  const parts: Buffer[] = []
  request.on("data", (part: Buffer) => parts.push(part))
  request.on("end", () => then(JSON.parse(Buffer.concat(parts).toString()) as Asked))
}

/** Nothing but what was asked for is in the chunks, as with vLLM. */
function stream(asked: Asked, response: ServerResponse, steps: Steps): void {
  const tokens = asked.max_tokens ?? 16
  const gapMs = Number(/gap=(\d+)/.exec(asked.messages?.at(-1)?.content ?? "")?.[1] ?? 10)
  const counted = asked.stream_options?.continuous_usage_stats === true
  const usage = (token: number) => ({
    ...{ prompt_tokens: 12, completion_tokens: token, total_tokens: 12 + token },
  })
  const send = (choices: object[], token: number, withUsage: boolean) =>
    response.write(
      `data: ${JSON.stringify({
        ...{ id: "chatcmpl-1", object: "chat.completion.chunk", created: 1, model: MODEL, choices },
        ...(withUsage && { usage: usage(token) }),
      })}\n\n`,
    )
  let token = 0
  steps.join(gapMs, () => {
    if (response.destroyed) return false
    if (token === 0) {
      response.writeHead(200, { "content-type": "text/event-stream" })
      send([{ index: 0, delta: { role: "assistant", content: "" }, finish_reason: null }], 0, counted)
    }
    token++
    const last = token === tokens
    const choice = {
      ...{
        index: 0,
        delta: { content: ` ${nowUs()}` },
        logprobs: null,
        finish_reason: last ? "length" : null,
      },
      ...(asked.return_token_ids === true && { token_ids: [token] }),
    }
    send([choice], token, counted)
    if (!last) return true
    if (asked.stream_options?.include_usage === true) send([], token, true)
    response.end("data: [DONE]\n\n")
    return false
  })
}

/** The same clock in every process of a machine. */
function nowUs(): number {
  return Math.round(Number(process.hrtime.bigint()) / 1000)
}

for (let i = 0; i < servers; i++) serve(firstPort + i)
