/** What `--speculate` brings to users and what it costs them, through the driver and the default policy: the same
 * answers with and without, in turn, for work that repeats and work that does not; and requests in time at a rate.
 * Writes raw rounds and a table to bench/results/speculation. */
import { mkdir, writeFile } from "node:fs/promises"
import { cpus } from "node:os"
import { join } from "node:path"
import { Command } from "commander"
import { median, quantile } from "simple-statistics"
import type { Slo } from "../../src/core/types.ts"
import { type Answers, rateOf, Served } from "./served.ts"
import { type Task, tasksFor } from "./tasks.ts"

/** A model and a drafter; then minutes and numbers of requests at once, or a rate per second and seconds. */
interface Case {
  model: string
  speculate: string
  amount: number
  list: number[]
}

interface Round {
  case: string
  task: string
  repeats: boolean
  sequences: number
  round: number
  /** Which of the two went first. */
  first: "off" | "on"
  off: Answers
  on: Answers
}

interface Load {
  case: string
  rate: number
  seed: number
  off: { requests: number; attained: number }
  on: { requests: number; attained: number }
}

/** Objectives of the open-loop runs: a few times what a lone request gets. */
const SLO: Record<string, Slo> = {
  real: { ttftUs: 4e6, ttftSlowdown: 0, tpotUs: 200_000, thinkingTpotUs: 200_000 },
  generated: { ttftUs: 5e5, ttftSlowdown: 0, tpotUs: 30_000, thinkingTpotUs: 30_000 },
}

interface Options {
  case: string[]
  output: string
  context: string
  prompts: string
  threads: string
  maxSpeculation: string
  load: string[]
  loadSeeds: string
  out: string
}

