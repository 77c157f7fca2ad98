/** `slos-serve model`: list, fetch and locate models, and generate tiny ones. */
import Table from "cli-table3"
import { type Command, Option } from "commander"
import pc from "picocolors"
import { UserError } from "../errors.ts"
import { cacheFolder, modelFolder } from "../models/cache.ts"
import { WEIGHTS } from "../models/gguf-writer.ts"
import { cachedModels, KNOWN_MODELS, type Progress, resolveModel } from "../models/resolve.ts"
import { parametersOf, TINY_PRESETS, type TinyPreset, type TinySpec, tinyModel } from "../models/tiny.ts"
import { wholeNumber } from "./numbers.ts"

const EXAMPLES = `
Examples:
  slos-serve model list
  slos-serve model fetch hf:owner/repo/file.gguf
  slos-serve model tiny --preset tiny-bench --layers 2 --out .`

export function register(program: Command): void {
  const model = program
    .command("model")
    .description("list, fetch and generate models")
    .addHelpText("after", EXAMPLES)
  model
    .command("list", { isDefault: true })
    .description("models known by name, and those in the cache")
    .option("--json", "print JSON")
    .allowExcessArguments()
    .action((options: JsonOption, { args: [unknown] }: Command) => {
      if (unknown !== undefined)
        throw new UserError(`unknown command 'model ${unknown}'; known: list, fetch, path, tiny`)
      return list(options)
    })
  model
    .command("fetch")
    .argument("<name>", "smollm2-135m, tiny, hf:owner/repo/file.gguf[@revision] or a path")
    .description("get a model into the cache")
    .option("--json", "print JSON")
    .action((name: string, options: JsonOption) => fetchModel(name, options, false))
  model
    .command("path")
    .argument("<name>", "as for fetch")
    .description("print where a model is on this machine, without the network")
    .option("--json", "print JSON")
    .action((name: string, options: JsonOption) => fetchModel(name, options, true))
  model
    .command("tiny")
    .description("generate a model with random weights")
    .addOption(new Option("--preset <name>", "start from").choices(Object.keys(TINY_PRESETS)).default("tiny"))
    .option("--layers <n>", "layers", wholeNumber(1, 1024))
    .option("--width <n>", "width of the residual stream", wholeNumber(1, 65_536))
    .option("--feed-forward <n>", "width of the feed-forward layers", wholeNumber(1, 262_144))
    .option("--heads <n>", "attention heads", wholeNumber(1, 1024))
    .option("--kv-heads <n>", "key/value heads", wholeNumber(1, 1024))
    .option("--vocab <n>", "vocabulary size", wholeNumber(261, 1_000_000))
    .option("--context-tokens <n>", "trained context", wholeNumber(1, 1 << 20))
    .addOption(new Option("--weights <type>", "weight type").choices(Object.keys(WEIGHTS)))
    .option("--seed <n>", "seed of the weights", wholeNumber(0, 2 ** 31))
    .option("--out <folder>", "folder to write to (default: the cache)")
    .option("--json", "print JSON")
    .action(generate)
}

interface JsonOption {
  json?: boolean
}

async function list(options: JsonOption): Promise<void> {
  const cacheDir = cacheFolder()
  const cached = await cachedModels(cacheDir)
  const known = [
    ...KNOWN_MODELS.map(({ name, description }) => ({ name, description })),
    ...Object.entries(TINY_PRESETS).map(([name, spec]) => ({
      name,
      description: `generated, ${(parametersOf(spec) / 1e6).toFixed(1)}M random weights, ${spec.weights}`,
    })),
  ]
  if (options.json) {
    print(JSON.stringify({ folder: modelFolder(cacheDir), known, cached }, null, 2))
    return
  }
  const table = new Table({ head: ["name", "what"], style: { head: [], border: [] } })
  for (const { name, description } of known) table.push([name, description])
  print(table.toString())
  print(`${pc.bold("cached")} in ${modelFolder(cacheDir)}${cached.length === 0 ? ": none" : ""}`)
  for (const { path, bytes } of cached) print(`  ${path}  ${mebibytes(bytes)}`)
}

async function fetchModel(name: string, options: JsonOption, offline: boolean): Promise<void> {
  const found = await resolveModel(name, { offline, fallback: false, onProgress: progressLine() })
  if (process.stderr.isTTY) process.stderr.write("\n")
  print(options.json ? JSON.stringify(found) : found.path)
}

type TinyOptions = Partial<TinySpec> & { preset: TinyPreset; out?: string } & JsonOption

async function generate(options: TinyOptions): Promise<void> {
  const { preset, out, json, ...changes } = options
  const spec: TinySpec = { ...TINY_PRESETS[preset], ...changes }
  checkSpec(spec)
  const path = await tinyModel(spec, out ?? modelFolder(cacheFolder()), preset)
  print(json ? JSON.stringify({ path, parameters: parametersOf(spec), spec }) : path)
}

/** What llama.cpp would refuse, said before writing. */
function checkSpec(spec: TinySpec): void {
  const { block } = WEIGHTS[spec.weights]
  const refuse = (why: string) => new UserError(`no such model can be: ${why}`)
  if (spec.width % spec.heads !== 0 || (spec.width / spec.heads) % 2 !== 0) {
    throw refuse(`--width ${spec.width} must be an even multiple of --heads ${spec.heads}`)
  }
  if (spec.heads % spec.kvHeads !== 0) {
    throw refuse(`--heads ${spec.heads} must be a multiple of --kv-heads ${spec.kvHeads}`)
  }
  if (spec.width % block !== 0 || spec.feedForward % block !== 0) {
    throw refuse(`--width and --feed-forward must be multiples of ${block} for ${spec.weights}`)
  }
}

/** One line on a terminal that is written over; nothing when output is a file. */
export function progressLine(): ((progress: Progress) => void) | undefined {
  if (!process.stderr.isTTY) return undefined
  return ({ message, doneBytes, totalBytes }) => {
    const share = doneBytes && totalBytes ? ` ${Math.floor((100 * doneBytes) / totalBytes)}%` : ""
    const size = totalBytes ? ` of ${mebibytes(totalBytes)}` : ""
    process.stderr.write(`\r\u001b[2K${message}${share}${size}`)
  }
}

function mebibytes(bytes: number): string {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`
}

function print(line: string): void {
  process.stdout.write(`${line}\n`)
}
