/** Attainment against rate for several servers on one machine: identical plans, adjacent in time, in rotating
 * order, a reference batch before and after each run. Resumable: what is in the results folder is not run again. */

import { appendFileSync, existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { cpus } from "node:os"
import { join } from "node:path"
import { gzipSync } from "node:zlib"
import { Command, Option } from "commander"
import { numberIn, port, wholeNumber } from "../../src/cli/numbers.ts"
import { classesOf } from "../../src/cli/study-options.ts"
import { collect, readTraces, type ZeroLoadOptions } from "../../src/cli/workload-options.ts"
import { UserError } from "../../src/errors.ts"
import { ARRIVALS, type ArrivalName } from "../../src/load/arrivals.ts"
import type { Plan } from "../../src/load/plan.ts"
import { type ReplayResult, replay } from "../../src/load/replay.ts"
import { score } from "../../src/load/score.ts"
import { makePlan } from "../../src/load/workload.ts"
import { measureZeroLoad } from "../../src/load/zero-load.ts"
import { resolveModel } from "../../src/models/resolve.ts"
import { rounded } from "../rounded.ts"
import { rateOf, rungOf, wantedRungs } from "./ladder.ts"
import { measureReference, type Reference } from "./reference.ts"
import { type Meta, type RunRow, readRows } from "./rows.ts"
import { Server } from "./servers.ts"
import { nameOfShape, parseShape, SHARED_NONCE, type SharedShape, sharedPlan } from "./shared-plan.ts"
import { type Setup, STANDARD, SYSTEMS, type System } from "./systems.ts"

interface Options extends ZeroLoadOptions {
  model: string
  systems: string
  scenario: string
  shared?: SharedShape
  duration: number
  seeds: number
  firstSeed: number
  scale: number
  burstiness: number
  arrivals: ArrivalName
  classes?: string
  tpotScale: number
  trace: string[]
  threads: number
  slots: number
  contextTokens: number
  llamaServer?: string
  config?: string
  out: string
  port: number
  warmUp: number
  guess: string[]
  rates: string[]
  timeBudgetMin: number
}

async function main(): Promise<void> {
  const names = SYSTEMS.map((system) => system.name).join(",")
  const program = new Command("bench/real/run.ts")
    .option("--model <name>", "as for serve", "tiny-bench")
    .option("--systems <names>", `of: ${names}`, STANDARD.map((system) => system.name).join(","))
    .option("--scenario <name>", "workload", "all")
    .option(
      "--shared <shared,own,output[,prompts]>",
      "instead: prompts that begin with one of so many system prompts (1), all of these lengths in tokens",
      parseShape,
    )
    .option("--duration <s>", "of the arrivals of one run", numberIn(1, 1e5), 45)
    .option("--seeds <n>", "arrival windows", wholeNumber(1, 1000), 8)
    .option("--first-seed <n>", "", wholeNumber(0, 1e6), 1)
    .option("--scale <n>", "divide lengths by", numberIn(0.01, 1000), 8)
    .option("--burstiness <n>", "of gamma arrivals", numberIn(0.01, 100), 0.5)
    .addOption(new Option("--arrivals <process>", "arrival process").choices(ARRIVALS).default("gamma"))
    .option("--classes <file|list>", "SLO classes")
    .option("--tpot-scale <n>", "multiply all TPOTs (a slow model)", numberIn(0.01, 1000), 1)
    .option("--zero-load-ms <ms>", "instead of measuring it", numberIn(0, 1e6))
    .option("--zero-load-prefill-ms-per-token <ms>", "instead of measuring it", numberIn(0, 1e4))
    .option("--trace <app=file>", "lengths of an app; repeatable", collect, [])
    .option("--threads <n>", "engine threads", wholeNumber(1, 512), 1)
    .option("--slots <n>", "sequences in the engine", wholeNumber(1, 256), 32)
    .option("--context-tokens <n>", "of one request", wholeNumber(32, 1 << 20), 1024)
    .option("--llama-server <path>", "or env LLAMA_SERVER")
    .option("--config <file>", "--config of our server")
    .option("--guess <system=rate>", "where to begin the search; repeatable", collect, [])
    .option("--rates <system=r1,r2>", "exactly these rates instead of a search; repeatable", collect, [])
    .option("--out <folder>", "results folder", `bench/results/real/${new Date().toISOString().slice(0, 10)}`)
    .option("--port <n>", "first port", port, 18200)
    .option("--warm-up <s>", "of light load on each server before the first run", numberIn(1, 1e4), 10)
    .option("--time-budget-min <n>", "start no run after this", numberIn(0, 1e5), 60)
    .parse()
  await new Bench(program.opts<Options>()).run()
}

class Bench {
  private readonly options: Options
  private readonly systems: System[]
  private readonly endMs: number
  private readonly servers = new Map<string, Server>()
  private readonly rows: RunRow[]
  private readonly guesses: Map<string, number>
  private readonly fixed: Map<string, number[]>

  constructor(options: Options) {
    this.options = options
    this.systems = options.systems.split(",").map((name) => {
      const system = SYSTEMS.find((entry) => entry.name === name)
      if (system === undefined) throw new Error(`unknown system ${name}`)
      return system
    })
    this.endMs = performance.now() + options.timeBudgetMin * 60_000
    mkdirSync(join(options.out, "requests"), { recursive: true })
    this.rows = readRows(options.out)
    this.guesses = new Map(this.systems.map((system) => [system.name, rungOf(system.guessPerSec)]))
    this.fixed = new Map(
      options.rates.map((entry) => {
        const [name, list] = entry.split("=") as [string, string]
        return [name, list.split(",").map((rate) => rungOf(Number(rate)))]
      }),
    )
    for (const guess of options.guess) {
      const [name, rate] = guess.split("=")
      this.guesses.set(name!, rungOf(Number(rate)))
    }
  }

  /** The workload by name. */
  private get scenario(): string {
    const { shared, scenario } = this.options
    return shared === undefined ? scenario : nameOfShape(shared)
  }

  private get scale(): number {
    return this.options.shared === undefined ? this.options.scale : 1
  }

  private rungs(system: System): number[] {
    const own = this.rows.filter((row) => row.system === system.name)
    const measured = own.map((row) => ({ rung: row.rung, ...row.score.requests }))
    return this.fixed.get(system.name) ?? wantedRungs(measured, this.guesses.get(system.name)!)
  }

  async run(): Promise<void> {
    try {
      const { meta, setup } = await this.prepare()
      await this.startServers(meta, setup)
      const { firstSeed, seeds } = this.options
      for (let seed = firstSeed; seed < firstSeed + seeds; seed++) {
        for (let rung = this.nextRung(seed); rung !== null; rung = this.nextRung(seed)) {
          const group = this.systems.filter((system) => this.missing(system, seed).includes(rung!))
          const turn = (seed + rung + 1000) % group.length
          for (const system of [...group.slice(turn), ...group.slice(0, turn)]) {
            if (performance.now() > this.endMs) {
              console.log("time budget used up; run the same command again to go on")
              return
            }
            await this.measure(system, seed, rung, meta)
          }
        }
      }
    } finally {
      await Promise.all([...this.servers.values()].map((server) => server.stop()))
    }
  }

  private async prepare(): Promise<{ meta: Meta; setup: Setup }> {
    const { options } = this
    const { threads, slots, contextTokens, config } = options
    const model = await resolveModel(options.model)
    const llamaServer = options.llamaServer ?? process.env.LLAMA_SERVER ?? "llama-server"
    const setup: Setup = { model: model.path, threads, slots, contextTokens, llamaServer, config }
    return { meta: this.keptMeta(model.name) ?? this.newMeta(model.name, setup), setup }
  }

  /** Of the results folder, which must be of this very setup; null when it is new. */
  private keptMeta(model: string): Meta | null {
    const { out, burstiness } = this.options
    const { scenario, scale } = this
    const path = join(out, "meta.json")
    if (!existsSync(path)) return null
    const meta = JSON.parse(readFileSync(path, "utf8")) as Meta
    const asked = JSON.stringify({ scenario, scale, burstiness })
    const kept = JSON.stringify({ scenario: meta.scenario, scale: meta.scale, burstiness: meta.burstiness })
    if (meta.model === model && asked === kept) return meta
    throw new Error(`${out} holds runs of another setup (${meta.model}, ${kept}); choose another --out`)
  }

  private newMeta(model: string, setup: Setup): Meta {
    const { options } = this
    const { threads, slots, contextTokens } = setup
    return {
      model,
      cpu: `${cpus().length} × ${cpus()[0]?.model}`,
      setup: { threads, slots, contextTokens },
      scenario: this.scenario,
      durationSec: options.duration,
      scale: this.scale,
      burstiness: options.burstiness,
      classes: classesOf(options),
      zeroLoad: { ms: 0, msPerToken: 0 },
      sources: this.plan(1, 0).header.sources,
      commandLine: process.argv.slice(2).map(withoutFolders),
      commands: Object.fromEntries(
        this.systems.map((system) => [system.name, system.command(setup, 0).map(withoutFolders)]),
      ),
    }
  }

  private async startServers(meta: Meta, setup: Setup): Promise<void> {
    let next = this.options.port
    const start = async (system: System, name: string) => {
      const port = next++
      const log = join(this.options.out, `${name}.log`)
      const server = await Server.start(system, system.command(setup, port), port, log)
      this.servers.set(name, server)
      await server.ready(300_000)
      return server
    }
    const stock = SYSTEMS.find((system) => system.kind === "llama-server")!
    const reference = await start(stock, "reference")
    const path = join(this.options.out, "meta.json")
    if (!existsSync(path)) {
      const { zeroLoadMs, zeroLoadPrefillMsPerToken } = this.options
      const measured = await measureZeroLoad(reference.target, Math.floor(setup.contextTokens * 0.75))
      meta.zeroLoad = {
        ms: zeroLoadMs ?? measured.ms,
        msPerToken: zeroLoadPrefillMsPerToken ?? measured.msPerToken,
      }
      writeFileSync(path, `${JSON.stringify(meta, null, 2)}\n`)
    }
    console.log(
      `zero-load prefill: ${meta.zeroLoad.ms.toFixed(1)} ms + ${meta.zeroLoad.msPerToken.toFixed(3)} ms/token`,
    )
    reference.pause()
    // One after the other, warmed and then stopped: a profile must not be taken beside another server's work.
    for (const system of this.systems) {
      const server = await start(system, system.name)
      await this.replay(
        server,
        this.plan(999, rungOf(system.guessPerSec) - 4, this.options.warmUp),
        meta,
        "warm-up",
      )
      server.pause()
      console.log(`${system.name}: ready and warm`)
    }
  }

  private missing(system: System, seed: number): number[] {
    const own = this.rows.filter((row) => row.system === system.name)
    const done = own.filter((row) => row.seed === seed).map((row) => row.rung)
    return this.rungs(system).filter((rung) => !done.includes(rung))
  }

  /** The rung that most systems still want for this seed. */
  private nextRung(seed: number): number | null {
    const votes = new Map<number, number>()
    for (const system of this.systems) {
      for (const rung of this.missing(system, seed)) votes.set(rung, (votes.get(rung) ?? 0) + 1)
    }
    let best: number | null = null
    for (const [rung, count] of votes) if (best === null || count > votes.get(best)!) best = rung
    return best
  }

  private plan(seed: number, rung: number, durationSec = this.options.duration): Plan {
    const { options } = this
    const { arrivals, burstiness, shared } = options
    const ratePerSec = Math.max(rateOf(rung), 1 / durationSec)
    const load = { ratePerSec, durationMs: durationSec * 1000, seed, arrivals, burstiness }
    if (shared !== undefined) return sharedPlan(shared, load)
    return makePlan({
      ...load,
      scenario: options.scenario,
      scale: options.scale,
      maxSequenceTokens: options.contextTokens - 1,
      traces: readTraces(options.trace, options.scenario, options.arrivals),
    })
  }

  private replay(server: Server, plan: Plan, meta: Meta, nonce: string): Promise<ReplayResult> {
    return replay(plan, {
      target: server.target,
      classes: meta.classes,
      zeroLoad: meta.zeroLoad,
      tokenRange: { from: 32, to: 256 },
      nonce: `${nonce}-${Date.now()}`,
      ...(this.options.shared && { sharedNonce: SHARED_NONCE }),
      sendClass: true,
      timeoutMs: 600_000,
      stopWhenDecided: true,
    })
  }

  private async measure(system: System, seed: number, rung: number, meta: Meta): Promise<void> {
    const server = this.servers.get(system.name)!
    if (!server.alive) throw new Error(`${system.name} has died; see its log in ${this.options.out}`)
    const plan = this.plan(seed, rung)
    const before = await this.reference()
    server.resume()
    const startedAt = new Date().toISOString()
    const result = await this.replay(server, plan, meta, `${system.name}-${seed}-${rung}`)
    // What was given up ends at the server's next boundary; let it finish before it is stopped.
    await new Promise((resolve) => setTimeout(resolve, 1000))
    server.pause()
    const after = await this.reference()
    const scored = score(plan.header, result)
    const row: RunRow = {
      system: system.name,
      seed,
      rung,
      ratePerSec: rateOf(rung),
      startedAt,
      before,
      after,
      score: scored,
    }
    writeFileSync(
      join(this.options.out, "requests", `${system.name}-${seed}-${rung}.csv.gz`),
      compact(result),
    )
    appendFileSync(join(this.options.out, "runs.jsonl"), `${JSON.stringify(row, rounded)}\n`)
    this.rows.push(row)
    const { attained, total } = scored.requests
    const drift = (after.batchMs / before.batchMs - 1) * 100
    console.log(
      `${startedAt.slice(11, 19)} seed ${seed} rate ${row.ratePerSec} ${system.name}: ${((100 * attained) / total).toFixed(1)}% of ` +
        `${total}; reference ${before.batchMs.toFixed(0)} ms (${drift.toFixed(0)}%) ${scored.problems.join("; ")}`,
    )
  }

  private async reference(): Promise<Reference> {
    const server = this.servers.get("reference")!
    server.resume()
    const reference = await measureReference(server)
    server.pause()
    return reference
  }
}

/** One line a round: enough to recompute attainment by class, stage and size. */
function compact(result: ReplayResult): Buffer {
  const lines = [
    "request,class,round,promptTokens,outputTokens,thinkingTokens,scheduledMs,ttftMs,lastMs,worstLateMs,end,attained",
  ]
  for (const r of result.records) {
    const worst = Math.max(...r.stages.map((stage) => stage.worstLateMs ?? Number.NEGATIVE_INFINITY))
    const ms = (value: number | undefined) =>
      value === undefined || !Number.isFinite(value) ? "" : value.toFixed(0)
    lines.push(
      [
        ...[r.request, r.class, r.round, r.promptTokens, r.outputTokens, r.thinkingTokens, ms(r.scheduledMs)],
        ...[ms(r.tokenTimesMs[0]), ms(r.tokenTimesMs.at(-1)), ms(worst), r.end, r.attained ? 1 : 0],
      ].join(),
    )
  }
  return gzipSync(`${lines.join("\n")}\n`, { level: 9 })
}

/** Results are published: file names without this machine's folders. */
function withoutFolders(argument: string): string {
  return argument.replace(/(^|=)\/(?:[^/]+\/)*([^/]+)$/, "$1$2")
}

for (const signal of ["SIGINT", "SIGTERM"] as const) process.once(signal, () => process.exit(130))
try {
  await main()
} catch (error) {
  if (!(error instanceof UserError)) throw error
  console.error(`error: ${error.message}`)
  process.exitCode = 2
}
