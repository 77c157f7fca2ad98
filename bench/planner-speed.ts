/** How long one decision takes: a replica kept at so many running decodes, with so many new prompts at every step
 * boundary; times `Replica.poll`, that is admission, batch and bookkeeping. Every round makes the same decisions from
 * the same seed; the least time of a decision over the rounds is what it takes by itself, the rest is the machine. */
import { writeFileSync } from "node:fs"
import { Command, Option } from "commander"
import { quantileSorted } from "simple-statistics"
import { listOf, wholeNumber } from "../src/cli/numbers.ts"
import type { PolicyOptions } from "../src/core/options.ts"
import { POLICY_NAMES, type PolicyName } from "../src/core/policy/index.ts"
import type { Batch, RequestId, RequestSpec, StepResult } from "../src/core/protocol.ts"
import { Replica } from "../src/core/replica.ts"
import { Random } from "../src/random.ts"
import { HARDWARE } from "../src/sim/presets.ts"

interface Size {
  running: number
  fresh: number
}
interface Row extends Size {
  policy: string
  speculation: string
  admission: string
  decisions: number
  meanItems: number
  p50Ms: number
  p99Ms: number
  maxMs: number
  /** Over all rounds, with whatever else the machine did. */
  rawP99Ms: number
}

interface Decision {
  ms: number
  items: number
}

const PARAGRAPH_TOKENS = 16

/** One replica under constant load: what ran in a step yields tokens, ended requests are replaced. */
class Load {
  readonly #replica: Replica
  readonly #random: Random
  readonly #size: Size
  #nowUs = 0
  #nextId = 1
  #running = new Map<RequestId, number>()
  #waiting = new Set<RequestId>()
  #batch: Batch | null = null

