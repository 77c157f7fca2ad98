/** The engine of a server and its cost model: fetched, loaded, measured and warm. */
import type { CostModel } from "../core/cost.ts"
import type { EngineLimits } from "../core/protocol.ts"
import type { Speculation } from "../engine/drafter.ts"
import { fakeEngine } from "../engine/fake/engine.ts"
import { couldBeFaster, libraryFor } from "../engine/llama/built.ts"
import { type Engine, GREEDY, type ModelInfo } from "../engine/port.ts"
import { cacheFolder } from "../models/cache.ts"
import { type ResolvedModel, resolveModel } from "../models/resolve.ts"
import type { Reporter } from "./reporter.ts"
import type { ServeOptions } from "./serve-options.ts"
import { defaultThreads } from "./threads.ts"

export interface ReadyEngine {
  engine: Engine
  cost: CostModel
}

/** Step times of a 135M model on a laptop core, for --engine fake. */
const FAKE_COST: CostModel = {
  pieces: [{ step: 5000, tokens: 150, sequences: 150 }],
  residualSigma: 0.05,
  fastPassTokens: 1,
  unifiedKv: true,
}

const FAKE_SEQUENCES = 32
const FAKE_CONTEXT = 4096

/** `beside`: what may go on while the model is loaded, not while its steps are measured. */
export async function prepareEngine(
  options: ServeOptions,
  reporter: Reporter,
  beside: Promise<void>,
): Promise<ReadyEngine> {
  if (options.engine === "fake") return { engine: openFake(options), cost: FAKE_COST }
  const engine = await openReal(options, reporter)
  await beside
  const cost = options.profile
    ? await profiled(engine, options, reporter)
    : guessCost(engine.model, engine.limits, options.speculate.startsWith("draft="))
  reporter.begin("warming up")
  await warmUp(engine)
  reporter.done("warm")
  return { engine, cost }
}

/** Once a server, however many replicas it has. */
export function sayOfLibrary({ engine, library }: ServeOptions, reporter: Reporter): void {
  if (engine !== "fake" && couldBeFaster(library, cacheFolder()))
    reporter.done(
      "llama.cpp is the prebuilt one; compiled for this processor it may be faster: slos-serve library build measures it",
    )
}

function openFake(options: ServeOptions): Engine {
  const { replicas, maxBatchTokens } = options
  const maxSequences = options.maxSequences ?? Math.max(1, Math.floor(FAKE_SEQUENCES / replicas))
  const context = options.context ?? Math.min(FAKE_CONTEXT, options.kvTokens ?? FAKE_CONTEXT)
  const limits: EngineLimits = {
    kvTokens: options.kvTokens ?? maxSequences * context,
    blockTokens: 16,
    maxSequences,
    maxBatchTokens,
    contextTokens: context,
    minChunkTokens: 1,
    unifiedKv: true,
  }
  const speculate = options.speculate === "off" ? "off" : "lookup"
  const named = options.servedName === undefined ? {} : { name: options.servedName }
  const how = { time: "real", noise: 0.05, outputTokens: 200, speculate } as const
  return fakeEngine({ cost: FAKE_COST, limits, ...how, ...named })
}

async function openReal(options: ServeOptions, reporter: Reporter): Promise<Engine> {
  const found = await find(options.model, options, reporter)
  const speculate = await speculation(options, reporter)
  const threads = options.threads ?? defaultThreads()
  reporter.begin(`loading ${found.name}`)
  const { openLlama } = await import("../engine/llama/engine.ts")
  const engine = await openLlama({
    modelPath: found.path,
    name: options.servedName ?? found.name,
    threads,
    processes: options.replicas,
    ...(options.maxSequences === undefined ? {} : { maxSequences: options.maxSequences }),
    ...(options.context === undefined ? {} : { contextTokens: options.context }),
    maxBatchTokens: options.maxBatchTokens,
    library: libraryFor(options.library, cacheFolder()),
    speculate,
    maxSpeculation: options.maxSpeculation,
    ...(options.kvTokens === undefined ? {} : { kvTokens: options.kvTokens }),
    ...(options.kvUnified === undefined ? {} : { kvUnified: options.kvUnified }),
    ...(options.flashAttention === undefined ? {} : { flashAttention: options.flashAttention }),
    ...(options.kvType === undefined ? {} : { kvType: options.kvType }),
    ...(options.gpuLayers === undefined ? {} : { gpuLayers: options.gpuLayers }),
    onLog: (line) => reporter.log.debug(line.trimEnd()),
  })
  if (found.random) engine.model.random = true
  const size = `${(engine.model.parameters / 1e6).toFixed(0)}M parameters`
  const { contextTokens, maxSequences } = engine.limits
  const { bytes, why } = engine.kv
  reporter.done(
    `loaded ${engine.model.name}: ${size}, ${threads} thread${threads === 1 ? "" : "s"}, ` +
      `${maxSequences} requests of up to ${contextTokens} tokens in ${(bytes / 2 ** 30).toFixed(1)} GiB of KV` +
      (why === "" ? "" : ` (chosen: ${why})`),
  )
  return engine
}

