/** A real server under hundreds of thousands of wrong requests: no 5xx, no hang, and it still answers. Each case is a
 * function of seed and number: `--only <number>` sends one again. */
import { mkdirSync, writeFileSync } from "node:fs"
import { Agent, request } from "node:http"
import { connect } from "node:net"
import { loadavg } from "node:os"
import { dirname } from "node:path"
import { Command } from "commander"
import { port, wholeNumber } from "../../src/cli/numbers.ts"
import { Server } from "../real/servers.ts"
import { type Case, caseOf, KEYS } from "./cases.ts"

interface Options {
  model?: string
  cases: number
  from: number
  seed: number
  only?: number
  clients: number
  port: number
  out: string
}

/** The server waits 2 s for the rest of a request; the machine may be slow. */
const REQUEST_TIMEOUT_S = 2
const HANG_MS = 60_000

async function main(): Promise<void> {
  const options = new Command("bench/hostile/fuzz.ts")
    .option("--model <name>", "as `serve --model`; without: the fake engine")
    .option("--cases <n>", "requests", wholeNumber(1, 1e8), 100_000)
    .option("--from <n>", "number of the first", wholeNumber(0, 1e8), 0)
    .option("--seed <n>", "of all cases", wholeNumber(0, 1e9), 1)
    .option("--only <n>", "send this case alone and show its answer", wholeNumber(0, 1e8))
    .option("--clients <n>", "at once", wholeNumber(1, 1000), 32)
    .option("--port <n>", "of the server", port, 18421)
    .option("--out <file>", "figures", "bench/results/hostile/fuzz.json")
    .parse()
    .opts<Options>()
  mkdirSync(dirname(options.out), { recursive: true })
  const engine = options.model === undefined ? ["--engine", "fake"] : ["--model", options.model]
  const command = [
    ...[process.execPath, "src/cli/main.ts", "serve", ...engine, "--port", String(options.port)],
    ...[
      "--request-timeout",
      String(REQUEST_TIMEOUT_S),
      "--log-level",
      "error",
      "--max-queue",
      "100000",
      "--default-max-tokens",
      "8",
    ],
    ...["--tenant", `a=${KEYS.a}`, "--tenant", `b=${KEYS.b},3`, "--no-require-key", "--trust-fairness-id"],
  ]
  const server = await Server.start(
    { name: "fuzz", kind: "slos-serve" },
    command,
    options.port,
    options.out.replace(/\.json$/, ".log"),
  )
  try {
    await server.ready(300_000)
    if (options.only !== undefined) await showOne(server, options)
    else await fuzz(server, options)
  } finally {
    await server.stop()
  }
}

async function fuzz(server: Server, options: Options): Promise<void> {
  const beganMs = performance.now()
  const counts: Record<string, Record<string, number>> = {}
  const bad: string[] = []
  let next = options.from
  const client = async () => {
    while (next < options.from + options.cases) {
      const index = next++
      const one = caseOf(options.seed, index)
      const { answer } = await send(server, one)
      const kind = one.kind.split(" ")[0]!
      counts[kind] ??= {}
      counts[kind][answer] = (counts[kind][answer] ?? 0) + 1
      if (isBad(answer)) {
        bad.push(`${answer}: node bench/hostile/fuzz.ts --seed ${options.seed} --only ${index}`)
        console.error(bad.at(-1))
      }
      if (index % 10_000 === 9_999) console.error(`${index + 1}: ${bad.length} bad`)
    }
  }
  await Promise.all(Array.from({ length: options.clients }, client))
  const alive = server.alive && (await fetch(`${server.target.url}/health`)).ok
  const metrics = await (await fetch(`${server.target.url}/metrics`)).text()
  const value = (name: string) => Number(new RegExp(`^${name}(?:{[^}]*})? (\\S+)`, "m").exec(metrics)?.[1])
  const result = {
    options,
    seconds: Math.round((performance.now() - beganMs) / 1000),
    loadAverage: loadavg().map((load) => Number(load.toFixed(1))),
    alive,
    left: value("vllm:num_requests_running") + value("vllm:num_requests_waiting"),
    rssMiB: Math.round(value("process_resident_memory_bytes") / 2 ** 20),
    counts,
    bad: bad.slice(0, 50),
  }
  writeFileSync(options.out, `${JSON.stringify(result, null, 1)}\n`)
  console.log(JSON.stringify(result, null, 1))
  if (bad.length > 0 || !alive || result.left > 0) process.exitCode = 1
}

const isBad = (answer: string) => /^5|hang|refused/.test(answer)

/** The answer's status, or how there was none. */
async function send(server: Server, one: Case): Promise<{ answer: string; text: string }> {
  return one.raw === null ? sendBody(server, one) : sendBytes(server, one.raw)
}

const agent = new Agent({ keepAlive: true })

function sendBody(
  server: Server,
  { method, path, headers, body }: Case,
): Promise<{ answer: string; text: string }> {
  return new Promise((resolve) => {
    const given = { ...headers, "content-length": String(body!.length) }
    const sent = request(
      server.target.url + path,
      { method, headers: given, agent, timeout: HANG_MS },
      (response) => {
        let text = ""
        response.on("data", (data) => (text += data))
        response.on("end", () => resolve({ answer: String(response.statusCode), text }))
        response.on("error", () => resolve({ answer: "cut off", text }))
      },
    )
    sent.on("timeout", () => {
      resolve({ answer: "hang", text: "" })
      sent.destroy()
    })
    sent.on("error", (error: NodeJS.ErrnoException) => resolve({ answer: nameOf(error), text: "" }))
    sent.end(body)
  })
}

function sendBytes(server: Server, bytes: Buffer): Promise<{ answer: string; text: string }> {
  return new Promise((resolve) => {
    const socket = connect(Number(new URL(server.target.url).port), "127.0.0.1")
    let text = ""
    const end = (answer: string) => {
      socket.destroy()
      resolve({ answer, text })
    }
    socket.setTimeout(HANG_MS, () => end("hang"))
    socket.on("data", (data) => (text += data.toString("latin1")))
    socket.on("error", (error: NodeJS.ErrnoException) =>
      end(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? nameOf(error)),
    )
    socket.on("close", () => end(/^HTTP\/1\.1 (\d+)/.exec(text)?.[1] ?? "closed"))
    socket.write(bytes)
  })
}

/** A sender that is still sending when it is answered and cut off may see a reset. */
function nameOf(error: NodeJS.ErrnoException): string {
  return error.code === "ECONNREFUSED" ? "refused" : "reset"
}

async function showOne(server: Server, { seed, only }: Options): Promise<void> {
  const one = caseOf(seed, only!)
  const shown = one.raw ?? one.body ?? Buffer.alloc(0)
  console.log(`${one.kind}: ${one.method} ${one.path}, ${shown.length} bytes`)
  console.log(shown.subarray(0, 3000).toString("latin1"))
  const { answer, text } = await send(server, one)
  console.log(`\n${answer}\n${text.slice(0, 3000)}`)
}

await main()
