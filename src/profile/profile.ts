/** Measures an engine's step times, fits the cost model, and keeps the result per model, options and machine. */
import { createHash } from "node:crypto"
import { mkdir, readFile, rename, writeFile } from "node:fs/promises"
import { arch, cpus } from "node:os"
import { dirname, join } from "node:path"
import { median } from "simple-statistics"
import { z } from "zod"
import { COST_FEATURES, type CostModel } from "../core/cost.ts"
import type { Engine } from "../engine/port.ts"
import { type FitQuality, fitModel, type Observation, qualityOf } from "./fit.ts"
import { type MeasureOptions, measure, type ProfileSample } from "./measure.ts"

/** Raised when older profiles must not be used any more. */
const VERSION = 2

export interface Profile extends FitQuality {
  version: typeof VERSION
  model: CostModel
  samples: ProfileSample[]
  quick: boolean
  /** Of the model's weights. */
  fingerprint: string
  modelName: string
  cpu: string
  createdAt: string
  /** Time the measurement took. */
  seconds: number
}

export async function profileEngine(engine: Engine, options: MeasureOptions): Promise<Profile> {
  const from = performance.now()
  const samples = await measure(engine, options)
  const points = mediansOf(samples)
  const model = fitModel(points, samples, engine.limits.unifiedKv)
  return {
    version: VERSION,
    model,
    ...qualityOf(model, points),
    residuals: qualityOf(model, samples).residuals,
    samples,
    quick: options.quick,
    fingerprint: engine.model.fingerprint,
    modelName: engine.model.name,
    cpu: cpuName(),
    createdAt: new Date().toISOString(),
    seconds: (performance.now() - from) / 1000,
  }
}

export interface CachedProfileOptions extends MeasureOptions {
  cacheDir: string
  threads: number
  /** Anything else that changes step times: KV type, library, … */
  key?: Readonly<Record<string, unknown>>
  /** Measure even where a profile is cached. */
  refresh?: boolean
}

/** The cached profile of this engine on this machine, else a new one. A thorough profile serves for a quick one. */
export async function loadOrProfile(engine: Engine, options: CachedProfileOptions): Promise<Profile> {
  const path = profilePath(engine, options)
  const cached = options.refresh ? null : await readProfile(path)
  if (cached && (options.quick || !cached.quick)) return cached
  const profile = await profileEngine(engine, options)
  await saveProfile(path, profile).catch((error: NodeJS.ErrnoException) => {
    options.onProgress?.(
      `the profile could not be cached in ${dirname(path)} (${error.code ?? error.message})`,
    )
  })
  return profile
}

/** Where a profile belongs: one file per model, engine options, threads and processor. */
export function profilePath(engine: Engine, options: CachedProfileOptions): string {
  const { limits, model } = engine
  const identity = [
    VERSION,
    model.fingerprint,
    limits,
    options.threads,
    { ...options.key, ...(options.maxDraft && { maxDraft: options.maxDraft }) },
    cpuName(),
    cpus().length,
  ]
  const digest = createHash("sha256").update(JSON.stringify(identity)).digest("hex").slice(0, 16)
  return join(options.cacheDir, "profiles", `${digest}.json`)
}

/** Repeats of one point of the grid as one observation: their median time, for the middle one's batch. */
function mediansOf(samples: readonly ProfileSample[]): Observation[] {
  const groups = Map.groupBy(samples, (sample) => sample.point)
  return [...groups.values()].map((group) => ({
    items: group[group.length >> 1]!.items,
    us: median(group.map((sample) => sample.us)),
  }))
}

const positive = z.number().finite().nonnegative()
export const costModelSchema = z.object({
  pieces: z.array(z.partialRecord(z.enum(COST_FEATURES), positive)).min(1),
  residualSigma: positive,
  fastPassTokens: positive,
  unifiedKv: z.boolean(),
})
const profileSchema = z.object({
  version: z.literal(VERSION),
  model: costModelSchema,
  r2: z.number(),
  mape: positive,
  residuals: z.object({ p5: positive, p50: positive, p95: positive, p99: positive }),
  samples: z.array(
    z.object({
      kind: z.enum(["decode", "prefill", "mixed", "short", "speculation"]),
      point: z.string(),
      items: z.array(
        z.object({ position: positive, tokens: positive, sample: z.boolean(), draft: positive }),
      ),
      us: positive,
    }),
  ),
  quick: z.boolean(),
  fingerprint: z.string(),
  modelName: z.string(),
  cpu: z.string(),
  createdAt: z.string(),
  seconds: positive,
})

/** null when there is none, or it cannot be read as one: it is measured again. */
async function readProfile(path: string): Promise<Profile | null> {
  try {
    const parsed = profileSchema.safeParse(JSON.parse(await readFile(path, "utf8")))
    return parsed.success ? (parsed.data as Profile) : null
  } catch {
    return null
  }
}

async function saveProfile(path: string, profile: Profile): Promise<void> {
  await mkdir(dirname(path), { recursive: true })
  const temporary = `${path}.${process.pid}.part`
  await writeFile(temporary, JSON.stringify(profile))
  await rename(temporary, path)
}

function cpuName(): string {
  return `${arch()} ${cpus()[0]?.model.trim() ?? "unknown"}`
}
