/** What the first requests cost, one after the other, of a gateway or an endpoint picker just started: code that V8 has not
 * compiled yet takes several times as long. `node bench/fleet/first-requests.ts`, `--of picker`; with `--against <main.ts>`
 * another checkout's takes turns with it. */
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Command, Option } from "commander"
import { median } from "simple-statistics"
import { port as portOf, wholeNumber } from "../../src/cli/numbers.ts"
import { Server } from "../real/servers.ts"
import { PickerBehindEnvoy } from "./first/picker.ts"
import { cpuUsOf } from "./rivals/cpu.ts"
import { gateway } from "./rivals/proxies.ts"

/** Requests up to here, of each group. */
const GROUPS = [1, 10, 40, 100, 200] as const
const PAUSE_MS = 20

interface Options {
  of: keyof typeof STARTS
  starts: number
  serve: string
  against?: string
  port: number
  out?: string
}

/** What is measured: `pid` and all that it started. */
interface Started {
  pid: number
  /** Where requests go. */
  url: string
  /** From its start until it said that it is ready. */
  readyMs: number
  stop(): Promise<void>
}

interface Seen {
  readyMs: number
  /** By group: medians of ms to the whole answer, and mean CPU ms a request. */
  tookMs: number[]
  cpuMs: number[]
}

const STARTS = {
  async gateway(program: string, port: number, engine: number, folder: string): Promise<Started> {
    const front = gateway("vllm", program)
    const beganMs = performance.now()
    const command = front.command(port, [`http://127.0.0.1:${engine}`], folder)!
    const server = await Server.start(front, command, port, join(folder, "gateway.log"))
    await server.ready(60_000)
    const readyMs = performance.now() - beganMs
    return { pid: server.pid, url: server.target.url, readyMs, stop: () => server.stop() }
  },
  picker: (program: string, port: number, engine: number): Promise<Started> =>
    PickerBehindEnvoy.start(program, { gateway: port, picker: port + 2, admin: port + 3, engine }),
}

async function main(): Promise<void> {
  const options = new Command("bench/fleet/first-requests.ts")
    .addOption(
      new Option("--of <what>", "picker: behind a real Envoy (bench/get-envoy.sh), alone counted")
        .choices(Object.keys(STARTS))
        .default("gateway"),
    )
    .option("--starts <n>", "of each", wholeNumber(1, 100), 3)
    .option("--serve <main.ts>", "its program", "src/cli/main.ts")
    .option("--against <main.ts>", "of another checkout")
    .option("--port <n>", "first port", portOf, 18700)
    .option("--out <file>", "for all figures, as JSON")
    .parse()
    .opts<Options>()
  const { of, port, starts, serve, against, out } = options
  const engine = spawn(process.execPath, ["bench/fleet/rivals/engine.ts", "1", String(port + 1)], {
    stdio: "inherit",
    cwd: join(import.meta.dirname, "../.."),
  })
  const folder = mkdtempSync(join(tmpdir(), "slos-serve-first-"))
  const systems = new Map([["this", serve], ...(against === undefined ? [] : [["before", against] as const])])
  const seen = new Map([...systems.keys()].map((name): [string, Seen[]] => [name, []]))
  try {
    for (let i = 0; i < starts; i++)
      for (const [name, program] of systems) {
        const started = await STARTS[of](program, port, port + 1, folder)
        seen.get(name)!.push(await measured(started))
      }
  } finally {
    engine.kill("SIGKILL")
    rmSync(folder, { recursive: true, force: true })
  }
  for (const [name, all] of seen) console.log(`${name}: ${textOf(all)}`)
  if (out !== undefined)
    writeFileSync(out, `${JSON.stringify({ of, groups: GROUPS, seen: Object.fromEntries(seen) })}\n`)
}

async function measured(started: Started): Promise<Seen> {
  const { pid, url, readyMs } = started
  try {
    const found: Seen = { readyMs, tookMs: [], cpuMs: [] }
    let sent = 0
    for (const upTo of GROUPS) {
      const took: number[] = []
      const fromUs = cpuUsOf(pid)
      for (; sent < upTo; sent++) took.push(await ask(url))
      found.tookMs.push(median(took))
      found.cpuMs.push((cpuUsOf(pid) - fromUs) / 1000 / took.length)
    }
    return found
  } finally {
    await started.stop()
  }
}

/** Time to its whole answer, ms. */
async function ask(url: string): Promise<number> {
  const beganMs = performance.now()
  const response = await fetch(`${url}/v1/chat/completions`, {
    ...{ method: "POST", headers: { "content-type": "application/json" } },
    body: JSON.stringify({
      ...{
        model: "bench",
        stream: true,
        max_tokens: 4,
        messages: [{ role: "user", content: "gap=1 Say so." }],
      },
      slo: { ttft_ms: 60_000, tpot_ms: 2_000 },
    }),
  })
  await response.text()
  const tookMs = performance.now() - beganMs
  if (!response.ok) throw new Error(`HTTP ${response.status}`)
  await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
  return tookMs
}

function textOf(all: readonly Seen[]): string {
  const of = (pick: (one: Seen) => number) => median(all.map(pick)).toFixed(1)
  const groups = GROUPS.map((upTo, i) => {
    const from = (GROUPS[i - 1] ?? 0) + 1
    const name = from === upTo ? String(upTo) : `${from}–${upTo}`
    return `${name}: ${of(({ tookMs }) => tookMs[i]!)} ms (CPU ${of(({ cpuMs }) => cpuMs[i]!)})`
  })
  return `ready after ${of(({ readyMs }) => readyMs)} ms; requests ${groups.join("; ")}`
}

await main()
