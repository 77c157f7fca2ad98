/** Measures an engine's step times, fits the cost model, and keeps the result per model, options and machine. */
import { readFile } from "node:fs/promises"
import { arch, cpus } from "node:os"
import { basename, dirname, join } from "node:path"
import { z } from "zod"
import { COST_FEATURES, type CostModel } from "../core/cost.ts"
import { GRAPH_MODES } from "../core/graphs.ts"
import type { Engine } from "../engine/port.ts"
import { checkProfile } from "./check.ts"
import { type FitQuality, fitModel, type Observation, qualityOf } from "./fit.ts"
import { type MeasureOptions, measure, type ProfileSample } from "./measure.ts"
import { typicalUs } from "./repeats.ts"
import { nameOf, saveJson } from "./store.ts"
import { faultsOf, percent, summary } from "./trust.ts"

/** Raised when older profiles must not be used any more. */
const VERSION = 3
/** A measurement that gives a poor fit is repeated, and the repeats of a batch are put together. */
const MOST_TRIES = 2

export interface Profile extends FitQuality {
  version: typeof VERSION
  model: CostModel
  samples: ProfileSample[]
  quick: boolean
  /** Why it deserves no trust; empty where it does. A profile with faults is used until the next start, no longer. */
  faults: string[]
  /** Of what it was taken: see `profilePath`. */
  key: string
  /** Of the model's weights. */
  fingerprint: string
  modelName: string
  cpu: string
  createdAt: string
  /** Time the measurement took. */
  seconds: number
}

/** Measures and fits, again while the fit is poor. */
export async function profileEngine(engine: Engine, options: MeasureOptions): Promise<Profile> {
  const from = performance.now()
  const samples: ProfileSample[] = []
  for (let tries = 1; ; tries++) {
    samples.push(...(await measure(engine, { ...options, seed: (options.seed ?? 1) + tries - 1 })))
    const profile = fitted(engine, options, samples, (performance.now() - from) / 1000)
    if (profile.faults.length === 0 || tries === MOST_TRIES) return profile
    options.onProgress?.(`the fit is poor (${profile.faults[0]}): measuring again`)
  }
}

function fitted(engine: Engine, options: MeasureOptions, samples: ProfileSample[], seconds: number): Profile {
  const points = pointsOf(samples)
  const model = fitModel(points, samples, engine.limits.unifiedKv)
  const quality = qualityOf(model, points)
  return {
    version: VERSION,
    model,
    ...quality,
    residuals: qualityOf(model, samples).residuals,
    samples,
    quick: options.quick,
    faults: faultsOf({ model, ...quality }),
    key: "",
    fingerprint: engine.model.fingerprint,
    modelName: engine.model.name,
    cpu: cpuName(),
    createdAt: new Date().toISOString(),
    seconds,
  }
}

export interface CachedProfileOptions extends MeasureOptions {
  cacheDir: string
  threads: number
  /** Anything else that changes step times: KV type, library, … */
  key?: Readonly<Record<string, unknown>>
  /** Measure even where a profile is cached. */
  refresh?: boolean
  /** Told what was done, and what the reader should know of it. */
  onNote?: (note: string, level: "info" | "warning") => void
}

/** The cached profile of this engine on this machine where it can be trusted, else a new one. A thorough profile serves for
 * a quick one. One whose fit is poor is kept only for want of a better one: it is measured again at the next start. */
export async function loadOrProfile(engine: Engine, options: CachedProfileOptions): Promise<Profile> {
  const path = profilePath(engine, options)
  const cached = options.refresh ? null : await readProfile(path)
  const usable = cached && (options.quick || !cached.quick) ? cached : null
  if (usable !== null && (await isGood(usable, engine, options))) return usable
  const measured = { ...(await profileEngine(engine, options)), key: keyOf(engine, options) }
  const better = usable !== null && usable.faults.length > 0 && usable.mape < measured.mape
  const profile = measured.faults.length > 0 && better ? usable : measured
  tell(profile, options)
  // A good profile that the machine does not fit today may fit it tomorrow; a poor one does not replace it.
  const replaces =
    profile === measured && (measured.faults.length === 0 || !cached || cached.faults.length > 0)
  if (replaces) await saveJson(path, profile).catch((error) => cannotSave(path, error, options))
  return profile
}

