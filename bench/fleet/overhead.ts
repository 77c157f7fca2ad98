/** What stands before engines adds: time to a request's first token, delay of each token, CPU time of both; our gateway,
 * nginx and vllm-router before the same engines, and our own worker processes against one process.
 * `node bench/fleet/overhead.ts`; `--quick` for a look. Systems take turns; what is added is taken against direct access in
 * the same round. CPU times do not depend on what else the machine does, the other times do. */
import { type ChildProcess, spawn } from "node:child_process"
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs"
import { availableParallelism, cpus, loadavg, tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { Command } from "commander"
import { numberIn, port, wholeNumber } from "../../src/cli/numbers.ts"
import { Server } from "../real/servers.ts"
import { rounded } from "../rounded.ts"
import { inTurn } from "../turns.ts"
import { run, type Seen } from "./rivals/clients.ts"
import { cpuUsOf } from "./rivals/cpu.ts"
import { type Figures, figuresOf, type Round, tableOf } from "./rivals/overhead-figures.ts"
import { type FrontEnd, gateway, NGINX, vllmRouter } from "./rivals/proxies.ts"

interface Options {
  rounds: number
  seconds: number
  backends: number
  only?: string
  serve: string
  against?: string
  gateways: number[]
  port: number
  quick?: boolean
  cores: boolean
  out: string
}

/** How many at once, and how long their answers are. With longer steps than 30 ms our gateway holds a request until the
 * engine's next step is so near: that shows in times to the first token that others hide in the engine's queue. */
interface Shape {
  streams: number
  tokens: number
  gapMs: number
}

const SHAPES: readonly Shape[] = [
  { streams: 1, tokens: 8, gapMs: 10 },
  { streams: 100, tokens: 50, gapMs: 25 },
  { streams: 1000, tokens: 20, gapMs: 200 },
]
const WARM_UP_SEC = 3
/** Of the bench's engine. */
const MODEL = "bench"
/** Answers of one token, as many as the system takes. */
const REQUESTS: Shape = { streams: 32, tokens: 1, gapMs: 1 }

interface System {
  name: string
  /** In each round the first of a group is what the others are judged against. */
  group: "before engines" | "our own engines"
  urls: readonly string[]
  /** null: direct. */
  server: Server | null
}

const ROOT = join(import.meta.dirname, "../..")

async function main(): Promise<void> {
  const options = new Command("bench/fleet/overhead.ts")
    .option("--rounds <n>", "in which each system has its turn", wholeNumber(1, 1000), 5)
    .option("--seconds <n>", "of each measurement", numberIn(0.5, 600), 5)
    .option("--backends <n>", "behind each", wholeNumber(1, 64), 8)
    .option("--only <names>", "of these systems, separated by commas")
    .option("--serve <main.ts>", "our gateway's, of another checkout", "src/cli/main.ts")
    .option("--against <main.ts>", "of another checkout besides: slos-serve-before")
    .option(
      "--gateways <list>",
      "our gateway with so many processes as well, each a row of its own (4 at most); with --no-cores on as many cores",
      (text) => text.split(",").map(wholeNumber(2, 64)),
      [],
    )
    .option("--port <n>", "first port", port, 18500)
    .option("--quick", "one short round: a minute and a half")
    .option("--no-cores", "do not give what is measured a core of its own")
    .option("--out <file>", "figures; the table goes beside it", "bench/results/fleet/overhead.json")
    .parse()
    .opts<Options>()
  if (options.quick === true) Object.assign(options, { rounds: 1, seconds: 1.5 })
  await new Bench(options).run()
}

class Bench {
  private readonly options: Options
  private readonly folder = mkdtempSync(join(tmpdir(), "slos-serve-overhead-"))
  private readonly children: ChildProcess[] = []
  private readonly systems: System[] = []
  private readonly rounds: Round[] = []

  constructor(options: Options) {
    this.options = options
  }

  async run(): Promise<void> {
    try {
      await this.start()
      for (let round = 0; round < this.options.rounds; round++)
        for (const group of Map.groupBy(this.systems, (system) => system.group).values())
          for (const shape of [REQUESTS, ...SHAPES].filter((shape) => fits(group[0]!, shape)))
            for (const system of inTurn(group, round)) await this.measure(round, system, shape)
      this.report()
    } finally {
      await Promise.all(this.systems.map(({ server }) => server?.stop()))
      for (const child of this.children) child.kill("SIGKILL")
      rmSync(this.folder, { recursive: true, force: true })
    }
  }

  private wanted(name: string): boolean {
    const { only } = this.options
    return only === undefined || only.split(",").includes(name)
  }

  private async start(): Promise<void> {
    const { backends, port, serve, against } = this.options
    const first = port + 20
    const urls = Array.from({ length: backends }, (_, i) => `http://127.0.0.1:${first + i}`)
    const engine = spawn(
      ...pinned(
        [process.execPath, "bench/fleet/rivals/engine.ts", String(backends), String(first)],
        "first",
        this.options,
      ),
      { stdio: "inherit", cwd: ROOT },
    )
    this.children.push(engine)
    await answering(`${urls[0]}/health`)
    if (this.wanted("direct"))
      this.systems.push({ name: "direct", group: "before engines", urls, server: null })
    const proxies: FrontEnd[] = [gateway("vllm", serve), NGINX, vllmRouter("power_of_two")]
    for (const processes of this.options.gateways) proxies.push(gateway("vllm", serve, processes))
    if (against !== undefined) proxies.push({ ...gateway("vllm", against), name: "slos-serve-before" })
    for (const [i, proxy] of proxies.entries()) {
      const command = this.wanted(proxy.name) ? proxy.command(port + i, urls, this.folder) : null
      if (command !== null) await this.add(proxy, "before engines", command, port + i)
      else if (this.wanted(proxy.name)) console.error(`${proxy.name} is left out: ${proxy.missing}`)
    }
    for (const [i, [name, extra]] of OWN.entries()) {
      if (!this.wanted(name)) continue
      const own = [process.execPath, serve, "serve", "--engine", "fake", "--port", String(port + 10 + i)]
      const rest = ["--log-level", "warn", "--max-sequences", "256", ...extra]
      await this.add({ name, kind: "slos-serve" }, "our own engines", [...own, ...rest], port + 10 + i)
    }
  }

  private async add(
    system: Pick<FrontEnd, "name" | "kind">,
    group: System["group"],
    command: string[],
    port: number,
  ): Promise<void> {
    const [program, args] = pinned(command, group === "before engines" ? "last" : "any", this.options)
    const server = await Server.start(system, [program, ...args], port, join(this.folder, `${port}.log`))
    this.systems.push({ name: system.name, group, urls: [server.target.url], server })
    await server.ready(120_000)
    await run({ urls: [server.target.url], model: server.target.model, ...REQUESTS, seconds: 2 })
  }

  private async measure(round: number, { name, group, urls, server }: System, shape: Shape): Promise<void> {
    // To get connections, and what a gateway knows of its engines, to where they are under this load.
    const model = server?.target.model ?? MODEL
    if (shape.streams > 1) await run({ urls, model, ...shape, seconds: WARM_UP_SEC })
    const cpuUs = () => (server === null ? 0 : cpuUsOf(server.pid))
    const fromUs = cpuUs()
    const seen: Seen = await run({ urls, model, ...shape, seconds: this.options.seconds })
    const spentUs = cpuUs() - fromUs
    const figures: Figures = figuresOf(seen, spentUs)
    this.rounds.push({ round, system: name, group, shape: `${shape.streams}×${shape.tokens}`, ...figures })
    const failed = Object.entries(seen.failures).map(([why, count]) => `${count}: ${why}`)
    console.error(
      `round ${round + 1}, ${shape.streams} streams of ${shape.tokens}: ${name}, ${seen.requests} requests ${failed.join("; ")}`,
    )
  }

  private report(): void {
    const { out, ...settings } = this.options
    const machine = {
      ...{ cpus: cpus().length, model: cpus()[0]!.model, node: process.version },
      loadAverage: Math.round(loadavg()[0]!),
    }
    const table = tableOf(this.rounds)
    mkdirSync(dirname(out), { recursive: true })
    const kept = {
      settings: { ...settings, serve: basename(settings.serve), against: undefined },
      machine,
      rounds: this.rounds,
    }
    writeFileSync(out, `${JSON.stringify(kept, rounded)}\n`)
    writeFileSync(out.replace(/\.json$/, ".txt"), table)
    console.log(table)
  }
}

/** An engine of ours has 256 sequences: what waits for one is not overhead. */
function fits({ group }: System, { streams }: Shape): boolean {
  return group === "before engines" || streams <= 256
}

/** Our server with an engine that only keeps time: what processes of their own cost. */
const OWN: readonly [name: string, extra: readonly string[]][] = [
  ["one process", []],
  ["2 workers", ["--replicas", "2"]],
  ["4 workers", ["--replicas", "4"]],
]

/** What is measured has the last core, clients and engines the first: they do not wait for one another. */
function pinned(
  command: readonly string[],
  core: "first" | "last" | "any",
  { cores }: Pick<Options, "cores">,
): [program: string, args: string[]] {
  const count = availableParallelism()
  const [program, ...args] = command as [string, ...string[]]
  if (!cores || core === "any" || count < 2 || process.platform !== "linux") return [program, args]
  return ["taskset", ["-c", core === "last" ? String(count - 1) : `0-${count - 2}`, program, ...args]]
}

async function answering(url: string): Promise<void> {
  for (let i = 0; i < 600; i++) {
    const ok = await fetch(url).then(
      (response) => response.ok,
      () => false,
    )
    if (ok) return
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  throw new Error(`${url} does not answer`)
}

await main()