/** Off, lookup, or a draft model that is on this machine then. */
async function speculation(options: ServeOptions, reporter: Reporter): Promise<Speculation> {
  const { speculate } = options
  if (speculate === "off" || speculate === "lookup") return speculate
  const found = await find(speculate.slice("draft=".length), options, reporter)
  return { draftModel: found.path }
}

async function find(name: string, options: ServeOptions, reporter: Reporter): Promise<ResolvedModel> {
  reporter.begin(`finding the model ${name}`)
  const found = await resolveModel(name, {
    offline: options.offline ?? false,
    onProgress: ({ message, doneBytes, totalBytes }) => {
      const share = doneBytes && totalBytes ? ` ${Math.floor((100 * doneBytes) / totalBytes)}%` : ""
      reporter.progress(`${message}${share}`)
    },
  })
  if (found.banner !== undefined) reporter.warn(found.banner)
  reporter.done(`model ${found.path}${found.random ? " (random weights: answers are noise)" : ""}`)
  return found
}

async function profiled(engine: Engine, options: ServeOptions, reporter: Reporter): Promise<CostModel> {
  reporter.begin("step times: the profile of this model and machine, checked or measured")
  const { loadOrProfile } = await import("../profile/profile.ts")
  const { threadWaits } = await import("../profile/waits.ts")
  const profile = await loadOrProfile(engine, {
    cacheDir: cacheFolder(),
    quick: true,
    threads: options.threads ?? defaultThreads(),
    key: {
      ...{
        library: libraryFor(options.library, cacheFolder()),
        kvType: options.kvType ?? null,
        gpuLayers: options.gpuLayers ?? null,
      },
      ...(options.speculate !== "off" && { speculate: options.speculate }),
    },
    ...(options.speculate !== "off" && { maxDraft: options.maxSpeculation - 1 }),
    waits: threadWaits,
    onProgress: (message: string) => reporter.progress(message),
    onNote: (note, level) =>
      level === "warning" ? reporter.warn(`cost model: ${note}`) : reporter.done(`cost model: ${note}`),
  })
  return profile.model
}

/** Without a measurement: proportional to the model's size, from a 135M model on one core. Online calibration
 * corrects the scale within some tens of steps. */
function guessCost(model: ModelInfo, limits: EngineLimits, draftModel: boolean): CostModel {
  const millions = Math.max(1, model.parameters / 1e6)
  // A draft model is typically a tenth of its target.
  const specSteps = draftModel ? 6 * millions : 0
  return {
    pieces: [{ step: 60 * millions, tokens: 14 * millions, sequences: 8 * millions, specSteps }],
    residualSigma: 0.15,
    fastPassTokens: limits.minChunkTokens,
    unifiedKv: limits.unifiedKv,
  }
}

/** The first steps of an engine are slow: they must not be a user's. Request 0 is never the driver's. */
async function warmUp(engine: Engine): Promise<void> {
  const tokens = Math.min(16, engine.limits.maxBatchTokens)
  const prompt = await engine.tokenizer.encode("a ".repeat(4 * tokens), { special: false, addBos: false })
  const step = { number: 0, evict: [], release: [], predictedUs: 0 }
  engine.open(0, prompt.slice(0, tokens), { ...GREEDY, ignoreEos: true })
  const item = { id: 0, sample: true, draft: 0 }
  await engine.execute({ ...step, items: [{ ...item, position: 0, tokens }] })
  for (let i = 0; i < 3; i++)
    await engine.execute({ ...step, items: [{ ...item, position: tokens + i, tokens: 1 }] })
  await engine.execute({ ...step, items: [], release: [0] })
}
