/** What peers cost a gateway: CPU time of a request and of a token, of gateways that each have as much to do, with 1 and 2 peers
 * against none. `node bench/fleet/peers-cost.ts`; `--quick` for a look. All gateways stand there all the time and take turns; what is
 * added is taken against none in the same round. Loads keep a pace, so CPU times do not depend on what else the machine does, as long
 * as it leaves room for them. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { cpus, loadavg, tmpdir } from "node:os"
import { dirname, join } from "node:path"
import Table from "cli-table3"
import { Command } from "commander"
import { median } from "simple-statistics"
import { numberIn, port, wholeNumber } from "../../src/cli/numbers.ts"
import { Server } from "../real/servers.ts"
import { rounded } from "../rounded.ts"
import { inTurn } from "../turns.ts"
import { run } from "./rivals/clients.ts"
import { cpuUsOf } from "./rivals/cpu.ts"
import { gateway } from "./rivals/proxies.ts"

interface Options {
  rounds: number
  seconds: number
  backends: number
  peers: number[]
  port: number
  quick?: boolean
  out: string
}

/** A step of an engine, ms. The same whatever the load: answers of one token do not show how long steps are, so twins would go on
 * believing the other load's, and hold requests by that. Shorter than what a gateway sends ahead of a step, so that none is held. */
const STEP_MS = 25

/** Of each gateway. Without streams: what it costs while nothing is asked of it, which is taken off the others (looks at engines, words
 * that it is there). Of one token: what a request costs; of more: what is left is the tokens'. */
const SHAPES = [
  { streams: 0, tokens: 0, gapMs: 0 },
  { streams: 12, tokens: 1, gapMs: STEP_MS },
  { streams: 50, tokens: 50, gapMs: STEP_MS },
] as const
type Shape = (typeof SHAPES)[number]

interface System {
  peers: number
  servers: readonly Server[]
}

/** Of one measurement, all gateways together. */
interface Row {
  round: number
  peers: number
  streams: number
  tokensEach: number
  requests: number
  tokens: number
  failures: Record<string, number>
  seconds: number
  cpuUs: number
  messages: number
  words: number
}

const WARM_UP_SEC = 15
const ROOT = join(import.meta.dirname, "../..")

async function main(): Promise<void> {
  const options = new Command("bench/fleet/peers-cost.ts")
    .option("--rounds <n>", "in which each has its turn", wholeNumber(1, 1000), 10)
    .option("--seconds <n>", "of each measurement", numberIn(0.5, 600), 5)
    .option("--backends <n>", "that all stand before", wholeNumber(1, 64), 8)
    .option(
      "--peers <list>",
      "peers of each gateway",
      (text) => text.split(",").map(wholeNumber(0, 8)),
      [0, 1, 2],
    )
    .option("--port <n>", "first port", port, 18700)
    .option("--quick", "two short rounds")
    .option("--out <file>", "rows", "bench/results/fleet/peers-cost.json")
    .parse()
    .opts<Options>()
  if (options.quick === true) Object.assign(options, { rounds: 2, seconds: 2 })
  const folder = mkdtempSync(join(tmpdir(), "slos-serve-peers-cost-"))
  const servers: Server[] = []
  let engine: ChildProcess | null = null
  try {
    const urls = Array.from({ length: options.backends }, (_, i) => `http://127.0.0.1:${options.port + i}`)
    const engineArgs = ["bench/fleet/rivals/engine.ts", String(options.backends), String(options.port)]
    engine = spawn(process.execPath, engineArgs, { stdio: "inherit", cwd: ROOT })
    const systems: System[] = []
    for (const peers of options.peers) systems.push(await start(peers, urls, options, folder, servers))
    const rows: Row[] = []
    const warmUpSec = options.quick === true ? 2 : WARM_UP_SEC
    for (const shape of SHAPES)
      if (shape.streams > 0) for (const system of systems) await measure(-1, system, shape, warmUpSec)
    for (let round = 0; round < options.rounds; round++)
      for (const shape of SHAPES)
        for (const system of inTurn(systems, round))
          rows.push(await measure(round, system, shape, options.seconds))
    report(rows, options)
  } finally {
    await Promise.all(servers.map((server) => server.stop()))
    engine?.kill("SIGKILL")
    rmSync(folder, { recursive: true, force: true })
  }
}

/** As many gateways as each has peers, and one more. Each looks for those before it. */
async function start(
  peers: number,
  backends: readonly string[],
  { port: first }: Options,
  folder: string,
  servers: Server[],
): Promise<System> {
  const secret = join(folder, "secret")
  writeFileSync(secret, "what the gateways of a bench have in common")
  const at = first + 100 + 20 * peers
  const front = gateway("vllm")
  const own: Server[] = []
  for (let i = 0; i <= peers; i++) {
    const others = Array.from({ length: i }, (_, j) => ["--peer", `127.0.0.1:${at + 10 + j}`]).flat()
    const peering = ["--peer-port", String(at + 10 + i), "--peer-secret", `file:${secret}`, ...others]
    const command = [...front.command(at + i, backends, folder)!, ...(peers === 0 ? [] : peering)]
    const name = { name: `gateway ${i} of ${peers + 1}`, kind: front.kind }
    const server = await Server.start(name, command, at + i, join(folder, `${at + i}.log`))
    own.push(server)
    servers.push(server)
    await server.ready(120_000)
  }
  for (const server of own) while (peers > 0 && (await counted(server)).connected < peers) await pause(100)
  return { peers, servers: own }
}

