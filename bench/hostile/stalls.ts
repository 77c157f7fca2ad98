/** A real server, running streams and a poller of /health beside every hostile body of 8 MB: who stalls, for how long,
 * and what memory it takes. Prints a table; the figures go to a file. */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { loadavg } from "node:os"
import { dirname } from "node:path"
import { setTimeout as sleep } from "node:timers/promises"
import { Worker } from "node:worker_threads"
import CliTable from "cli-table3"
import { Command } from "commander"
import { byteSize, port, wholeNumber } from "../../src/cli/numbers.ts"
import { Server } from "../real/servers.ts"
import type { ProbeOptions, Stalls } from "./probe.ts"
import { SHAPES } from "./shapes.ts"

interface Row extends Stalls {
  shape: string
  status: string
  answeredMs: number
  /** Most CPU time of one round of the server's event loop, ms: what it would stall on an idle machine. */
  cpuMs: number
  rssMiB: number
}

interface Options {
  model?: string
  bytes: number
  atOnce: number
  only: string
  context: number
  port: number
  out: string
}

const PRELOAD = new URL("./preload.ts", import.meta.url).href
const STREAMS = 8

async function main(): Promise<void> {
  const options = new Command("bench/hostile/stalls.ts")
    .option("--model <name>", "as `serve --model`; without: the fake engine")
    .option("--bytes <size>", "of each body", byteSize, 8 * 2 ** 20 - 64 * 1024)
    .option("--at-once <n>", "of each shape", wholeNumber(1, 64), 4)
    .option("--only <text>", "shapes with this in their names", "")
    .option("--context <tokens>", "of the server", wholeNumber(64, 1_000_000), 4096)
    .option("--port <n>", "of the server", port, 18420)
    .option("--out <file>", "figures", "bench/results/hostile/stalls.json")
    .parse()
    .opts<Options>()
  const rounds = options.out.replace(/\.json$/, ".rounds")
  const engine =
    options.model === undefined ? ["--engine", "fake"] : ["--model", options.model, "--no-profile"]
  const command = [
    ...[process.execPath, "--expose-gc", "--import", PRELOAD, "src/cli/main.ts", "serve", ...engine],
    ...["--port", String(options.port), "--context", String(options.context), "--log-level", "warn"],
  ]
  mkdirSync(dirname(options.out), { recursive: true })
  writeFileSync(rounds, "")
  process.env.HOSTILE_ROUNDS = rounds
  const log = options.out.replace(/\.json$/, ".log")
  const server = await Server.start({ name: "hostile", kind: "slos-serve" }, command, options.port, log)
  try {
    await server.ready(300_000)
    const result = await measure(server, options, rounds)
    writeFileSync(options.out, `${JSON.stringify(result, null, 1)}\n`)
    show(result)
  } finally {
    await server.stop()
  }
}

async function measure(server: Server, options: Options, rounds: string) {
  const { url } = server.target
  const workerData: ProbeOptions = { url, streams: STREAMS, healthEveryMs: 5 }
  const probe = new Worker(new URL("./probe.ts", import.meta.url), { workerData })
  const stalls = () =>
    new Promise<Stalls>((resolve) => {
      probe.once("message", resolve)
      probe.postMessage("stalls")
    })
  await sleep(3000)
  await stalls()
  const idleMs = Date.now()
  await sleep(5000)
  const idle = { ...rounded(await stalls()), cpuMs: longestRound(rounds, idleMs) }
  const before = await memory(server)
  const rows: Row[] = []
  for (const shape of SHAPES.filter(({ name }) => name.includes(options.only))) {
    const body = Buffer.from(shape.body(options.bytes))
    await sleep(300)
    await stalls()
    const beganMs = performance.now()
    const fromMs = Date.now()
    const answers = await Promise.all(
      Array.from({ length: options.atOnce }, () => send(url + shape.url, body)),
    )
    const answeredMs = Math.round(performance.now() - beganMs)
    await sleep(200)
    const status = [...new Set(answers)].sort().join()
    const cpuMs = longestRound(rounds, fromMs)
    rows.push({
      shape: shape.name,
      status,
      answeredMs,
      ...rounded(await stalls()),
      cpuMs,
      rssMiB: await rss(url),
    })
  }
  await sleep(2000)
  const after = await memory(server)
  await probe.terminate()
  const load = loadavg().map((value) => Number(value.toFixed(1)))
  return { options, loadAverage: load, idle, before, after, worst: worst(rows), rows }
}

