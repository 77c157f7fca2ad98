/** Two llama-servers behind our gateway, nginx and vllm-router; and two worker processes of ours against them, at as many
 * threads. Same arrivals for all, one after the other, in rotating order: which share of the requests is in time at which rate.
 * `LLAMA_SERVER=… node bench/fleet/rivals.ts`; what is in the results is not run again; `--quick` for a look. */
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { cpus, loadavg, tmpdir } from "node:os"
import { basename, dirname, join } from "node:path"
import { Command, Option } from "commander"
import { numberIn, port, wholeNumber } from "../../src/cli/numbers.ts"
import { collect, readTraces } from "../../src/cli/workload-options.ts"
import { UserError } from "../../src/errors.ts"
import { readClasses, type SloClasses } from "../../src/load/classes.ts"
import type { Plan } from "../../src/load/plan.ts"
import { replay } from "../../src/load/replay.ts"
import { score } from "../../src/load/score.ts"
import { makePlan } from "../../src/load/workload.ts"
import { resolveModel } from "../../src/models/resolve.ts"
import { Server } from "../real/servers.ts"
import { SYSTEMS as REAL, type Setup } from "../real/systems.ts"
import { rounded } from "../rounded.ts"
import { BURSTINESS, CONTEXT_TOKENS, LOADS, type Load } from "./rivals/loads.ts"
import { type FrontEnd, gateway, NGINX, vllmRouter } from "./rivals/proxies.ts"
import { missedOf, type Row, tablesOf } from "./rivals/rivals-tables.ts"

interface Options {
  model: keyof typeof LOADS
  systems: string
  rates?: string
  duration?: number
  seeds: number
  firstSeed: number
  slots: number
  trace: string[]
  serve: string
  workerFlags: string
  llamaServer?: string
  port: number
  timeBudgetMin: number
  quick?: boolean
  out?: string
}

/** The engines, and the threads of each. */
const ENGINES = 2
const THREADS = 1
const WARM_UP = { ratePerSec: 0.5, durationSec: 15 }
/** Ours in place of the engines, at as many threads. */
const WORKERS = "slos-serve --replicas 2"

const ROOT = join(import.meta.dirname, "../..")

async function main(): Promise<void> {
  const options = new Command("bench/fleet/rivals.ts")
    .addOption(new Option("--model <name>", "").choices(Object.keys(LOADS)).default("smollm2-135m"))
    .option("--systems <names>", "of these", `slos-serve,nginx,vllm-router,vllm-router-random,${WORKERS}`)
    .option("--rates <list>", "requests per second, separated by commas")
    .option("--duration <s>", "of the arrivals of one run", numberIn(1, 1e5))
    .option("--seeds <n>", "arrival windows", wholeNumber(1, 1000), 3)
    .option("--first-seed <n>", "", wholeNumber(0, 1e6), 1)
    .option("--slots <n>", "of each engine", wholeNumber(1, 256), 16)
    .option("--trace <app=file>", "lengths of an app; repeatable", collect, [])
    .option("--serve <main.ts>", "our server's, of another checkout", "src/cli/main.ts")
    .option(
      "--worker-flags <flags>",
      "more of our workers', such as --flash-attention or --library <folder>",
      "",
    )
    .option("--llama-server <path>", "or env LLAMA_SERVER")
    .option("--port <n>", "first port", port, 18800)
    .option(
      "--time-budget-min <n>",
      "start no run after this; the same command goes on",
      numberIn(0, 1e5),
      24,
    )
    .option("--quick", "one short window at one rate on the generated model: two minutes")
    .option("--out <file>", "default: bench/results/fleet/rivals-<model>.json; the tables go beside it")
    .parse()
    .opts<Options>()
  if (options.quick === true)
    Object.assign(options, { model: "tiny-bench", seeds: 1, rates: options.rates ?? "4", duration: 10 })
  await new Bench(options).run()
}

/** What is compared: a front before the engines, or, without them, our workers. */
interface System {
  name: string
  server: Server
  /** Stopped while others are measured. */
  pauses: boolean
}

class Bench {
  private readonly options: Options
  private readonly load: Load
  private readonly classes: SloClasses
  private readonly out: string
  private readonly endMs: number
  private readonly folder = mkdtempSync(join(tmpdir(), "slos-serve-rivals-"))
  private readonly engines: Server[] = []
  private readonly systems: System[] = []
  private readonly rows: Row[]

