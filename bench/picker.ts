/** What the endpoint picker adds to a request behind a real Envoy: time at one request, requests per second of one core, and
 * time of a core per chunk, against the same Envoy with an external processor that does nothing and with none. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { Agent, request } from "node:http"
import { cpus, loadavg } from "node:os"
import { dirname, join } from "node:path"
import Table from "cli-table3"
import { Command } from "commander"
import { median, quantile } from "simple-statistics"
import { wholeNumber } from "../src/cli/numbers.ts"
import { UserError } from "../src/errors.ts"
import { freePorts } from "../src/free-port.ts"
import { Envoy, type EnvoyPorts, exampleConfig, findEnvoy } from "../test/envoy.ts"

interface Options {
  requests: number
  rounds: number
  streams: number
  events: number
  gap: number
  body: number
  out: string
}

interface System {
  name: string
  /** null: no external processor. */
  processor: "picker" | "noop" | null
  args?: readonly string[]
  modes?: Readonly<Record<string, string>>
}

const NONE = { response_body_mode: "NONE" }
const CHUNKS = { response_body_mode: "STREAMED" }
const DUPLEX = { request_body_mode: "FULL_DUPLEX_STREAMED", response_body_mode: "FULL_DUPLEX_STREAMED" }
const SYSTEMS: readonly System[] = [
  { name: "Envoy alone", processor: null },
  { name: "no-op", processor: "noop", modes: NONE },
  { name: "no-op, chunks", processor: "noop", modes: CHUNKS },
  { name: "no-op, full duplex", processor: "noop", modes: DUPLEX },
  { name: "picker by load", processor: "picker", args: ["--by", "load"], modes: NONE },
  { name: "picker by twins, chunks", processor: "picker", modes: CHUNKS },
  {
    name: "picker by twins, chunks, priority",
    processor: "picker",
    args: ["--priority", "low-first"],
    modes: CHUNKS,
  },
  { name: "picker by twins, full duplex", processor: "picker", modes: DUPLEX },
]

const ROOT = join(import.meta.dirname, "..")
/** Clock ticks of /proc/<pid>/stat. */
const TICK_MS = 10
const WARM_UP = 50

async function main(): Promise<void> {
  const options = new Command("bench/picker.ts")
    .option("--requests <n>", "of each round, one after the other", wholeNumber(1, 1e6), 200)
    .option("--rounds <n>", "of each system, by turns", wholeNumber(1, 1000), 5)
    .option("--streams <n>", "at once, for requests per second", wholeNumber(1, 10_000), 32)
    .option("--events <n>", "of a long answer", wholeNumber(1, 1e5), 64)
    .option("--gap <ms>", "between them", wholeNumber(0, 10_000), 5)
    .option("--body <bytes>", "of a request", wholeNumber(64, 1e7), 2000)
    .option("--out <file>", "where the figures go", join(ROOT, "bench/results/fleet/picker.json"))
    .parse()
    .opts<Options>()
  const binary = findEnvoy()
  if (binary === null) throw new UserError("there is no Envoy; bench/get-envoy.sh brings one")
  const measured = new Map<string, Round[]>(SYSTEMS.map(({ name }) => [name, []]))
  for (let round = 0; round < options.rounds; round++)
    for (const system of SYSTEMS) {
      measured.get(system.name)!.push(await measure(binary, system, options))
      process.stderr.write(`round ${round + 1} of ${options.rounds}: ${system.name}\n`)
    }
  report(measured, options)
}

interface Round {
  /** Of each request alone, ms. */
  aloneMs: number[]
  /** Requests per second with `streams` at once, and time of the processor's core for each, ms. */
  perSec: number
  cpuMsPerRequest: number
  /** Time of the processor's core for each event of long answers, ms; NaN where it sees none. */
  cpuMsPerEvent: number
}

async function measure(binary: string, system: System, options: Options): Promise<Round> {
  const short = await stand(binary, system, [1, 0])
  const post = poster(short.ports.gateway, options.body, options.streams)
  await many(WARM_UP, options.streams, post)
  const aloneMs: number[] = []
  for (let i = 0; i < options.requests; i++) aloneMs.push(await timed(post))
  const before = short.cpuMs()
  const count = options.requests * 5
  const tookMs = await timed(() => many(count, options.streams, post))
  const cpuMsPerRequest = (short.cpuMs() - before) / count
  await short.close()
  const cpuMsPerEvent =
    system.processor === null || system.modes === NONE
      ? Number.NaN
      : await perEvent(binary, system, options, cpuMsPerRequest)
  return { aloneMs, perSec: count / (tookMs / 1000), cpuMsPerRequest, cpuMsPerEvent }
}

async function perEvent(
  binary: string,
  system: System,
  options: Options,
  perRequest: number,
): Promise<number> {
  const { events, gap, streams, body } = options
  const long = await stand(binary, system, [events, gap])
  const post = poster(long.ports.gateway, body, streams)
  await many(streams, streams, post)
  const before = long.cpuMs()
  const count = streams * 4
  await many(count, streams, post)
  const spent = long.cpuMs() - before
  await long.close()
  return (spent / count - perRequest) / events
}

