/** `slos-serve model`: list, fetch and locate models, and generate tiny ones. */
import Table from "cli-table3"
import type { Command } from "commander"
import pc from "picocolors"
import { UserError } from "../errors.ts"
import { cacheFolder, modelFolder } from "../models/cache.ts"
import { WEIGHTS, type WeightType } from "../models/gguf-writer.ts"
import { cachedModels, KNOWN_MODELS, type Progress, resolveModel } from "../models/resolve.ts"
import { parametersOf, TINY_PRESETS, type TinyPreset, type TinySpec, tinyModel } from "../models/tiny.ts"

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
    .action(list)
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
    .option("--preset <name>", `start from: ${Object.keys(TINY_PRESETS).join(", ")}`, "tiny")
    .option("--layers <n>", "layers", wholeNumber)
    .option("--width <n>", "width of the residual stream", wholeNumber)
    .option("--feed-forward <n>", "width of the feed-forward layers", wholeNumber)
    .option("--heads <n>", "attention heads", wholeNumber)
    .option("--kv-heads <n>", "key/value heads", wholeNumber)
    .option("--vocab <n>", "vocabulary size", wholeNumber)
    .option("--context-tokens <n>", "trained context", wholeNumber)
    .option("--weights <type>", `weight type: ${Object.keys(WEIGHTS).join(", ")}`)
    .option("--seed <n>", "seed of the weights", wholeNumber)
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
  const table = new Table({ head: ["name", "what"], style: { head: [] } })
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

type TinyOptions = Partial<Record<Exclude<keyof TinySpec, "weights">, number>> & {
  preset: string
  weights?: string
  out?: string
} & JsonOption

async function generate(options: TinyOptions): Promise<void> {
  const { preset, out, json, ...changes } = options
  const base = TINY_PRESETS[preset as TinyPreset]
  if (!base) throw new UserError(`there is no preset ${preset}; use ${Object.keys(TINY_PRESETS).join(", ")}`)
  const spec = { ...base, ...changes } as TinySpec
  checkSpec(spec)
  const path = await tinyModel(spec, out ?? modelFolder(cacheFolder()), preset)
  print(json ? JSON.stringify({ path, parameters: parametersOf(spec), spec }) : path)
}

/** What llama.cpp would refuse, said before writing. */
function checkSpec(spec: TinySpec): void {
  const { block } = WEIGHTS[spec.weights as WeightType] ?? {}
  if (!block)
    throw new UserError(`there is no weight type ${spec.weights}; use ${Object.keys(WEIGHTS).join(", ")}`)
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
  if (spec.vocab < 261) throw refuse(`--vocab ${spec.vocab} must be at least 261`)
}

function wholeNumber(text: string): number {
  const value = Number(text)
  if (!Number.isSafeInteger(value) || value < 1) throw new UserError(`${text} is not a whole number above 0`)
  return value
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
