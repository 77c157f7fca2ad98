/** What a prompt alone on the machine costs: CPU time, and time to its first token, of the bare engine (in one step, in pieces, in the
 * planner's steps), of our server in one process and in workers, and of llama-server, at as many threads each. Systems take turns.
 * CPU times hardly depend on what else the machine does. `LLAMA_SERVER=… node bench/prompt-cost.ts` */
import { type ChildProcess, fork } from "node:child_process"
import { once } from "node:events"
import { existsSync, mkdtempSync, rmSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import Table from "cli-table3"
import { Command } from "commander"
import { median, min } from "simple-statistics"
import { port, wholeNumber } from "../src/cli/numbers.ts"
import { type Connections, complete, connect } from "../src/load/client.ts"
import { resolveModel } from "../src/models/resolve.ts"
import { Random } from "../src/random.ts"
import { cpuUsByThread } from "./fleet/rivals/cpu.ts"
import type { Ask, Took } from "./prompt-cost/engine.ts"
import { Server } from "./real/servers.ts"
import { SYSTEMS as REAL } from "./real/systems.ts"
import { inTurn } from "./turns.ts"

interface Options {
  model: string
  tokens: string
  rounds: number
  threads: number
  systems?: string
  llamaServer?: string
  serve: string
  otherServe?: string
  otherFlags: string
  otherLibrary?: string
  port: number
}

/** CPU and wall time of one prompt. */
interface Sample {
  cpuMs: number
  wallMs: number
  /** CPU time by kind of thread; none of bare engines. */
  threads: Map<string, number>
  steps: string
}

interface System {
  name: string
  take(tokens: number[]): Promise<Sample>
  stop(): Promise<void>
}

const SLOTS = 16
const CONTEXT_TOKENS = 1024
const MOST_BATCH_TOKENS = 512
const PIECES = [512, 256, 128, 64]
/** What a process does after an answer is part of it. */
const SETTLE_MS = 30
const IDLE_MS = 200
/** The first rounds are told apart: V8 compiles what has run some tens of times. */
const FIRST = 3

async function main(): Promise<void> {
  const options = new Command("bench/prompt-cost.ts")
    .option("--model <name>", "as for serve", "tiny-bench")
    .option("--tokens <list>", "lengths of prompts", "16,129,220,510")
    .option("--rounds <n>", "of each length", wholeNumber(1, 1000), 12)
    .option("--threads <n>", "of each engine", wholeNumber(1, 512), 1)
    .option("--systems <names>", "only those whose names begin so, separated by commas")
    .option("--llama-server <path>", "or env LLAMA_SERVER; left out: without it")
    .option("--serve <main.ts>", "our server's", "src/cli/main.ts")
    .option("--other-serve <main.ts>", "of another checkout, beside it")
    .option("--other-flags <flags>", "of Node and V8, for that one", "")
    .option("--other-library <folder>", "llama.cpp of another build, beside the one that is installed")
    .option("--port <n>", "first port", port, 18900)
    .parse()
    .opts<Options>()
  const folder = mkdtempSync(join(tmpdir(), "slos-serve-prompt-cost-"))
  const systems: System[] = []
  try {
    for (const [i, open] of (await openers(options)).entries())
      systems.push(await open(options.port + i, join(folder, `${i}.log`)))
    await measure(systems, options)
  } finally {
    await Promise.all(systems.map((system) => system.stop()))
    rmSync(folder, { recursive: true, force: true })
  }
}

type Opener = (port: number, log: string) => Promise<System>

async function openers(options: Options): Promise<Opener[]> {
  const { path } = await resolveModel(options.model)
  const wanted = (name: string) =>
    options.systems === undefined || options.systems.split(",").some((start) => name.startsWith(start))
  const named: [string, Opener][] = []
  for (const [suffix, library] of [["", "auto"] as const, ["'", options.otherLibrary] as const]) {
    if (library === undefined) continue
    for (const most of PIECES)
      named.push([`engine${suffix}, ${most} at most`, () => engineOf(path, library, most, options)])
    named.push([`engine${suffix}, planned`, () => engineOf(path, library, 0, options)])
  }
  const other = options.otherFlags.split(" ").filter((flag) => flag !== "")
  for (const [suffix, main, flags] of [
    ["", options.serve, []] as const,
    ["'", options.otherServe, other] as const,
  ]) {
    if (main === undefined) continue
    for (const replicas of [1, 2]) {
      const name = `serve${suffix}${replicas === 1 ? "" : ` --replicas ${replicas}`}`
      const command = (at: number) => ours([...flags, main], path, replicas, options.threads, at)
      named.push([name, (at, log) => serverOf({ name, kind: "slos-serve" }, command(at), at, log)])
    }
  }
  const llamaServer = options.llamaServer ?? process.env.LLAMA_SERVER ?? ""
  if (existsSync(llamaServer)) {
    const system = REAL.find(({ name }) => name === "llama-server-tuned")!
    const setup = { threads: options.threads, slots: SLOTS, contextTokens: CONTEXT_TOKENS, config: undefined }
    const command = (at: number) => system.command({ ...setup, model: path, llamaServer }, at)
    named.push(["llama-server", (at, log) => serverOf(system, command(at), at, log)])
  }
  return named
    .filter(([name]) => wanted(name))
    .map(([name, open]) => async (at, log) => {
      const system = await open(at, log)
      console.error(`${name}: ready`)
      return Object.assign(system, { name })
    })
}

function ours(
  program: readonly string[],
  model: string,
  replicas: number,
  threads: number,
  at: number,
): string[] {
  return [
    ...[process.execPath, ...program, "serve"],
    ...["--model", model, "--port", String(at), "--log-level", "warn"],
    ...["--threads", String(replicas * threads), "--context", String(CONTEXT_TOKENS)],
    ...["--max-sequences", String(replicas * SLOTS), "--replicas", String(replicas)],
  ]
}

async function engineOf(model: string, library: string, most: number, { threads }: Options): Promise<System> {
  const child = fork(join(import.meta.dirname, "prompt-cost/engine.ts"))
  await said(child, {
    ...{ type: "open", profile: most === 0 },
    options: {
      ...{ modelPath: model, threads, library, maxSequences: SLOTS, contextTokens: CONTEXT_TOKENS },
      maxBatchTokens: MOST_BATCH_TOKENS,
    },
  })
  return {
    name: "",
    take: async (tokens) => {
      const { cpuUs, wallUs, steps } = (await said(child, { type: "prompt", tokens, most })) as Took
      return { cpuMs: cpuUs / 1000, wallMs: wallUs / 1000, threads: new Map(), steps: steps.join("+") }
    },
    stop: async () => void child.disconnect(),
  }
}

async function said(child: ChildProcess, ask: Ask): Promise<unknown> {
  child.send(ask)
  const [answer] = await Promise.race([
    once(child, "message"),
    once(child, "exit").then(([code]) =>
      Promise.reject(new Error(`the engine's process ended with ${code}`)),
    ),
  ])
  return answer
}

async function serverOf(
  system: Pick<Server["system"], "name" | "kind">,
  command: string[],
  at: number,
  log: string,
): Promise<System> {
  const server = await Server.start(system, command, at, log)
  await server.ready(300_000)
  const connections = connect(server.target.url)
  return {
    name: "",
    take: (tokens) => asked(server, connections, tokens),
    stop: () => {
      connections.agent.destroy()
      return server.stop()
    },
  }
}

/** Over HTTP, less what its processes take when there is nothing to do. */
async function asked(server: Server, connections: Connections, prompt: number[]): Promise<Sample> {
  const idleFrom = cpuUsByThread(server.pid)
  await sleep(IDLE_MS)
  const before = cpuUsByThread(server.pid)
  const from = performance.now()
  let firstMs = 0
  const request = {
    ...{ prompt, outputTokens: 1, thinkingTokens: 0, class: null, session: null },
    slo: { ttftMs: 1000, tpotMs: 300, thinkingTpotMs: 300, maxGapMs: Number.POSITIVE_INFINITY },
  }
  const { end, message } = await complete(connections, server.target, request as never, {
    timeoutMs: 60_000,
    onTokens: () => {
      firstMs ||= performance.now() - from
    },
  })
  if (end !== "ok") throw new Error(`${server.system.name}: ${end} ${message}`)
  await sleep(SETTLE_MS)
  const after = cpuUsByThread(server.pid)
  const idleShare = (performance.now() - from) / IDLE_MS
  const threads = new Map<string, number>()
  for (const [name, us] of after) {
    const idleUs = (before.get(name) ?? 0) - (idleFrom.get(name) ?? 0)
    threads.set(name, Math.max(0, us - (before.get(name) ?? 0) - idleUs * idleShare) / 1000)
  }
  return {
    cpuMs: [...threads.values()].reduce((sum, ms) => sum + ms, 0),
    wallMs: firstMs,
    threads,
    steps: "",
  }
}

const sleep = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

async function measure(systems: readonly System[], { tokens, rounds }: Options): Promise<void> {
  const lengths = tokens.split(",").map(Number)
  const samples = new Map(systems.map(({ name }) => [name, new Map(lengths.map((n) => [n, [] as Sample[]]))]))
  for (let round = 0; round < rounds; round++)
    for (const length of lengths)
      for (const system of inTurn(systems, round)) {
        const random = new Random("prompt", Date.now(), round, length)
        const prompt = Array.from({ length }, () => random.integer(32, 256))
        samples
          .get(system.name)!
          .get(length)!
          .push(await system.take(prompt))
      }
  for (const length of lengths) {
    console.log(`\n${length} tokens`)
    console.log(tableOf(systems.map(({ name }) => [name, samples.get(name)!.get(length)!] as const)))
  }
}

function tableOf(rows: readonly (readonly [string, Sample[]])[]): string {
  const table = new Table({
    head: [
      "",
      "CPU ms: least",
      "median",
      "first ones",
      "wall ms: least",
      "median",
      "steps, or CPU by thread",
    ],
    style: { head: [], border: [] },
  })
  for (const [name, all] of rows) {
    const warm = all.length > 2 * FIRST ? all.slice(FIRST) : all
    const cpu = warm.map(({ cpuMs }) => cpuMs)
    const wall = warm.map(({ wallMs }) => wallMs)
    const cold = all.slice(0, FIRST).map(({ cpuMs }) => cpuMs)
    const figures = [min(cpu), median(cpu), median(cold), min(wall), median(wall)].map((ms) => ms.toFixed(1))
    table.push([name, ...figures, warm[0]!.steps || byThread(warm)])
  }
  return table.toString()
}

/** Medians of the kinds of threads that take anything. */
function byThread(samples: readonly Sample[]): string {
  const names = [...new Set(samples.flatMap(({ threads }) => [...threads.keys()]))]
  return names
    .map((name) => [name, median(samples.map(({ threads }) => threads.get(name) ?? 0))] as const)
    .filter(([, ms]) => ms >= 0.1)
    .sort((a, b) => b[1] - a[1])
    .map(([name, ms]) => `${name} ${ms.toFixed(1)}`)
    .join(", ")
}

await main()
