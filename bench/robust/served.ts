/** The server that a robustness bench attacks: a process of its own, what it counts, and raw requests to it. */
import { connect, type Socket } from "node:net"
import { setTimeout as sleep } from "node:timers/promises"
import { Server } from "../real/servers.ts"

export interface Served {
  server: Server
  port: number
}

/** A real server process, ready. `model`: fake, or a name that `serve --model` takes. `more`: further options. */
export async function startServer(
  model: string,
  port: number,
  more: readonly string[] = [],
  node: readonly string[] = [],
): Promise<Served> {
  const command = [
    ...[process.execPath, ...node, "src/cli/main.ts", "serve", "--port", String(port), "--log-level", "warn"],
    ...(model === "fake" ? ["--engine", "fake"] : ["--model", model]),
    ...more,
  ]
  const server = await Server.start(
    { name: model, kind: "slos-serve" },
    command,
    port,
    `bench/results/robust-${port}.log`,
  )
  await server.ready(600_000)
  return { server, port }
}

/** Everything at /metrics, by name with labels. */
export async function counters({ server }: Served): Promise<Map<string, number>> {
  const text = await (await fetch(`${server.target.url}/metrics`)).text()
  const lines = text.split("\n").filter((line) => line !== "" && !line.startsWith("#"))
  return new Map(
    lines.map((line) => {
      const at = line.lastIndexOf(" ")
      return [line.slice(0, at), Number(line.slice(at + 1))]
    }),
  )
}

/** Sum over all labels that have this text. */
export function total(of: ReadonlyMap<string, number>, name: string, label = ""): number {
  let sum = 0
  for (const [key, value] of of) if (key.split("{")[0] === name && key.includes(label)) sum += value
  return sum
}

/** Requests that are waiting or running. */
export async function live(served: Served): Promise<number> {
  const now = await counters(served)
  return total(now, "vllm:num_requests_waiting") + total(now, "vllm:num_requests_running")
}

/** Waits until nothing is live; answers how long that took, or null when it took longer than `timeoutMs`. */
export async function idle(served: Served, timeoutMs: number): Promise<number | null> {
  const from = performance.now()
  while (performance.now() - from < timeoutMs) {
    if ((await live(served)) === 0) return Math.round(performance.now() - from)
    await sleep(50)
  }
  return null
}

/** The bytes of a completion request. */
export function rawCompletion(fields: object): string {
  const body = JSON.stringify({ prompt: "Tell me all.", ...fields })
  const head = `POST /v1/completions HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n`
  return `${head}content-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`
}

/** A connection on which `bytes` have been given to the kernel. */
export function sent({ port }: Served, bytes: string): Promise<Socket> {
  return new Promise((resolve) => {
    const socket = connect({ port, host: "127.0.0.1", noDelay: true })
    socket.on("error", () => {})
    socket.once("connect", () => socket.write(bytes, () => resolve(socket)))
  })
}
