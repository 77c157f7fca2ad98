/** The comparison as the paper made it, as far as a simulation can: baselines with the settings that their authors
 * published, tuned for nothing; output lengths known to all; step times exact; the paper's laxer check of tokens. */
import type { AsPaper, Study } from "./results.ts"
import type { RunSpec } from "./spec.ts"
import { near, type StudyOptions, stage } from "./stage.ts"
import { systemOf } from "./systems.ts"
import type { CapacityTask } from "./tasks.ts"

/** The average over its six scenarios that the paper's abstract reports, per GPU, over earlier systems. */
export const PAPER_RATIO = 2.2

export const PAPER_SCENARIOS = ["chatbot", "coder", "summarizer", "mixed", "tools", "reasoning"]

export interface Contender {
  name: string
  /** Of `systems.ts`: its policy. */
  system: string
  baseline: boolean
  speculate: boolean
  change(replicas: number): Pick<Partial<RunSpec>, "options" | "split">
}

/** Without noise there is nothing for a margin to cover. */
const exact = () => ({ options: { margin: 0 } })

export const CONTENDERS: readonly Contender[] = [
  { name: "slos-serve", system: "slos-serve", baseline: false, speculate: false, change: exact },
  { name: "slos-serve", system: "slos-serve", baseline: false, speculate: true, change: exact },
  {
    name: "the paper's planner",
    system: "slos-serve-paper",
    baseline: false,
    speculate: false,
    change: exact,
  },
  {
    name: "the paper's planner",
    system: "slos-serve-paper",
    baseline: false,
    speculate: true,
    change: exact,
  },
  {
    name: "vLLM (v0, batches of up to 8,192 tokens)",
    system: "vllm-v0",
    baseline: true,
    speculate: false,
    change: () => ({ options: { tokenBudget: 8192 } }),
  },
  {
    name: "vLLM (v0, batches of up to 8,192 tokens, 5 drafted tokens)",
    system: "vllm-v0",
    baseline: true,
    speculate: true,
    change: () => ({ options: { tokenBudget: 8192, fixedDraft: 5 } }),
  },
  {
    // Its published scheduler: decodes first, prompts within a fixed budget. Our `sarathi` sizes the budget to the
    // tightest TPOT, which is tuning.
    name: "Sarathi-Serve (budget of 512 tokens)",
    system: "vllm-v1",
    baseline: true,
    speculate: false,
    change: () => ({ options: { tokenBudget: 512 } }),
  },
  {
    name: "DistServe (half of the GPUs prefill)",
    system: "distserve",
    baseline: true,
    speculate: false,
    change: (replicas) => {
      const prefill = Math.floor(replicas / 2)
      return { options: { tokenBudget: 8192 }, split: { prefill, decode: replicas - prefill } }
    },
  },
]

/** Every difference from the paper's own measurement that we know of. */
export const DIFFERENCES: readonly string[] = [
  "The paper ran engines on GPUs. Here every system runs in one simulator, on the batch times that its authors fitted: no system pays for its own engine, and the timer is exact.",
  "The baselines' settings: vLLM takes prompts first, in batches of as many tokens as the context has; Sarathi-Serve has the smaller of the two budgets that its authors publish; DistServe gives half of the GPUs to prefill in every scenario (it takes no part where there is one GPU, as in reasoning by default), and its KV moves at 25 GB/s on links of its own; 5 drafted tokens are the example of vLLM's documentation. None of it is tuned.",
  "Raw arrivals: where traces are given, their own gaps, as many shifted copies over each other as the rate needs; the paper compresses the trace's time. Summaries arrive by Poisson. Without traces: generated arrivals and lengths, as in the other tables.",
  "Reasoning and tool sessions are generated from distributions, with chat's arrival times; a tool session counts once.",
  "Speculation: 70% of drafted tokens are accepted, independently; the paper drafts with a real model. The cost of a draft step is published for OPT-6.7B only.",
  "slos-serve's router asks for promises; all others, the paper's planner too, go to the least loaded GPU. Both planners run without a margin.",
  "Windows as long as in the other tables, at most two seeds; capacity is the rate at which 90% of the requests pass the check of the first, every tenth and the last token.",
]

export async function asPaper(options: StudyOptions, study: Study): Promise<AsPaper[]> {
  const cases = options.scenarios
    .filter((scenario) => PAPER_SCENARIOS.includes(scenario))
    .flatMap((scenario) =>
      CONTENDERS.filter((contender) => takesPart(contender, options, scenario)).map((contender) => ({
        scenario,
        contender,
      })),
    )
  const tasks = cases.map(({ scenario, contender }) => taskOf(contender, scenario, options, study))
  const labels = cases.map(({ scenario, contender }) => `${scenario} ${contender.name}`)
  const results = await stage(options, "as the paper measured", tasks, labels)
  return cases.map(({ scenario, contender: { name, speculate } }, i) => {
    const [{ ratePerSec, spec }] = results[i]! as [(typeof results)[number][number]]
    return { scenario, contender: name, speculate, arrivals: spec.arrivals, ratePerSec }
  })
}

function takesPart(contender: Contender, options: StudyOptions, scenario: string): boolean {
  const { leastReplicas = 1 } = systemOf(contender.system)!
  return (
    options.systems.includes(contender.system) &&
    options.speculate.includes(contender.speculate) &&
    options.base(scenario).replicas >= leastReplicas
  )
}

function taskOf(
  contender: Contender,
  scenario: string,
  options: StudyOptions,
  { rows }: Study,
): CapacityTask {
  const base = options.base(scenario)
  const { system, speculate } = contender
  const tuned = rows.find(
    (row) => row.scenario === scenario && row.system === system && row.speculate === speculate,
  )
  const traced = Object.keys(base.traces).length > 0
  const change = {
    ...contender.change(base.replicas),
    policy: systemOf(system)!.policy,
    speculate,
    knownLengths: true,
    noiseSigma: 0,
    ...(traced && { arrivals: "raw" as const }),
  }
  // Not the tuned settings: only its capacity, to begin near it.
  const start = { spec: base, size: options.size(scenario), system, ratePerSec: tuned?.ratePerSec || 1 }
  return { ...near(start, options.seeds.slice(0, 2), change), check: "everyTenth" }
}