  constructor(options: Options) {
    this.options = options
    const { model, rates, duration } = options
    this.load = {
      ...LOADS[model],
      ...(rates !== undefined && { ratesPerSec: rates.split(",").map(Number) }),
      ...(duration !== undefined && { durationSec: duration }),
    }
    this.classes = readClasses(this.load.classes)
    this.out =
      options.out ?? join(ROOT, `bench/results/fleet/rivals-${options.quick === true ? "quick" : model}.json`)
    this.endMs = performance.now() + options.timeBudgetMin * 60_000
    this.rows = existsSync(this.out) && options.quick !== true ? kept(this.out, this.settings) : []
  }

  /** Runs of other settings cannot be pooled with these. */
  private get settings() {
    const { scale, classes, durationSec } = this.load
    return {
      ...{ model: this.options.model, engines: ENGINES, threads: THREADS, slots: this.options.slots },
      ...{ scale, classes, durationSec, burstiness: BURSTINESS, traces: this.options.trace.length > 0 },
      ...(this.options.workerFlags !== "" && { workerFlags: this.options.workerFlags }),
    }
  }

  async run(): Promise<void> {
    try {
      await this.start()
      const { firstSeed, seeds } = this.options
      for (let seed = firstSeed; seed < firstSeed + seeds; seed++)
        for (const [turn, ratePerSec] of this.load.ratesPerSec.entries())
          for (let i = 0; i < this.systems.length; i++) {
            const system = this.systems[(i + seed + turn) % this.systems.length]!
            if (this.isDone(system.name, seed, ratePerSec)) continue
            if (performance.now() > this.endMs) return console.error("time is up; the same command goes on")
            await this.measure(system, seed, ratePerSec)
          }
    } finally {
      await Promise.all([...this.systems.map(({ server }) => server), ...this.engines].map((s) => s.stop()))
      rmSync(this.folder, { recursive: true, force: true })
      if (this.rows.length > 0) console.log(tablesOf(this.rows))
    }
  }

  private isDone(system: string, seed: number, ratePerSec: number): boolean {
    return this.rows.some(
      (row) => row.system === system && row.seed === seed && row.ratePerSec === ratePerSec,
    )
  }

  private async start(): Promise<void> {
    const llamaServer = this.options.llamaServer ?? process.env.LLAMA_SERVER
    if (llamaServer === undefined || !existsSync(llamaServer))
      throw new UserError(
        "there is no llama-server: set LLAMA_SERVER to its path (bench/README.md says how to build it)",
      )
    const { path } = await resolveModel(this.options.model)
    const { port, slots, serve } = this.options
    const setup = { threads: THREADS, slots, contextTokens: CONTEXT_TOKENS, config: undefined }
    const engine = REAL.find(({ name }) => name === "llama-server-tuned")!
    for (let i = 0; i < ENGINES; i++)
      this.engines.push(
        await this.serverOf(
          engine,
          [...engine.command({ model: path, llamaServer, ...setup }, port + i), "--metrics"],
          port + i,
        ),
      )
    const urls = this.engines.map(({ target }) => target.url)
    const fronts: FrontEnd[] = [
      gateway("llama-server", serve),
      ...[NGINX, vllmRouter("power_of_two"), vllmRouter("random", "vllm-router-random")],
    ]
    for (const [i, front] of fronts.entries()) await this.addFront(front, port + 10 + i, urls)
    if (this.wanted(WORKERS)) await this.addWorkers(path, { ...setup, model: path, llamaServer }, port + 20)
  }

  private wanted(name: string): boolean {
    return this.options.systems.split(",").includes(name)
  }

  private async addFront(front: FrontEnd, port: number, urls: readonly string[]): Promise<void> {
    if (!this.wanted(front.name)) return
    const command = front.command(port, urls, this.folder)
    if (command === null) return console.error(`${front.name} is left out: ${front.missing}`)
    // What a client asks of llama-server itself passes through all but ours.
    const kind = front.kind === "slos-serve" ? "slos-serve" : "llama-server"
    await this.add({
      name: front.name,
      server: await this.serverOf({ ...front, kind }, command, port),
      pauses: front.pauses,
    })
  }

  private async addWorkers(path: string, { contextTokens, slots }: Setup, port: number): Promise<void> {
    const command = [
      ...[process.execPath, this.options.serve, "serve", "--model", path, "--port", String(port)],
      ...["--replicas", String(ENGINES), "--threads", String(ENGINES * THREADS), "--log-level", "warn"],
      ...["--context", String(contextTokens), "--max-sequences", String(ENGINES * slots)],
      ...this.options.workerFlags.split(" ").filter((flag) => flag !== ""),
    ]
    const server = await this.serverOf({ name: WORKERS, kind: "slos-serve" }, command, port)
    await this.add({ name: WORKERS, server, pauses: false })
  }