async function send(url: string, body: Buffer): Promise<string> {
  const headers = { "content-type": "application/json" }
  try {
    const answer = await fetch(url, { method: "POST", headers, body, signal: AbortSignal.timeout(60_000) })
    const text = await answer.text()
    const code = /"code":"(\w+)"/.exec(text)?.[1]
    return code === undefined ? String(answer.status) : `${answer.status} ${code}`
  } catch (error) {
    return (error as Error).name
  }
}

/** After a collection: what lives. */
async function memory(server: Server) {
  process.kill(server.pid, "SIGUSR2")
  await sleep(1500)
  const text = await (await fetch(`${server.target.url}/metrics`)).text()
  const mib = (name: string) =>
    Math.round(Number(new RegExp(`^${name} (\\S+)`, "m").exec(text)?.[1]) / 2 ** 20)
  return {
    rssMiB: mib("process_resident_memory_bytes"),
    heapMiB: mib("nodejs_heap_size_used_bytes"),
    externalMiB: mib("nodejs_external_memory_bytes"),
  }
}

/** Of those noted since then; 0: none was long enough to be noted. */
function longestRound(rounds: string, sinceMs: number): number {
  const lines = readFileSync(rounds, "utf8").trim().split("\n")
  const noted = lines.map((line) => line.split(" ").map(Number)).filter(([atMs]) => atMs! >= sinceMs)
  return Math.max(0, ...noted.map(([, cpuMs]) => cpuMs!))
}

async function rss(url: string): Promise<number> {
  const text = await (await fetch(`${url}/metrics`)).text()
  return Math.round(Number(/^process_resident_memory_bytes (\S+)/m.exec(text)?.[1]) / 2 ** 20)
}

const rounded = (stalls: Stalls): Stalls => ({
  ...stalls,
  healthMs: Math.round(stalls.healthMs),
  streamMs: Math.round(stalls.streamMs),
  shortMs: Math.round(stalls.shortMs),
})

function worst(rows: readonly Row[]) {
  const most = (key: "healthMs" | "streamMs" | "shortMs" | "cpuMs" | "rssMiB") =>
    Math.max(...rows.map((row) => row[key]))
  return {
    healthMs: most("healthMs"),
    streamMs: most("streamMs"),
    shortMs: most("shortMs"),
    cpuMs: most("cpuMs"),
    rssMiB: most("rssMiB"),
  }
}

function show({ idle, before, after, worst, rows, loadAverage }: Awaited<ReturnType<typeof measure>>): void {
  const head = [
    "shape",
    "answer",
    "answered ms",
    "/health ms",
    "streams ms",
    "round CPU ms",
    "broken",
    "RSS MiB",
  ]
  const table = new CliTable({ head, style: { head: [], border: [] } })
  for (const row of rows)
    table.push([
      row.shape,
      row.status,
      row.answeredMs,
      row.healthMs,
      row.streamMs,
      row.cpuMs,
      row.broken,
      row.rssMiB,
    ])
  console.log(table.toString())
  console.log(
    `nothing sent: /health ${idle.healthMs} ms, streams ${idle.streamMs} ms, short chats ${idle.shortMs} ms, round ${idle.cpuMs} ms of CPU; load average ${loadAverage.join(" ")}`,
  )
  console.log(
    `worst: /health ${worst.healthMs} ms, streams ${worst.streamMs} ms, short chats ${worst.shortMs} ms, round ${worst.cpuMs} ms of CPU, RSS ${worst.rssMiB} MiB`,
  )
  console.log(`after a collection: before ${JSON.stringify(before)}, after ${JSON.stringify(after)}`)
}

await main()