  constructor(size: Size, policy: PolicyName, options: Partial<PolicyOptions>, seed: number) {
    const { cost, draftCost } = HARDWARE["opt-6.7b-a100"]!
    this.#size = size
    this.#random = new Random(seed)
    const limits = {
      kvTokens: 1024 * 2 * (size.running + size.fresh),
      blockTokens: 16,
      maxSequences: 2 * (size.running + size.fresh),
      maxBatchTokens: 16_384,
      contextTokens: 8192,
      minChunkTokens: 1,
      unifiedKv: true,
    }
    // A faster engine than the published one, so that so many decodes can be promised at all.
    const speed = 256 / (4 * (size.running + size.fresh))
    const chosen = options.speculation === "on" ? (draftCost ?? cost) : cost
    const pieces = chosen.pieces.map((piece) =>
      Object.fromEntries(Object.entries(piece).map(([feature, value]) => [feature, value * speed])),
    )
    this.#replica = new Replica({
      limits,
      cost: { ...chosen, pieces },
      policy,
      apps: 3,
      options,
    })
  }

  /** Bring the load back to its size and make one decision. Answers how long it took and its items. */
  decide(): Decision {
    if (this.#batch !== null) this.#land(this.#batch)
    for (const id of this.#waiting) this.#cancel(id)
    this.#waiting.clear()
    while (this.#running.size > this.#size.running) this.#cancel(this.#running.keys().next().value!)
    for (let i = 0; i < this.#size.fresh; i++) this.#arrive()
    const startMs = performance.now()
    const effects = this.#replica.poll(this.#nowUs)
    const ms = performance.now() - startMs
    this.#batch = effects.find((effect) => effect.type === "run")?.batch ?? null
    return { ms, items: this.#batch?.items.length ?? 0 }
  }

  get full(): boolean {
    return this.#running.size >= this.#size.running * 0.95
  }

  #land(batch: Batch): void {
    this.#nowUs += Math.max(1000, Math.round(batch.predictedUs))
    const results: StepResult[] = []
    for (const { id, sample, draft } of batch.items) {
      if (!sample) continue
      const tokens = 1 + this.#random.below(draft + 1)
      const left = (this.#running.get(id) ?? 1 + this.#random.below(400)) - tokens
      results.push({ id, tokens, stopped: left <= 0, answeringFrom: -1 })
      this.#waiting.delete(id)
      if (left <= 0) this.#running.delete(id)
      else this.#running.set(id, left)
    }
    this.#replica.handle(
      { type: "stepDone", batch: batch.number, durationUs: batch.predictedUs, results },
      this.#nowUs,
    )
  }

  #cancel(id: RequestId): void {
    this.#running.delete(id)
    this.#replica.handle({ type: "cancelled", id }, this.#nowUs)
  }

  #arrive(): void {
    const id = this.#nextId++
    const app = id % 3
    const promptTokens = Math.min(4000, Math.round(200 * Math.exp(this.#random.normal())) + 1)
    const family = this.#random.below(20)
    const blocks = Math.floor(promptTokens / PARAGRAPH_TOKENS)
    const spec: RequestSpec = {
      id,
      app,
      session: -1,
      promptTokens,
      maxOutputTokens: 1000,
      // A shared system prompt of eight blocks, then its own text.
      prefix: Array.from({ length: blocks }, (_, i) => (i < 8 ? family * 8 + i : id * 1000 + i)),
      slo: {
        ttftUs: 0,
        ttftSlowdown: 5,
        tpotUs: app === 1 ? 50_000 : 100_000,
        thinkingTpotUs: 50_000,
        maxGapUs: Infinity,
      },
      tier: "slo",
      thinking: false,
    }
    this.#waiting.add(id)
    this.#replica.handle({ type: "arrived", request: spec }, this.#nowUs)
  }
}

interface Measured {
  policy: PolicyName
  speculation: "off" | "on"
  admission: PolicyOptions["admission"]
  decisions: number
  rounds: number
}

function measure(size: Size, { policy, speculation, admission, decisions, rounds }: Measured): Row {
  // Firm promises are planned by the dynamic program where there is no margin.
  const policyOptions = { speculation, admission, ...(admission === "firm" && { margin: 0 }) }
  const all = Array.from({ length: rounds }, () => {
    const load = new Load(size, policy, policyOptions, 7)
    for (let i = 0; i < 5000 && (!load.full || i < 500); i++) load.decide()
    return Array.from({ length: decisions }, () => load.decide())
  })
  const meanItems = all[0]!.reduce((sum, { items }) => sum + items, 0) / decisions
  const least = all[0]!.map((_, i) => Math.min(...all.map((round) => round[i]!.ms)))
  const [p50Ms, p99Ms, maxMs] = quantiles(least)
  const [, rawP99Ms] = quantiles(all.flatMap((round) => round.map(({ ms }) => ms)))
  return { policy, speculation, admission, ...size, decisions, meanItems, p50Ms, p99Ms, maxMs, rawP99Ms }
}

function quantiles(times: number[]): [p50: number, p99: number, max: number] {
  times.sort((a, b) => a - b)
  return [quantileSorted(times, 0.5), quantileSorted(times, 0.99), times[times.length - 1]!]
}

function parseSizes(text: string): Size[] {
  return text.split(",").map((pair) => {
    const [running, fresh] = pair.split("+").map(Number)
    return { running: running!, fresh: fresh ?? 0 }
  })
}

const options = new Command("bench/planner-speed.ts")
  .option("--sizes <list>", "running+new, comma-separated", "32+4,256+32,1024+128")
  .option("--policies <list>", "scheduling policies", listOf(POLICY_NAMES), ["slos-serve"])
  .option("--speculation <list>", "off, on or both with a comma", listOf(["off", "on"]), ["off", "on"])
  .addOption(
    new Option("--admission <kind>", "when a promise is given")
      .choices(["revocable", "firm"])
      .default("revocable"),
  )
  .option("--decisions <n>", "measured in a round, after a warm-up", wholeNumber(1, 1e6), 2000)
  .option("--rounds <n>", "of the same decisions", wholeNumber(1, 1000), 3)
  .option("--json", "print JSON")
  .option("--out <file>", "write the JSON to a file")
  .parse()
  .opts<{
    sizes: string
    policies: PolicyName[]
    speculation: ("off" | "on")[]
    admission: PolicyOptions["admission"]
    decisions: number
    rounds: number
    json?: true
    out?: string
  }>()

const rows: Row[] = []
const { admission, decisions, rounds } = options
for (const policy of options.policies) {
  for (const speculation of options.speculation) {
    for (const size of parseSizes(options.sizes))
      rows.push(measure(size, { policy, speculation, admission, decisions, rounds }))
  }
}
if (options.out !== undefined) writeFileSync(options.out, `${JSON.stringify(rows, null, 2)}\n`)
if (options.json) console.log(JSON.stringify(rows, null, 2))
else console.table(rows.map((row) => Object.fromEntries(Object.entries(row).map(shown))))

function shown([name, value]: [string, unknown]): [string, unknown] {
  return [name, typeof value === "number" ? Number(value.toPrecision(3)) : value]
}