/** Engines, the processor and Envoy, ready. */
async function stand(binary: string, system: System, answer: readonly [events: number, gapMs: number]) {
  const children: ChildProcess[] = []
  const start = async (args: readonly string[], ready: RegExp) => {
    const child = spawn(process.execPath, args, { stdio: ["ignore", "pipe", "inherit"], cwd: ROOT })
    children.push(child)
    return untilSays(child, ready)
  }
  const engines = (await Promise.all(
    [0, 1].map(async () =>
      Number(await start(["bench/picker/engine.ts", ...answer.map(String)], /^(\d+)$/m)),
    ),
  )) as [number, number]
  const [gateway, picker, admin] = (await freePorts(3)) as [number, number, number]
  const ports: EnvoyPorts = { gateway, picker, admin, engines }
  let pid = 0
  if (system.processor === "noop") await start(["bench/picker/noop.ts", String(picker)], /^(\d+)$/m)
  else if (system.processor === "picker") {
    const endpoints = engines.flatMap((port) => ["--endpoint", `127.0.0.1:${port}`])
    const own = [
      "--port",
      String(picker),
      "--no-metrics",
      "--probe-every",
      "0",
      ...(system.args ?? []),
      ...endpoints,
    ]
    await start(["src/cli/main.ts", "endpoint-picker", ...own], /(ready)/)
  }
  if (system.processor !== null) pid = children.at(-1)!.pid!
  const config = exampleConfig(ports, system.modes)
  const without = config.replace(
    / *- name: envoy\.filters\.http\.ext_proc[\s\S]*?(?= *- name: envoy\.filters\.http\.router)/,
    "",
  )
  const envoy = await Envoy.start(binary, system.processor === null ? without : config, admin)
  return {
    ports,
    cpuMs: () => (pid === 0 ? 0 : cpuMs(pid)),
    close: async () => {
      await envoy.close()
      for (const child of children) child.kill("SIGKILL")
    },
  }
}

function untilSays(child: ChildProcess, ready: RegExp): Promise<string> {
  return new Promise((resolve, reject) => {
    let text = ""
    child.stdout!.on("data", (piece: Buffer) => {
      text += piece.toString()
      const found = ready.exec(text)
      if (found !== null) resolve(found[1]!)
    })
    child.once("exit", (code) => reject(new Error(`a process of the bench ended with exit code ${code}`)))
  })
}

/** User and system time of a process so far. */
function cpuMs(pid: number): number {
  const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
    .replace(/^.*\) /s, "")
    .split(" ")
  return (Number(fields[11]) + Number(fields[12])) * TICK_MS
}

function poster(port: number, bytes: number, streams: number): () => Promise<void> {
  const agent = new Agent({ keepAlive: true, maxSockets: streams })
  const body = JSON.stringify({ model: "m", stream: true, max_tokens: 64, prompt: "word ".repeat(bytes / 5) })
  const headers = {
    ...{ "content-type": "application/json", "content-length": String(Buffer.byteLength(body)) },
    ...{ "x-llm-d-slo-ttft-ms": "60000", "x-llm-d-slo-tpot-ms": "1000" },
  }
  return () =>
    new Promise((resolve, reject) => {
      const options = { host: "127.0.0.1", port, agent, method: "POST", path: "/v1/completions", headers }
      const sent = request(options, (response) => {
        let text = ""
        response.on("data", (piece: Buffer) => (text += piece.toString()))
        response.on("end", () => {
          if (response.statusCode === 200 && text.endsWith("[DONE]\n\n")) resolve()
          else reject(new Error(`HTTP ${response.statusCode}: ${text.slice(0, 200)}`))
        })
        response.on("error", reject)
      })
      sent.on("error", reject)
      sent.end(body)
    })
}

async function many(count: number, atOnce: number, post: () => Promise<void>): Promise<void> {
  let left = count
  const worker = async () => {
    while (left-- > 0) await post()
  }
  await Promise.all(Array.from({ length: Math.min(count, atOnce) }, worker))
}

async function timed(work: () => Promise<void>): Promise<number> {
  const from = performance.now()
  await work()
  return performance.now() - from
}

function report(measured: ReadonlyMap<string, Round[]>, options: Options): void {
  const ms = (value: number) => Number(value.toFixed(3))
  const of = (rounds: readonly Round[], pick: (round: Round) => number) => median(rounds.map(pick))
  const base = measured.get("Envoy alone")!
  const systems = [...measured].map(([name, rounds]) => {
    const all = rounds.flatMap(({ aloneMs }) => aloneMs)
    // By rounds: what disturbs one disturbs its neighbours as well.
    const added = (q: number) =>
      median(rounds.map(({ aloneMs }, i) => quantile(aloneMs, q) - quantile(base[i]!.aloneMs, q)))
    const perRequest = of(rounds, ({ cpuMsPerRequest }) => cpuMsPerRequest)
    const perEvent = of(rounds, ({ cpuMsPerEvent }) => cpuMsPerEvent)
    return {
      name,
      aloneMs: { p50: ms(quantile(all, 0.5)), p99: ms(quantile(all, 0.99)) },
      addedMs: { p50: ms(added(0.5)), p99: ms(added(0.99)) },
      requestsPerSec: Math.round(of(rounds, ({ perSec }) => perSec)),
      processorMsPerRequest: ms(perRequest),
      requestsPerSecOfOneCore: perRequest === 0 ? null : Math.round(1000 / perRequest),
      processorMsPerEvent: Number.isNaN(perEvent) ? null : ms(perEvent),
    }
  })
  const machine = {
    cpus: cpus().length,
    model: cpus()[0]!.model,
    node: process.version,
    loadAverage: Math.round(loadavg()[0]!),
  }
  const { out, ...settings } = options
  mkdirSync(dirname(out), { recursive: true })
  writeFileSync(out, `${JSON.stringify({ settings, machine, systems }, null, 2)}\n`)
  const table = new Table({
    head: ["", "p50 ms", "p99", "added p50", "p99", "req/s", "req/s of a core", "ms an event"],
  })
  for (const s of systems)
    table.push([
      ...[s.name, s.aloneMs.p50, s.aloneMs.p99, s.addedMs.p50, s.addedMs.p99, s.requestsPerSec],
      ...[s.requestsPerSecOfOneCore ?? "-", s.processorMsPerEvent ?? "-"],
    ])
  console.log(table.toString())
}

await main()
