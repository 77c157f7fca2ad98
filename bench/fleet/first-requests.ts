/** What a gateway's first requests cost, one after the other, after its start: code that V8 has not compiled yet takes several
 * times as long. `node bench/fleet/first-requests.ts`; with `--against <main.ts>` another checkout's takes turns with it. */
import { spawn } from "node:child_process"
import { mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { join } from "node:path"
import { Command } from "commander"
import { median } from "simple-statistics"
import { port as portOf, wholeNumber } from "../../src/cli/numbers.ts"
import { Server } from "../real/servers.ts"
import { cpuUsOf } from "./rivals/cpu.ts"
import { gateway } from "./rivals/proxies.ts"

/** Requests up to here, of each group. */
const GROUPS = [1, 10, 40, 100, 200] as const
const PAUSE_MS = 20

interface Options {
  starts: number
  serve: string
  against?: string
  port: number
  out?: string
}

interface Start {
  readyMs: number
  /** By group: medians of ms to the whole answer, and mean CPU ms a request. */
  tookMs: number[]
  cpuMs: number[]
}

async function main(): Promise<void> {
  const options = new Command("bench/fleet/first-requests.ts")
    .option("--starts <n>", "of each", wholeNumber(1, 100), 3)
    .option("--serve <main.ts>", "the gateway's", "src/cli/main.ts")
    .option("--against <main.ts>", "of another checkout")
    .option("--port <n>", "first port", portOf, 18700)
    .option("--out <file>", "for all figures, as JSON")
    .parse()
    .opts<Options>()
  const { port, starts, serve, against, out } = options
  const engine = spawn(process.execPath, ["bench/fleet/rivals/engine.ts", "1", String(port + 1)], {
    stdio: "inherit",
    cwd: join(import.meta.dirname, "../.."),
  })
  const folder = mkdtempSync(join(tmpdir(), "slos-serve-first-"))
  const systems = new Map([["this", serve], ...(against === undefined ? [] : [["before", against] as const])])
  const seen = new Map([...systems.keys()].map((name): [string, Start[]] => [name, []]))
  try {
    for (let i = 0; i < starts; i++)
      for (const [name, program] of systems) seen.get(name)!.push(await start(program, port, folder))
  } finally {
    engine.kill("SIGKILL")
    rmSync(folder, { recursive: true, force: true })
  }
  for (const [name, all] of seen) console.log(`${name}: ${textOf(all)}`)
  if (out !== undefined)
    writeFileSync(out, `${JSON.stringify({ groups: GROUPS, seen: Object.fromEntries(seen) })}\n`)
}

async function start(program: string, port: number, folder: string): Promise<Start> {
  const front = gateway("vllm", program)
  const command = front.command(port, [`http://127.0.0.1:${port + 1}`], folder)!
  const beganMs = performance.now()
  const server = await Server.start(front, command, port, join(folder, "gateway.log"))
  try {
    await server.ready(60_000)
    const found: Start = { readyMs: performance.now() - beganMs, tookMs: [], cpuMs: [] }
    let sent = 0
    for (const upTo of GROUPS) {
      const took: number[] = []
      const fromUs = cpuUsOf(server.pid)
      for (; sent < upTo; sent++) took.push(await ask(server.target.url))
      found.tookMs.push(median(took))
      found.cpuMs.push((cpuUsOf(server.pid) - fromUs) / 1000 / took.length)
    }
    return found
  } finally {
    await server.stop()
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

function textOf(all: readonly Start[]): string {
  const of = (pick: (one: Start) => number) => median(all.map(pick)).toFixed(1)
  const groups = GROUPS.map((upTo, i) => {
    const from = (GROUPS[i - 1] ?? 0) + 1
    const name = from === upTo ? String(upTo) : `${from}–${upTo}`
    return `${name}: ${of(({ tookMs }) => tookMs[i]!)} ms (CPU ${of(({ cpuMs }) => cpuMs[i]!)})`
  })
  return `ready after ${of(({ readyMs }) => readyMs)} ms; requests ${groups.join("; ")}`
}

await main()
