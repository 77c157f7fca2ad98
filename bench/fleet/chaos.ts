/** Load on real processes while faults happen to them: no token may be lost or repeated, no stream may hang. Prints tables and
 * writes them, with all figures, to bench/results/fleet/chaos-<engine>-<stage>.{json,md}; a stage that is there already with the
 * same options is not run again. Exit code 1 when a transcript differed or a stream hung. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from "node:fs"
import { loadavg, tmpdir } from "node:os"
import { join } from "node:path"
import { Command, Option } from "commander"
import { port, wholeNumber } from "../../src/cli/numbers.ts"
import { type FaultKind, planFaults } from "./chaos/faults.ts"
import { type Findings, findingsOf, tableOf } from "./chaos/findings.ts"
import { play } from "./chaos/play.ts"
import { type StageOptions, wireStage, workersStage } from "./chaos/stage.ts"
import { ASKED, exactOf, recorded, type Transcript } from "./chaos/transcripts.ts"

const STAGES = { workers: workersStage, wire: wireStage } as const
type StageName = keyof typeof STAGES
const STAGE_WORDS = {
  workers: "One server with worker processes",
  wire: "Two gateways before servers over TCP",
}

interface Options {
  engine: "fake" | "llama"
  model: string
  minutes: number
  stages: StageName[]
  replicas: number
  clients: number
  gapS: number
  seed: number
  kinds?: FaultKind[]
  port: number
  out: string
  again?: boolean
}

interface Result {
  options: object
  command: string
  loadAverage: number[]
  prompts: number
  /** Prompts that were left out: their answer depends on how it is computed. */
  inexact: number
  findings: Findings
}

const list = (text: string) => text.split(",")

async function main(): Promise<void> {
  const options = new Command("bench/fleet/chaos.ts")
    .addOption(new Option("--engine <name>", "of the replicas").choices(["fake", "llama"]).default("fake"))
    .option("--model <name>", "with --engine llama", "tiny-f32")
    .option("--minutes <n>", "of each stage", Number, 10)
    .option("--stages <names>", "workers, wire", list, Object.keys(STAGES))
    .option("--replicas <n>", "of each stage", wholeNumber(2, 16), 3)
    .option("--clients <n>", "streams at a time", wholeNumber(1, 1000), 16)
    .option("--gap-s <n>", "mean time from one fault to the next", Number, 8)
    .option("--seed <n>", "of faults and prompts", wholeNumber(0, 2 ** 31), 1)
    .option("--kinds <names>", "of faults (default: all that the stage knows)", list)
    .option("--port <n>", "first of some", port, 18510)
    .option("--out <folder>", "for results", "bench/results/fleet")
    .option("--again", "also what is there already")
    .parse()
    .opts<Options>()
  mkdirSync(options.out, { recursive: true })
  for (const name of options.stages) {
    const { findings, command } = await resultOf(name, options)
    const { differs, hung } = findings.verdicts
    console.log(tableOf(STAGE_WORDS[name], findings))
    if (differs + hung === 0) continue
    console.log(JSON.stringify(findings.differing, null, 2))
    console.log(`${differs} transcripts differed, ${hung} streams hung; replay: ${command} --again`)
    process.exitCode = 1
  }
}

async function resultOf(name: StageName, options: Options): Promise<Result> {
  const { again, port: _, out, stages: __, ...rest } = options
  const path = join(out, `chaos-${options.engine}-${name}`)
  if (!again && existsSync(`${path}.json`)) {
    const found = JSON.parse(readFileSync(`${path}.json`, "utf8")) as Result
    if (JSON.stringify(found.options) === JSON.stringify(rest)) return found
  }
  const result = await once(name, options, rest)
  writeFileSync(`${path}.json`, `${JSON.stringify(result, null, 2)}\n`)
  writeFileSync(`${path}.md`, tableOf(STAGE_WORDS[name], result.findings))
  return result
}

async function once(name: StageName, options: Options, asked: object): Promise<Result> {
  const { engine, model, minutes, seed, clients, gapS } = options
  const prompts = engine === "fake" ? ASKED : await exactOf(model, ASKED)
  const setup: StageOptions = { ...options, logFolder: tmpdir() }
  const stage = await STAGES[name](setup)
  try {
    const transcripts = await recorded(stage.gateways[0]!.url, prompts)
    console.error(
      `${name}: ${transcripts.length} transcripts of ${ASKED.length} prompts; logs in ${tmpdir()}`,
    )
    const lengthMs = minutes * 60_000
    const kinds = stage.kinds.filter((kind) => options.kinds?.includes(kind) ?? true)
    const faults = planFaults(seed, { lengthMs, gapMs: gapS * 1000, kinds })
    const tell = (message: string) => console.error(`${name}: ${message}`)
    const played = await play(stage, faults, { seed, clients, lengthMs, transcripts, tell })
    return {
      ...{ options: asked, command: commandOf(name, options), loadAverage: loadavg() },
      ...{ prompts: prompts.length, inexact: ASKED.length - prompts.length },
      findings: findingsOf(played, textsOf(transcripts)),
    }
  } finally {
    await stage.close()
  }
}

const textsOf = (transcripts: readonly Transcript[]) =>
  new Map(transcripts.map(({ prompt, text }) => [prompt, text]))

function commandOf(name: StageName, options: Options): string {
  const { engine, minutes, replicas, clients, gapS, seed, kinds } = options
  const said = {
    engine,
    minutes,
    stages: name,
    replicas,
    clients,
    "gap-s": gapS,
    seed,
    kinds: kinds?.join(","),
  }
  const words = Object.entries(said).flatMap(([key, value]) =>
    value === undefined ? [] : [`--${key} ${value}`],
  )
  return `node bench/fleet/chaos.ts ${words.join(" ")}`
}

await main()
process.exit()