async function measure(
  round: number,
  { peers, servers }: System,
  shape: Shape,
  seconds: number,
): Promise<Row> {
  const load = { ...shape, streams: shape.streams * servers.length }
  const idle = shape.streams === 0
  const urls = servers.map(({ target }) => target.url)
  const { model } = servers[0]!.target
  if (!idle) await run({ ...load, urls, model, seconds: 1 })
  const before = await sums(servers)
  const fromMs = performance.now()
  if (idle) await pause(1000 * seconds)
  const seen = await run({ ...load, urls, model, seconds: idle ? 0 : seconds })
  const elapsedSec = (performance.now() - fromMs) / 1000
  const after = await sums(servers)
  console.error(`round ${round + 1}, ${peers} peers, ${shape.tokens} tokens: ${seen.requests} requests`)
  return {
    ...{ round, peers, streams: shape.streams, tokensEach: shape.tokens },
    ...{
      requests: seen.requests,
      tokens: seen.tokens,
      failures: seen.failures,
      seconds: elapsedSec,
    },
    ...{ cpuUs: after.cpuUs - before.cpuUs, messages: after.messages - before.messages },
    words: after.words - before.words,
  }
}

async function sums(servers: readonly Server[]) {
  const counts = await Promise.all(servers.map(counted))
  const sum = (pick: (count: (typeof counts)[number]) => number) =>
    counts.reduce((all, one) => all + pick(one), 0)
  const cpuUs = servers.reduce((all, { pid }) => all + cpuUsOf(pid), 0)
  return { cpuUs, messages: sum(({ messages }) => messages), words: sum(({ words }) => words) }
}

/** As its /metrics say; without peers they say nothing of it. */
async function counted({ target }: Server) {
  const page = await (await fetch(`${target.url}/metrics`)).text()
  const of = (name: string) => Number(new RegExp(`^${name} (\\d+)`, "m").exec(page)?.[1] ?? 0)
  return {
    connected: of("slos_serve_peers"),
    messages: of("slos_serve_peer_messages_total"),
    words: of("slos_serve_peer_words_told_total"),
  }
}

/** CPU of a gateway in a second without requests; of a request, and of a token beyond each answer's first, beside that. */
function costs(
  rows: readonly Row[],
  round: number,
  peers: number,
): { idle: number; request: number; token: number } {
  const of = (tokens: number) =>
    rows.find((row) => row.round === round && row.peers === peers && row.tokensEach === tokens)!
  const [nothing, short, long] = SHAPES.map(({ tokens }) => of(tokens)) as [Row, Row, Row]
  const idleUs = nothing.cpuUs / nothing.seconds
  const work = ({ cpuUs, seconds }: Row) => cpuUs - idleUs * seconds
  const request = work(short) / short.requests
  const token = (work(long) - long.requests * request) / (long.tokens - long.requests)
  return { idle: idleUs / 1000 / (peers + 1), request, token }
}

function report(rows: readonly Row[], { rounds, peers: all, out, ...settings }: Options): void {
  const head = [
    "peers",
    "CPU ms/s without requests",
    "more",
    "ratio",
    "CPU µs a request",
    "more",
    "ratio",
    "CPU µs a token",
    "more",
    "ratio",
  ]
  const traffic = [
    "requests/s a gateway",
    "messages/s",
    "words/s",
    "tokens/s a gateway",
    "messages/s",
    "words/s",
    "failed",
  ]
  const table = new Table({ head: [...head, ...traffic], style: { head: [], border: [], compact: true } })
  const each = Array.from({ length: rounds }, (_, round) => round)
  for (const peers of all) {
    const own = each.map((round) => costs(rows, round, peers))
    const none = each.map((round) => costs(rows, round, all[0]!))
    const cells = (["idle", "request", "token"] as const).flatMap((what) => [
      spread(own.map((cost) => cost[what])),
      ...(peers === all[0]
        ? ["", ""]
        : [
            spread(own.map((cost, i) => cost[what] - none[i]![what])),
            spread(own.map((cost, i) => cost[what] / none[i]![what])),
          ]),
    ])
    const its = rows.filter((row) => row.peers === peers)
    const rates = SHAPES.filter(({ streams }) => streams > 0).flatMap(({ tokens }) => {
      const same = its.filter((row) => row.tokensEach === tokens)
      const rate = (what: "requests" | "tokens" | "messages" | "words") =>
        median(same.map((row) => row[what] / row.seconds / (peers + 1))).toFixed(0)
      return [rate(tokens === 1 ? "requests" : "tokens"), rate("messages"), rate("words")]
    })
    const failed = its.flatMap(({ failures }) => Object.values(failures)).reduce((a, b) => a + b, 0)
    table.push([peers, ...cells, ...rates, failed])
  }
  const machine = { cpus: cpus().length, model: cpus()[0]!.model, node: process.version }
  const kept = { settings: { rounds, peers: all, ...settings }, machine, loadAverage: loadavg()[0], rows }
  mkdirSync(dirname(out), { recursive: true })
  writeFileSync(out, `${JSON.stringify(kept, rounded)}\n`)
  writeFileSync(out.replace(/\.json$/, ".txt"), `${table.toString()}\n`)
  console.log(table.toString())
}

function spread(values: readonly number[]): string {
  return `${short(median([...values]))} (${short(Math.min(...values))}–${short(Math.max(...values))})`
}

const short = (value: number) => (Math.abs(value) >= 100 ? value.toFixed(0) : value.toPrecision(3))
const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

await main()