  private async serverOf(
    system: Pick<FrontEnd, "name" | "kind">,
    command: string[],
    port: number,
  ): Promise<Server> {
    const server = await Server.start(system, command, port, join(this.folder, `${port}.log`))
    await server.ready(300_000)
    return server
  }

  private async add(system: System): Promise<void> {
    this.systems.push(system)
    const { ratePerSec, durationSec } = WARM_UP
    // A gateway learns its engines' speed from what it sees; so may the others, if they do.
    await this.replay(
      system,
      this.plan(999, Math.max(ratePerSec, this.load.ratesPerSec[0]! / 2), durationSec),
      "warm-up",
    )
    if (system.pauses) system.server.pause()
    console.error(`${system.name}: ready and warm`)
  }

  private plan(seed: number, ratePerSec: number, durationSec: number): Plan {
    const traces = readTraces(this.options.trace, "all", "gamma")
    return makePlan({
      ...{ ratePerSec, durationMs: durationSec * 1000, seed, arrivals: "gamma", burstiness: BURSTINESS },
      ...{ scenario: "all", scale: this.load.scale, maxSequenceTokens: CONTEXT_TOKENS - 1, traces },
    })
  }

  private replay({ server }: System, plan: Plan, nonce: string) {
    return replay(plan, {
      ...{ target: server.target, classes: this.classes, tokenRange: { from: 32, to: 256 } },
      ...{ nonce: `${nonce}-${Date.now()}`, sendClass: true, timeoutMs: 600_000, stopWhenDecided: true },
    })
  }

  private async measure(system: System, seed: number, ratePerSec: number): Promise<void> {
    const { server, pauses } = system
    if (!server.alive || this.engines.some(({ alive }) => !alive))
      throw new Error(`${system.name} or an engine has died`)
    server.resume()
    // A gateway that stood still looks at its engines first.
    if (pauses) await new Promise((resolve) => setTimeout(resolve, 3000))
    const plan = this.plan(seed, ratePerSec, this.load.durationSec)
    const result = await this.replay(system, plan, `${system.name}-${seed}-${ratePerSec}`)
    // What was given up ends at an engine's next step.
    await new Promise((resolve) => setTimeout(resolve, 1500))
    if (pauses) server.pause()
    const { requests, apps, ends, failures, ttftMs, maxGapMs, problems } = score(plan.header, result)
    const byApp = Object.fromEntries(Object.entries(apps).map(([app, its]) => [app, its.requests]))
    const load = Math.round(loadavg()[0]!)
    this.rows.push({
      ...{ system: system.name, seed, ratePerSec, ...requests, byApp, ends, failures },
      ...{ ttftMs, maxGapMs, problems, loadAverage: load, missed: missedOf(result.records) },
    })
    this.save()
    const share = (100 * requests.attained) / requests.total
    console.error(
      `seed ${seed}, ${ratePerSec}/s, ${system.name}: ${share.toFixed(1)}% of ${requests.total} ${problems.join("; ")} ${Object.values(failures).join("; ")}`,
    )
  }

  private save(): void {
    const machine = { cpus: cpus().length, model: cpus()[0]!.model, node: process.version }
    mkdirSync(dirname(this.out), { recursive: true })
    const traces = this.options.trace.map((entry) => entry.replace(/=.*\//, "="))
    const kept = {
      settings: this.settings,
      traces,
      serve: basename(this.options.serve),
      machine,
      rows: this.rows,
    }
    writeFileSync(this.out, `${JSON.stringify(kept, rounded)}\n`)
    writeFileSync(this.out.replace(/\.json$/, ".txt"), tablesOf(this.rows))
  }
}

/** Throws UserError where the file holds runs of other settings. */
function kept(path: string, settings: object): Row[] {
  const file = JSON.parse(readFileSync(path, "utf8")) as { settings: object; rows: Row[] }
  if (JSON.stringify(file.settings) === JSON.stringify(settings)) return file.rows
  throw new UserError(`${path} holds runs of other settings; choose another --out, or remove it`)
}

try {
  await main()
} catch (error) {
  if (!(error instanceof UserError)) throw error
  console.error(`error: ${error.message}`)
  process.exitCode = 2
}
