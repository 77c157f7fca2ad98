/** A made-up vLLM on a port of this machine, for a gateway to warm up on (warm-up.ts): it answers at once, in real chunks. */
import { createServer, type ServerResponse } from "node:http"
import type { AddressInfo } from "node:net"
import { text } from "node:stream/consumers"

const MODEL = "warm-up"
const PROMPT_TOKENS = 12

export interface MadeUpBackend {
  url: string
  close(): Promise<void>
}

export async function madeUpBackend(): Promise<MadeUpBackend> {
  const server = createServer(async (request, response) => {
    if (request.method === "GET") response.end(pageOf(request.url ?? ""))
    else answer(JSON.parse(await text(request)) as { max_tokens?: number }, response)
  })
  // Of this process alone, also where several share an address.
  const address = { port: 0, host: "127.0.0.1", exclusive: true }
  await new Promise<void>((resolve) => server.listen(address, resolve))
  const { port } = server.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}`,
    async close() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}

function pageOf(path: string): string {
  if (path === "/metrics") return "vllm:num_requests_running 0\nvllm:num_requests_waiting 0\n"
  return JSON.stringify({ data: [{ id: MODEL, owned_by: "vllm", max_model_len: 8192 }] })
}

/** A chunk a token, each in a round of the event loop of its own. */
function answer({ max_tokens: most = 1 }: { max_tokens?: number }, response: ServerResponse): void {
  response.writeHead(200, { "content-type": "text/event-stream" })
  const tell = (token: number) => {
    const last = token === most
    const choice = {
      index: 0,
      delta: { content: " word" },
      text: " word",
      logprobs: null,
      token_ids: [token],
    }
    const usage = {
      prompt_tokens: PROMPT_TOKENS,
      completion_tokens: token,
      total_tokens: PROMPT_TOKENS + token,
    }
    const chunk = { model: MODEL, choices: [{ ...choice, finish_reason: last ? "length" : null }], usage }
    response.write(`data: ${JSON.stringify(chunk)}\n\n`)
    if (last)
      response.end(`data: ${JSON.stringify({ model: MODEL, choices: [], usage })}\n\ndata: [DONE]\n\n`)
    else setImmediate(() => tell(token + 1))
  }
  tell(1)
}