/** A cached profile is good when its fit is and a few steps take what it says. */
async function isGood(cached: Profile, engine: Engine, options: CachedProfileOptions): Promise<boolean> {
  const note = options.onNote ?? (() => {})
  const day = cached.createdAt.slice(0, 10)
  if (cached.faults.length > 0) {
    note(`the profile of ${day} is poor (${cached.faults.join("; ")}): measuring again`, "warning")
    return false
  }
  const { ratio, passed } = await checkProfile(engine, cached.model, options.waits)
  if (passed) note(`${summary(cached)} (of ${day}; checked: steps take ${percent(ratio)} of it)`, "info")
  else
    note(
      `the profile of ${day} does not fit this machine now (steps take ${percent(ratio)} of what it says): measuring again`,
      "warning",
    )
  return passed
}

function tell(profile: Profile, { onNote }: CachedProfileOptions): void {
  onNote?.(`${summary(profile)} (measured in ${profile.seconds.toFixed(0)} s)`, "info")
  if (profile.faults.length > 0)
    onNote?.(
      `this profile is poor: ${profile.faults.join("; ")}. SLOs are planned on guesses until steps have corrected it; it is ` +
        "measured again at the next start, which should find the machine idle",
      "warning",
    )
}

function cannotSave(path: string, error: NodeJS.ErrnoException, { onNote }: CachedProfileOptions): void {
  onNote?.(`the profile could not be cached in ${dirname(path)} (${error.code ?? error.message})`, "warning")
}

/** Where a profile belongs: one file per model, engine options, threads and processor. */
export function profilePath(engine: Engine, options: CachedProfileOptions): string {
  return join(options.cacheDir, "profiles", `${keyOf(engine, options)}.json`)
}

function keyOf({ limits, model }: Engine, options: CachedProfileOptions): string {
  const identity = [
    VERSION,
    model.fingerprint,
    limits,
    options.threads,
    { ...options.key, ...(options.maxDraft && { maxDraft: options.maxDraft }) },
    cpuName(),
    cpus().length,
  ]
  return nameOf(identity)
}

/** Repeats of one point of the grid as one observation, for the middle one's batch. */
function pointsOf(samples: readonly ProfileSample[]): Observation[] {
  const groups = Map.groupBy(samples, (sample) => sample.point)
  return [...groups.values()].map((group) => ({
    items: group[group.length >> 1]!.items,
    us: typicalUs(group.map((sample) => sample.us)),
  }))
}

const positive = z.number().finite().nonnegative()
export const costModelSchema = z.object({
  pieces: z.array(z.partialRecord(z.enum(COST_FEATURES), positive)).min(1),
  residualSigma: positive,
  fastPassTokens: positive,
  unifiedKv: z.boolean(),
  graphs: z
    .object({
      sizes: z.array(z.int().positive()).min(1),
      decodes: z.enum(GRAPH_MODES),
      mixed: z.enum(GRAPH_MODES),
      decodeTokens: z.int().positive(),
      piecewiseUs: positive,
      eagerUs: positive,
    })
    .optional(),
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
      waitedUs: positive,
    }),
  ),
  quick: z.boolean(),
  faults: z.array(z.string()),
  key: z.string(),
  fingerprint: z.string(),
  modelName: z.string(),
  cpu: z.string(),
  createdAt: z.string(),
  seconds: positive,
})

/** null when there is none, or it cannot be read as one, or is another's under this name: it is measured again. What it says
 * of its own faults is not believed. */
async function readProfile(path: string): Promise<Profile | null> {
  try {
    const parsed = profileSchema.safeParse(JSON.parse(await readFile(path, "utf8")))
    if (!parsed.success || basename(path) !== `${parsed.data.key}.json`) return null
    const profile = parsed.data as Profile
    return { ...profile, faults: faultsOf(profile) }
  } catch {
    return null
  }
}

function cpuName(): string {
  return `${arch()} ${cpus()[0]?.model.trim() ?? "unknown"}`
}
