/** What is compared: a policy with its own knobs, tuned one after the other per scenario. Ours runs as it ships. */
import { POLICY_NAMES, type PolicyName } from "../core/policy/index.ts"
import type { RunSpec } from "./spec.ts"

/** `tuned`: ours with its knobs tuned like the others' are; shown apart, in no ratio. */
export type Group = "ours" | "tuned" | Rival

/** Groups of rivals, each with a ratio of its own. */
export const RIVALS = {
  baseline: "the best of the paper's baselines",
  configured: "vLLM v1 configured for deadlines",
  peer: "the best research peer",
} as const
export type Rival = keyof typeof RIVALS
export const RIVAL_GROUPS = Object.keys(RIVALS) as Rival[]

/** A change of a run: one value of a knob. */
export interface Setting {
  label: string
  change: Pick<Partial<RunSpec>, "options" | "split" | "router">
}

/** A knob: its values, the first being where tuning starts. */
export type Knob = readonly Setting[]

export interface System {
  name: string
  /** What it stands for. */
  title: string
  group: Group
  policy: PolicyName
  knobs(replicas: number): readonly Knob[]
  /** Drafts of fixed length, to be tuned; else the policy chooses lengths itself, by the same planner as ours. */
  fixedDraft: boolean
  /** Needs at least this many replicas. */
  leastReplicas?: number
}

const option = (name: string, values: readonly number[]): Knob =>
  values.map((value) => ({ label: `${name}=${value}`, change: { options: { [name]: value } } }))

const BUDGETS = option("tokenBudget", [1024, 512, 2048, 4096, 8192])
const MARGINS = option("margin", [0.15, 0.1, 0.2, 0.3, 0])
const LONGEST = option("maxBatchUs", [100_000, 50_000, 200_000])
/** Drafted tokens of every request and step. */
export const FIXED_DRAFTS: Knob = option("fixedDraft", [0, 1, 2, 3, 4, 6])

/** Every way of giving some replicas to prefill and the others to decode; even ones first. */
export function splits(replicas: number): Knob {
  const all = replicas <= 4 ? range(1, replicas - 1) : [1, 2, 3].map((i) => Math.round((i * replicas) / 4))
  const inOrder = [...new Set(all)].sort(
    (a, b) => Math.abs(2 * a - replicas) - Math.abs(2 * b - replicas) || a - b,
  )
  return inOrder.map((prefill) => ({
    label: `split=${prefill}:${replicas - prefill}`,
    change: { split: { prefill, decode: replicas - prefill } },
  }))
}

function range(from: number, to: number): number[] {
  return Array.from({ length: Math.max(0, to - from + 1) }, (_, i) => from + i)
}

const ALL: readonly (Omit<System, "policy"> & { policy: string })[] = [
  {
    name: "slos-serve",
    title: "SLOs-Serve (this project, defaults)",
    group: "ours",
    policy: "slos-serve",
    knobs: () => [],
    fixedDraft: false,
  },
  {
    name: "slos-serve-tuned",
    title: "SLOs-Serve with as many knobs tuned as the others",
    group: "tuned",
    policy: "slos-serve",
    knobs: () => [option("margin", [0.15, 0.1, 0.2, 0.3]), LONGEST],
    fixedDraft: false,
  },
  {
    name: "vllm-v0",
    title: "vLLM v0 (prefill first)",
    group: "baseline",
    policy: "vllm-prefill-first",
    knobs: () => [option("tokenBudget", [4096, 512, 1024, 2048, 8192])],
    fixedDraft: true,
  },
  {
    name: "vllm-v1",
    title: "vLLM v1 (chunked prefill, token budget)",
    group: "baseline",
    policy: "vllm",
    knobs: () => [BUDGETS],
    fixedDraft: true,
  },
  {
    name: "sarathi",
    title: "Sarathi-Serve (chunks sized to the tightest TPOT)",
    group: "baseline",
    policy: "sarathi",
    knobs: () => [MARGINS, option("maxBatchUs", [25_000, 12_500, 100_000])],
    fixedDraft: true,
  },
  {
    name: "distserve",
    title: "DistServe (prefill and decode on GPUs apart)",
    group: "baseline",
    policy: "vllm-prefill-first",
    knobs: (replicas) => [splits(replicas), option("tokenBudget", [2048, 512, 8192])],
    fixedDraft: true,
    leastReplicas: 2,
  },
  {
    name: "vllm-priority",
    title: "vLLM v1, --scheduling-policy priority: first-token deadline (what operators can configure today)",
    group: "configured",
    policy: "vllm-priority",
    knobs: () => [BUDGETS],
    fixedDraft: true,
  },
  {
    name: "qoserve",
    title: "QoServe",
    group: "peer",
    policy: "qoserve",
    knobs: () => [option("hybridAlpha", [1, 0, 0.5, 2, 4]), MARGINS, LONGEST],
    fixedDraft: false,
  },
  {
    name: "edf",
    title: "EDF",
    group: "peer",
    policy: "edf",
    knobs: () => [MARGINS, LONGEST],
    fixedDraft: false,
  },
  {
    name: "edf-drop",
    title: "EDF + drop doomed",
    group: "peer",
    policy: "edf-drop",
    knobs: () => [MARGINS, LONGEST],
    fixedDraft: false,
  },
  {
    name: "slos-serve-paper",
    title: "SLOs-Serve as published (dynamic program)",
    group: "peer",
    policy: "slos-serve-paper",
    knobs: () => [MARGINS, LONGEST],
    fixedDraft: false,
  },
]

const known = (policy: string): policy is PolicyName => (POLICY_NAMES as string[]).includes(policy)

export const SYSTEMS: readonly System[] = ALL.flatMap((system) =>
  known(system.policy) ? [{ ...system, policy: system.policy }] : [],
)

export function systemOf(name: string): System | undefined {
  return SYSTEMS.find((system) => system.name === name)
}

/** A run with a setting applied. */
export function applied(spec: RunSpec, { change }: Setting): RunSpec {
  return { ...spec, ...change, options: { ...spec.options, ...change.options } }
}
