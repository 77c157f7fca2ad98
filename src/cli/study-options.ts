/** Options that `simulate` and `capacity` share, and what they mean: text in, a RunSpec out, or one clear line. */
import { readFileSync } from "node:fs"
import { type Command, InvalidArgumentError } from "commander"
import { z } from "zod"
import type { CostModel } from "../core/cost.ts"
import { POLICY_NAMES, type PolicyName } from "../core/policy/index.ts"
import { UserError } from "../errors.ts"
import { ARRIVALS, type ArrivalName } from "../load/arrivals.ts"
import { readClasses, type SloClasses } from "../load/classes.ts"
import { ALIASES, SCENARIOS } from "../load/workload.ts"
import { costModelSchema } from "../profile/profile.ts"
import { ROUTER_KINDS, type RouterKind } from "../router/routers.ts"
import { HARDWARE, type Hardware, SCENARIO_HARDWARE } from "../sim/presets.ts"
import { RUN_DEFAULTS, type RunSpec } from "../study/spec.ts"
import { numberIn, wholeNumber } from "./numbers.ts"
import { policyOptions } from "./policy-options.ts"
import { collect, tracesOf, type ZeroLoadOptions, zeroLoadOf } from "./workload-options.ts"

export interface SharedOptions extends ZeroLoadOptions {
  hardware?: string
  profile?: string
  slots: number
  context?: number
  maxBatchTokens?: number
  replicas: number
  arrivals?: string
  burstiness: number
  noise: number
  bias: number
  depth: number
  acceptance: number
  trace: string[]
  scale: number
  classes?: string
  tpotScale: number
  knownLengths?: boolean
  router?: RouterKind
  affinity?: boolean
  reoffers: number
  seed: number
  set: string[]
  maxSequenceTokens?: number
}

/** Adds the shared options to a command. */
export function sharedOptions(command: Command): Command {
  return command
    .option(
      "--hardware <name>",
      `GPU and model of a replica: ${Object.keys(HARDWARE).join(", ")} (default: the paper's for the scenario)`,
    )
    .option("--profile <file>", "instead: a cost model of your own, the JSON of `slos-serve profile --out`")
    .option(
      "--slots <n>",
      "with --profile: most requests at once; KV is this many contexts",
      wholeNumber(1, 65_536),
      32,
    )
    .option(
      "--context <n>",
      "longest prompt + output of a request (with --profile default 1024)",
      wholeNumber(2, 1e7),
    )
    .option(
      "--max-batch-tokens <n>",
      "most tokens of one step (with --profile default 512)",
      wholeNumber(1, 1e6),
    )
    .option("--arrivals <process>", `${ARRIVALS.join(", ")} (default: superposed with a trace, else gamma)`)
    .option(
      "--burstiness <n>",
      "of gamma arrivals: 1 = Poisson, smaller = more bursty",
      numberIn(0.01, 100),
      0.5,
    )
    .option("--noise <sigma>", "spread of step times", numberIn(0, 2), RUN_DEFAULTS.noiseSigma)
    .option("--bias <factor>", "steps take so many times what the planner believes", numberIn(0.1, 10), 1)
    .option(
      "--depth <n>",
      "most batches in flight: with more than one, the next is planned before the last has landed",
      wholeNumber(1, 16),
      1,
    )
    .option(
      "--acceptance <p>",
      "chance that a drafted token is accepted",
      numberIn(0, 1),
      RUN_DEFAULTS.acceptance,
    )
    .option("--trace <app=file>", "lengths and times of an app, .gz too; repeatable", collect, [])
    .option("--scale <n>", "divide all lengths by this", numberIn(0.01, 1000), 1)
    .option(
      "--max-sequence-tokens <n>",
      "longest history + prompt + output in the workload (default: the context): longer requests of a trace are left out",
      wholeNumber(2, 1e7),
    )
    .option(
      "--classes <file|list>",
      "SLO classes: YAML as for serve, or name=ttft:500,tpot:100,thinking:50,gap:400;… (ms; ttft:5x)",
    )
    .option("--tpot-scale <n>", "multiply every TPOT by this", numberIn(0.01, 1000), 1)
    .option(
      "--zero-load-ms <ms>",
      "zero-load prefill time for TTFT slowdowns (default: the cost model's)",
      numberIn(0, 1e6),
    )
    .option("--zero-load-prefill-ms-per-token <ms>", "its part per prompt token", numberIn(0, 1e4))
    .option("--known-lengths", "tell the planner every output's length (an oracle)")
    .option(
      "--router <kind>",
      `${ROUTER_KINDS.join(", ")} (default: offer for slos-serve, least-loaded for others, both with affinity)`,
      routerKind,
    )
    .option("--affinity", "with --router: rounds of a session go where its KV is")
    .option(
      "--reoffers <n>",
      "with --router offer: offer a request that is turned down to other replicas so often",
      wholeNumber(0, 100),
      0,
    )
    .option("--set <name=value>", "a policy option such as margin=0.1; repeatable", collect, [])
    .option("--seed <n>", "same seed, same bytes", wholeNumber(0, 2 ** 31), 1)
}

function routerKind(text: string): RouterKind {
  if ((ROUTER_KINDS as readonly string[]).includes(text)) return text as RouterKind
  throw new InvalidArgumentError(`It must be one of ${ROUTER_KINDS.join(", ")}.`)
}

