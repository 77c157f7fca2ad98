/** What `--speculate` brings to users and what it costs them, through the driver and the default policy: the same
 * answers without, with, with and without drafts, for work that repeats and work that does not; and requests in time
 * at a load. Writes raw rounds and a table to bench/results/speculation. */

import { mkdir, writeFile } from "node:fs/promises"
import { cpus } from "node:os"
import { join } from "node:path"
import { Command } from "commander"
import { wholeNumber } from "../../src/cli/numbers.ts"
import type { Slo } from "../../src/core/protocol.ts"
import { Random } from "../../src/random.ts"
import { rounded } from "../rounded.ts"
import { type Load, type Round, report } from "./report.ts"
import { Served } from "./served.ts"
import { type Task, tasksFor } from "./tasks.ts"

/** A model and a drafter (off: nothing is compared with nothing); then minutes and numbers of requests at once, or the
 * share of the time that the engine is to be busy, and seconds. */
interface Case {
  text: string
  model: string
  speculate: string
  amount: number
  list: number[]
}

/** Rounds of every number at once before the time may be up: an interval of a median takes six. */
const LEAST_ROUNDS = 6
/** Requests at once that tell how long one keeps the engine busy. */
const TRIAL = 6

/** Objectives of the open-loop runs: a few times what a lone request gets. */
const SLO: Record<string, Slo> = {
  real: { ttftUs: 4e6, ttftSlowdown: 0, tpotUs: 200_000, thinkingTpotUs: 200_000, maxGapUs: Infinity },
  generated: { ttftUs: 5e5, ttftSlowdown: 0, tpotUs: 30_000, thinkingTpotUs: 30_000, maxGapUs: Infinity },
}

interface Options {
  case: string[]
  output: number
  context: number
  prompts: number
  threads: number
  maxSpeculation: number
  load: string[]
  loadSeeds: number
  out: string
}

async function main(): Promise<void> {
  const program = new Command("bench/speculation/paired.ts")
    .option(
      "--case <model:drafter:minutes:sequences...>",
      "what is compared, for how long, how many at once",
      [
        "smollm2-135m:lookup:8.5:1+2",
        "tiny-target:lookup:1.7:1+4+8",
        "tiny-target:draft=tiny-draft:0.8:1+4",
        "tiny-target:off:0.6:1+4",
      ],
    )
    .option("--output <tokens>", "of every answer", wholeNumber(1, 1 << 16), 80)
    .option("--context <tokens>", "of every prompt, about", wholeNumber(1, 1 << 16), 160)
    .option("--prompts <n>", "different ones a task", wholeNumber(1, 100), 3)
    .option("--threads <n>", "", wholeNumber(1, 512), 1)
    .option("--max-speculation <n>", "as for serve", wholeNumber(1, 64), 8)
    .option(
      "--load <model:drafter:busy:seconds...>",
      "requests in time where the engine of such a case is busy for this share of the time without drafts; or none",
      ["smollm2-135m:lookup:0.8:60", "tiny-target:lookup:0.8:15", "tiny-target:draft=tiny-draft:0.8:15"],
    )
    .option("--load-seeds <n>", "", wholeNumber(1, 1000), 1)
    .option("--out <folder>", "", "bench/results/speculation")
  const options = program.parse().opts<Options>()
  const cases = options.case.map(caseOf)
  const loadCases = options.load.filter((text) => text !== "none").map(caseOf)
  const wrong = [...cases, ...loadCases].find(({ amount, list }) => !(Math.min(amount, ...list) > 0))
  if (wrong) program.error(`error: '${wrong.text}' is not as --help shows cases and loads`, { exitCode: 2 })
  await mkdir(options.out, { recursive: true })
  const from = performance.now()
  const say = (line: string) =>
    process.stdout.write(`${((performance.now() - from) / 60_000).toFixed(1).padStart(5)} min  ${line}\n`)
  const rounds: Round[] = []
  const loads: Load[] = []
  const models: object[] = []
  for (const { model, speculate, amount: minutes, list } of cases) {
    const pair = await Pair.open(model, speculate, Math.max(...list), options)
    models.push(pair.about)
    say(`${model} with ${speculate}: loaded, profiled, warm`)
    rounds.push(...(await pair.rounds(minutes, list, say)))
    for (const load of loadCases)
      if (load.model === model && load.speculate === speculate)
        loads.push(...(await pair.loads(load.amount, load.list[0]!, say)))
    await pair.close()
    // Where it was written is of no interest to readers.
    const { out: _, ...asked } = options
    const about = { date: new Date().toISOString(), cpu: cpus()[0]?.model, options: asked, models }
    await writeFile(
      join(options.out, "paired.json"),
      `${JSON.stringify({ about, rounds, loads }, rounded, 1)}\n`,
    )
    await writeFile(join(options.out, "paired.md"), report(rounds, loads))
  }
  process.stdout.write(report(rounds, loads))
}

/** The same model with and without, each in an engine of its own. */
class Pair {
  readonly #name: string
  readonly #options: Options
  readonly #off: Served
  readonly #on: Served
  readonly #tasks: readonly Task[]

