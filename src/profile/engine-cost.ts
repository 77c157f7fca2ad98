/** Step times of engines of others (vLLM): what is believed of one when it connects, and what is kept of what it taught, for the
 * next start. A file per model, device, parallelism, version and all else that step times depend on. */
import { readFileSync } from "node:fs"
import { rm } from "node:fs/promises"
import { basename, join } from "node:path"
import { z } from "zod"
import type { CostModel } from "../core/cost.ts"
import type { GraphMode } from "../core/graphs.ts"
import { type CapturedGraphs, type Coefficients, CPU_GUESS, GPU_GUESS, guessedModel } from "../fit/guess.ts"
import type { StepFitOptions } from "../fit/step-fit.ts"
import { cacheFolder } from "../models/cache.ts"
import { costModelSchema } from "./profile.ts"
import { nameOf, saveJson } from "./store.ts"
import { physicalFaults } from "./trust.ts"

/** What step times depend on, as the plug-in's `engine` message says it (wire/planner/messages.ts): pass that as it is. */
export interface EngineIdentity {
  model: string
  /** As torch names it; with "cpu" in it: a processor. */
  device: string
  dtype: string
  tensorParallel: number
  pipelineParallel: number
  vllmVersion: string
  /** Sizes of captured CUDA graphs, tokens; empty where there are none. */
  captureSizes: readonly number[]
  /** Graphs are switched off. */
  eager: boolean
  /** vLLM's `cudagraph_mode`. */
  graphMode: string
  /** Tokens that it drafts for each decode at most; a batch of decodes runs as one graph where each has as many. */
  maxDrafts: number
}

/** Raised when older files must not be used any more. */
const VERSION = 1

/** How vLLM runs decodes and mixed batches in each of its modes. */
const MODES: Readonly<Record<string, { decodes: GraphMode; mixed: GraphMode }>> = {
  FULL_AND_PIECEWISE: { decodes: "full", mixed: "piecewise" },
  FULL_DECODE_ONLY: { decodes: "full", mixed: "eager" },
  FULL: { decodes: "full", mixed: "full" },
  PIECEWISE: { decodes: "piecewise", mixed: "piecewise" },
}

const fileSchema = z.object({ version: z.literal(VERSION), key: z.string(), model: costModelSchema })

/** The graphs of such an engine; undefined where it has none. */
export function graphsOf({
  captureSizes,
  eager,
  graphMode,
  maxDrafts,
}: Pick<EngineIdentity, "captureSizes" | "eager" | "graphMode" | "maxDrafts">): CapturedGraphs | undefined {
  const mode = MODES[graphMode]
  if (eager || mode === undefined || captureSizes.length === 0) return undefined
  const sizes = [...new Set(captureSizes)].sort((a, b) => a - b)
  return { sizes, ...mode, decodeTokens: 1 + maxDrafts }
}

export function guessFor({ device }: Pick<EngineIdentity, "device">): Coefficients {
  return /cpu/i.test(device) ? CPU_GUESS : GPU_GUESS
}

/** What a `StepFit` of this engine begins with. `cacheDir` null: nothing is known. */
export function startOf(engine: EngineIdentity, cacheDir: string | null = cacheFolder()): StepFitOptions {
  const graphs = graphsOf(engine)
  const known = cacheDir === null ? null : knownCost(engine, cacheDir)
  return { guess: guessFor(engine), ...(graphs && { graphs }), ...(known && { known }) }
}

/** What is believed of its steps when it connects: what was learnt or profiled before, else a slow guess. */
export function startingCost(engine: EngineIdentity, cacheDir = cacheFolder()): CostModel {
  return knownCost(engine, cacheDir) ?? guessedModel(guessFor(engine), graphsOf(engine))
}

/** Keep what was learnt of it for the next start. */
export async function remember(
  engine: EngineIdentity,
  model: CostModel,
  cacheDir = cacheFolder(),
): Promise<void> {
  await save(keyOf(engine), model, cacheDir)
}

/** What was kept does not fit it (StepFit.stale). */
export async function forget(engine: EngineIdentity, cacheDir = cacheFolder()): Promise<void> {
  await rm(pathOf(keyOf(engine), cacheDir), { force: true })
}

/** Keep what `profile --vllm` found: from outside only the model and the version are seen. */
export async function rememberProfiled(
  engine: Pick<EngineIdentity, "model" | "vllmVersion">,
  model: CostModel,
  cacheDir = cacheFolder(),
): Promise<string> {
  const key = profiledKeyOf(engine)
  await save(key, model, cacheDir)
  return pathOf(key, cacheDir)
}

/** What this very engine taught; else what was profiled of its model, with its own graphs. */
function knownCost(engine: EngineIdentity, cacheDir: string): CostModel | null {
  const learnt = read(pathOf(keyOf(engine), cacheDir))
  if (learnt !== null) return learnt
  const profiled = read(pathOf(profiledKeyOf(engine), cacheDir))
  if (profiled === null) return null
  const { graphs: found, ...model } = profiled
  const captured = graphsOf(engine)
  const guess = guessFor(engine)
  const { piecewiseUs = guess.piecewise, eagerUs = guess.piecewise + guess.eager } = found ?? {}
  return captured === undefined ? model : { ...model, graphs: { ...captured, piecewiseUs, eagerUs } }
}

function keyOf(engine: EngineIdentity): string {
  const { model, device, dtype, tensorParallel, pipelineParallel, vllmVersion, eager, maxDrafts } = engine
  const parallel = [tensorParallel, pipelineParallel]
  return nameOf([
    VERSION,
    model,
    device,
    dtype,
    parallel,
    vllmVersion,
    eager,
    graphsOf(engine) ?? null,
    maxDrafts,
  ])
}

function profiledKeyOf({ model, vllmVersion }: Pick<EngineIdentity, "model" | "vllmVersion">): string {
  return nameOf([VERSION, "profiled", model, vllmVersion])
}

function pathOf(key: string, cacheDir: string): string {
  return join(cacheDir, "step-times", `${key}.json`)
}

async function save(key: string, model: CostModel, cacheDir: string): Promise<void> {
  await saveJson(pathOf(key, cacheDir), { version: VERSION, key, model })
}

/** null where there is none, or it cannot be read as one, or says what no engine does: it is learnt anew. */
function read(path: string): CostModel | null {
  try {
    const { data } = fileSchema.safeParse(JSON.parse(readFileSync(path, "utf8")))
    if (data === undefined || basename(path) !== `${data.key}.json`) return null
    const model = data.model as CostModel
    return physicalFaults(model).length === 0 ? model : null
  } catch {
    return null
  }
}