/** The hardware of a scenario under these options. */
export function hardwareOf(options: SharedOptions, scenario: string): Hardware {
  const found =
    options.profile === undefined ? presetOf(options, scenario) : profiled(options.profile, options)
  const context = options.context ?? found.contextTokens
  return { ...found, contextTokens: context, maxBatchTokens: options.maxBatchTokens ?? found.maxBatchTokens }
}

function presetOf(options: SharedOptions, scenario: string): Hardware {
  const name = options.hardware ?? SCENARIO_HARDWARE[scenario] ?? "opt-6.7b-a100"
  if (Object.hasOwn(HARDWARE, name)) return HARDWARE[name]!
  throw new UserError(
    `unknown --hardware "${name}"; known: ${Object.keys(HARDWARE).join(", ")}, or give --profile`,
  )
}

function profiled(path: string, { slots, context = 1024, maxBatchTokens = 512 }: SharedOptions): Hardware {
  const cost = readModel(path)
  return {
    cost,
    gpus: 1,
    kvTokens: slots * context,
    blockTokens: 16,
    maxBatchTokens,
    maxSequences: slots,
    contextTokens: context,
    minChunkTokens: cost.fastPassTokens,
    unifiedKv: cost.unifiedKv,
    source: `profile ${path.split(/[\\/]/).at(-1)}`,
  }
}

const profiledModel = z.object({ model: costModelSchema })

/** Undefined where it is no JSON. */
function jsonOf(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** The cost model of a saved profile, the value of `option`. */
export function readModel(path: string, option = "--profile"): CostModel {
  let text: string
  try {
    text = readFileSync(path, "utf8")
  } catch (error) {
    throw new UserError(`cannot read ${option} ${path} (${(error as NodeJS.ErrnoException).code})`)
  }
  const found = profiledModel.safeParse(jsonOf(text))
  if (found.success) return found.data.model as CostModel
  const where = found.error.issues[0]!.path.join(".")
  throw new UserError(
    `${path}: no cost model in it${where === "" ? "" : ` (${where})`}; make one with \`slos-serve profile --out ${path}\``,
  )
}

export function scenarioName(text: string): string {
  const name = ALIASES[text] ?? text
  if (Object.hasOwn(SCENARIOS, name)) return name
  throw new UserError(`unknown scenario "${text}"; known: ${Object.keys(SCENARIOS).join(", ")}`)
}

export function policyName(text: string): PolicyName {
  if ((POLICY_NAMES as string[]).includes(text)) return text as PolicyName
  throw new UserError(`unknown policy "${text}"; known: ${POLICY_NAMES.join(", ")}`)
}

export function classesOf(
  options: Pick<SharedOptions, "classes" | "tpotScale">,
  planned?: readonly string[],
): SloClasses {
  const classes = structuredClone(readClasses(options.classes, planned))
  for (const slo of Object.values(classes)) {
    if (slo.tpotMs) slo.tpotMs *= options.tpotScale
    if (slo.thinkingTpotMs) slo.thinkingTpotMs *= options.tpotScale
  }
  return classes
}

export function arrivalsOf(text: string | undefined, hasTraces: boolean): ArrivalName {
  if (text === undefined) return hasTraces ? "superposed" : "gamma"
  if ((ARRIVALS as readonly string[]).includes(text)) return text as ArrivalName
  throw new UserError(`unknown --arrivals "${text}"; known: ${ARRIVALS.join(", ")}`)
}

/** What the options stand beside, where that is more than one scenario. */
export interface SpecContext {
  /** All scenarios of the command: a trace is for some of them. */
  scenarios?: readonly string[]
  /** SLO classes of the saved plan that is played. */
  planned?: readonly string[]
}

/** Everything of a RunSpec that the shared options decide; rate and duration are the caller's. */
export function specOf(
  options: SharedOptions,
  scenario: string,
  policy: PolicyName,
  { scenarios, planned }: SpecContext = {},
): RunSpec {
  const hardware = hardwareOf(options, scenario)
  const arrivals = arrivalsOf(options.arrivals, options.trace.length > 0)
  const traces = tracesOf(options.trace, scenario, arrivals, scenarios)
  const zeroLoad = zeroLoadOf(options)
  const most = options.maxSequenceTokens ?? hardware.contextTokens - 1
  if (most > hardware.contextTokens) {
    throw new UserError(
      `--max-sequence-tokens ${most} is longer than the context of ${hardware.contextTokens}; lower it or raise --context`,
    )
  }
  return {
    ...RUN_DEFAULTS,
    scenario: scenarioName(scenario),
    policy,
    options: policyOptions(options.set),
    hardware,
    replicas: options.replicas,
    ratePerSec: 1,
    durationS: 60,
    seed: options.seed,
    arrivals,
    burstiness: options.burstiness,
    noiseSigma: options.noise,
    bias: options.bias,
    ...(options.depth > 1 && { depth: options.depth }),
    acceptance: options.acceptance,
    traces,
    scale: options.scale,
    classes: classesOf(options, planned),
    ...(zeroLoad && { zeroLoad }),
    knownLengths: options.knownLengths === true,
    maxSequenceTokens: most,
    router:
      options.router === undefined
        ? null
        : { kind: options.router, affinity: options.affinity === true, reoffers: options.reoffers },
  }
}