async function main(): Promise<void> {
  const options = new Command("bench/speculation/paired.ts")
    .option(
      "--case <model:drafter:minutes:sequences...>",
      "what is compared, for how long, how many at once",
      [
        "smollm2-135m:lookup:5:1+4+8",
        "tiny-target:lookup:0.5:1+4+8+16",
        "tiny-target:draft=tiny-draft:0.5:1+4+8+16",
      ],
    )
    .option("--output <tokens>", "of every answer", "48")
    .option("--context <tokens>", "of every prompt, about", "160")
    .option("--prompts <n>", "different ones a task", "3")
    .option("--threads <n>", "", "1")
    .option("--max-speculation <n>", "as for serve", "8")
    .option(
      "--load <model:drafter:rate:seconds...>",
      "requests in time at requests/s of such a case; or none",
      [
        "smollm2-135m:lookup:0.4:70",
        "tiny-target:lookup:6:15",
        "tiny-target:lookup:9:15",
        "tiny-target:draft=tiny-draft:6:15",
      ],
    )
    .option("--load-seeds <n>", "", "1")
    .option("--out <folder>", "", "bench/results/speculation")
    .parse()
    .opts<Options>()
  await mkdir(options.out, { recursive: true })
  const from = performance.now()
  const say = (line: string) =>
    process.stdout.write(`${((performance.now() - from) / 60_000).toFixed(1).padStart(5)} min  ${line}\n`)
  const rounds: Round[] = []
  const loads: Load[] = []
  const models: object[] = []
  for (const text of options.case) {
    const { model, speculate, amount: minutes, list } = caseOf(text)
    const pair = await Pair.open(model, speculate, Math.max(...list), options)
    models.push(pair.about)
    say(`${model} with ${speculate}: loaded, profiled, warm`)
    rounds.push(...(await pair.rounds(minutes, list, say)))
    for (const load of options.load.map(caseOf))
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
    const [context, output, prompts] = [options.context, options.output, options.prompts].map(Number) as [
      number,
      number,
      number,
    ]
    const open = (drafter: string) =>
      Served.open({
        ...{ model, speculate: drafter, threads: Number(options.threads), apps: TASKS },
        // Room for the prompts' cached KV beside those who decode.
        maxSequences: most + TASKS * prompts,
        contextTokens: context + 2 * output + 64,
        maxSpeculation: Number(options.maxSpeculation),
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

  /** Rounds of every number of requests at once until the time is up; each number gets the same time. */
  async rounds(minutes: number, atOnce: readonly number[], say: (line: string) => void): Promise<Round[]> {
    const rounds: Round[] = []
    const spent = atOnce.map((sequences) => ({ sequences, ms: 0, round: 0 }))
    const until = performance.now() + minutes * 60_000
    for (;;) {
      const next = spent.reduce((a, b) => (b.ms < a.ms ? b : a))
      if (performance.now() > until && next.round > 0) return rounds
      const from = performance.now()
      for (const app of this.#tasks.keys()) rounds.push(await this.#round(app, next.sequences, next.round))
      next.ms += performance.now() - from
      say(`${this.#name}: ${next.sequences} at once, round ${++next.round}, ${(next.ms / 1000).toFixed(0)} s`)
    }
  }

  /** Who goes first alternates, against drift. */
  async #round(app: number, sequences: number, round: number): Promise<Round> {
    const task = this.#tasks[app]!
    const run = (served: Served) => served.answers(task, app, sequences, Number(this.#options.output), round)
    const first = (round + app) % 2 === 0 ? "off" : "on"
    const about = {
      case: this.#name,
      task: task.name,
      repeats: task.repeats,
      sequences,
      round,
      first,
    } as const
    if (first === "off") {
      const off = await run(this.#off)
      return { ...about, off, on: await run(this.#on) }
    }
    const on = await run(this.#on)
    return { ...about, off: await run(this.#off), on }
  }

  async loads(rate: number, seconds: number, say: (line: string) => void): Promise<Load[]> {
    const { output, loadSeeds } = this.#options
    const tasks = this.#tasks.filter(({ repeats }) => repeats)
    const slo = SLO[this.#off.engine.model.random ? "generated" : "real"]!
    const found: Load[] = []
    for (let seed = 1; seed <= Number(loadSeeds); seed++) {
      const run = (served: Served) => served.openLoop(tasks, rate, seconds, Number(output), slo, seed)
      const [off, on] = [await run(this.#off), await run(this.#on)]
      say(
        `${this.#name}: ${rate}/s, in time ${off.attained} and with drafts ${on.attained} of ${on.requests}`,
      )
      found.push({ case: this.#name, rate, seed, off, on })
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

function report(rounds: readonly Round[], loads: readonly Load[]): string {
  const lines = [
    "# Speculation, paired",
    "",
    "Tokens/s of a request (median) without and with; the ratio of each round: median, quartiles, number of rounds.",
    "",
    "| model, drafter | task | at once | without | with | with/without | quartiles | by CPU time | rounds | accepted of drafted | drafted a step and request |",
    "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
  ]
  const groups = Map.groupBy(rounds, (r) => [r.case, r.task, r.sequences].join("|"))
  for (const group of groups.values()) {
    const ratios = group.map((r) => rateOf(r.on) / rateOf(r.off))
    const total = (key: "drafted" | "accepted" | "turns") => group.reduce((sum, r) => sum + r.on[key], 0)
    const { case: name, task, sequences, repeats } = group[0]!
    lines.push(
      `| ${[
        ...[name, repeats ? task : `${task} (does not repeat)`, sequences],
        ...[median(group.map((r) => rateOf(r.off))), median(group.map((r) => rateOf(r.on)))].map((x) =>
          x.toFixed(1),
        ),
        `**${median(ratios).toFixed(2)}×**`,
        `${quantile(ratios, 0.25).toFixed(2)}–${quantile(ratios, 0.75).toFixed(2)}`,
        `${median(group.map((r) => r.off.cpuSeconds / r.on.cpuSeconds)).toFixed(2)}×`,
        ratios.length,
        total("drafted") === 0 ? "none drafted" : (total("accepted") / total("drafted")).toFixed(2),
        (total("drafted") / total("turns")).toFixed(2),
      ].join(" | ")} |`,
    )
  }
  if (loads.length > 0) {
    lines.push(
      "",
      "Requests in time at a rate (Poisson arrivals, repeating tasks, prompts computed anew):",
      "",
    )
    lines.push("| model, drafter | requests/s | without | with |", "| --- | --- | --- | --- |")
    for (const { case: name, rate, off, on } of loads)
      lines.push(
        `| ${name} | ${rate} | ${[off, on].map((x) => `${((100 * x.attained) / x.requests).toFixed(1)}% of ${x.requests}`).join(" | ")} |`,
      )
  }
  return `${lines.join("\n")}\n`
}

function caseOf(text: string): Case {
  const [model = "", speculate = "", amount, list = ""] = text.split(":")
  return { model, speculate, amount: Number(amount), list: list.split("+").map(Number) }
}

function rounded(_key: string, value: unknown): unknown {
  return typeof value === "number" ? Number(value.toPrecision(6)) : value
}

await main()