  private constructor(name: string, options: Options, off: Served, on: Served, tasks: readonly Task[]) {
    this.#name = name
    this.#options = options
    this.#off = off
    this.#on = on
    this.#tasks = tasks
  }

  static async open(model: string, speculate: string, most: number, options: Options): Promise<Pair> {
    const { context, output, prompts } = options
    const open = (drafter: string) =>
      Served.open({
        ...{ model, speculate: drafter, threads: options.threads, apps: TASKS },
        // Room for the prompts' cached KV beside those that decode.
        maxSequences: most + TASKS * prompts,
        contextTokens: context + 2 * output + 64,
        maxSpeculation: options.maxSpeculation,
      })
    const off = await open("off")
    const on = await open(speculate)
    const pair = new Pair(
      `${model}, ${speculate}`,
      options,
      off,
      on,
      await tasksFor(off.engine, context, prompts),
    )
    await pair.#warmUp(prompts)
    return pair
  }

  get about(): object {
    const quality = ({ profile }: Served) => {
      const { r2, mape, model } = profile
      return { r2, mape, model }
    }
    return { case: this.#name, off: quality(this.#off), on: quality(this.#on) }
  }

  /** Every prompt once, so that it is cached. Not counted. */
  async #warmUp(prompts: number): Promise<void> {
    for (const served of [this.#off, this.#on])
      for (const [app, task] of this.#tasks.entries()) await served.answers(task, app, prompts, 2, 0)
  }

  /** Rounds of every number of requests at once, in turn, until the time is up; at least enough for an interval. */
  async rounds(minutes: number, atOnce: readonly number[], say: (line: string) => void): Promise<Round[]> {
    const rounds: Round[] = []
    const spent = atOnce.map((sequences) => ({ sequences, ms: 0, round: 0 }))
    const until = performance.now() + minutes * 60_000
    for (;;) {
      const next = spent.reduce((a, b) => (b.round < a.round ? b : a))
      if (performance.now() > until && next.round >= LEAST_ROUNDS) return rounds
      const from = performance.now()
      for (const app of this.#tasks.keys()) rounds.push(await this.#round(app, next.sequences, next.round))
      next.ms += performance.now() - from
      say(`${this.#name}: ${next.sequences} at once, round ${++next.round}, ${(next.ms / 1000).toFixed(0)} s`)
    }
  }

  /** Without, with, with, without, or the other way round: drift that is even over a round cancels out. */
  async #round(app: number, sequences: number, round: number): Promise<Round> {
    const task = this.#tasks[app]!
    const run = (served: Served) => served.answers(task, app, sequences, this.#options.output, round)
    const first = (round + app) % 2 === 0 ? "off" : "on"
    const [outer, inner] = first === "off" ? [this.#off, this.#on] : [this.#on, this.#off]
    const a = await run(outer)
    const b = [await run(inner), await run(inner)] as Round["on"]
    const ends = [a, await run(outer)] as Round["off"]
    const { name, repeats } = task
    const [off, on] = first === "off" ? [ends, b] : [b, ends]
    return { case: this.#name, task: name, repeats, sequences, round, first, off, on }
  }

  /** The same Poisson arrivals without and with drafts, at a rate that keeps the engine busy for `share` of the time
   * without. */
  async loads(share: number, seconds: number, say: (line: string) => void): Promise<Load[]> {
    const { output, loadSeeds } = this.#options
    const tasks = this.#tasks.filter(({ repeats }) => repeats)
    const slo = SLO[this.#off.engine.model.random ? "generated" : "real"]!
    const run = (served: Served, arrivals: readonly number[], seed: number) =>
      served.openLoop(tasks, arrivals, output, slo, seed)
    const trial = await run(this.#off, Array<number>(TRIAL).fill(0), 0)
    const ratePerSec = (share * TRIAL) / trial.busySeconds
    const found: Load[] = []
    for (let seed = 1; seed <= loadSeeds; seed++) {
      const arrivals = poisson(ratePerSec, seconds, seed)
      const off = await run(this.#off, arrivals, seed)
      const on = await run(this.#on, arrivals, seed)
      const busy = ({ busySeconds, seconds }: Load["off"]) =>
        `${((100 * busySeconds) / seconds).toFixed(0)}% busy`
      say(`${this.#name}: ${ratePerSec.toFixed(2)}/s, ${busy(off)}, with drafts ${busy(on)}`)
      found.push({ case: this.#name, ratePerSec, seed, off, on })
    }
    return found
  }

  async close(): Promise<void> {
    await this.#off.close()
    await this.#on.close()
  }
}

/** Most tasks of a model (tasks.ts). */
const TASKS = 3

function poisson(ratePerSec: number, seconds: number, seed: number): number[] {
  const random = new Random("arrivals", seed)
  const arrivals: number[] = []
  for (let at = random.exponential(1 / ratePerSec); at < seconds; at += random.exponential(1 / ratePerSec))
    arrivals.push(at)
  return arrivals
}

function caseOf(text: string): Case {
  const [model = "", speculate = "", amount, list = ""] = text.split(":")
  return { text, model, speculate, amount: Number(amount), list: list.split("+").map(Number) }
}

await main()
