/** Capacity by number of GPUs under bursty chat: what routing by offers is worth as a fleet grows. */
import { bestOf, type FleetSize, type Row, type Study } from "./results.ts"
import { near, type StudyOptions, stage } from "./stage.ts"
import { systemOf } from "./systems.ts"
import type { CapacityTask, Size } from "./tasks.ts"

const SCENARIO = "chatbot"
const BURSTINESS = 0.25
/** No run has more: at 64 GPUs that is the usual span of 100 s, which is long against an answer. */
const MOST_REQUESTS = 50_000

interface Contender {
  row: Row
  label: string
  router: { kind: "round-robin" } | null
}

export async function fleetSizes(options: StudyOptions, study: Study): Promise<FleetSize[]> {
  const cases = sizesUpTo(options.mostReplicas).flatMap((replicas) =>
    contenders(options, study).map((contender) => ({ ...contender, replicas })),
  )
  const tasks = cases.map(({ row, replicas, router }): CapacityTask => {
    const ratePerSec = (row.ratePerSec * replicas) / row.spec.replicas
    const scaled = { ...row, size: sizeOf(options, replicas, ratePerSec), ratePerSec }
    const change = { replicas, router, arrivals: "gamma", burstiness: BURSTINESS } as const
    return near(scaled, options.seeds.slice(0, 1), change)
  })
  const labels = cases.map(({ label, replicas }) => `${replicas} × ${label}`)
  const results = await stage(options, "fleet sizes under bursts", tasks, labels)
  return cases.map(({ label, replicas }, i) => ({
    system: label,
    replicas,
    ratePerSec: results[i]![0]!.ratePerSec,
  }))
}

/** 1, 2, 4 … */
export function sizesUpTo(most: number): number[] {
  return Array.from({ length: Math.floor(Math.log2(most)) + 1 }, (_, i) => 2 ** i)
}

/** Ours with both routers, the best baseline and vLLM as it can be configured, none of them disaggregated. */
function contenders({ speculate }: StudyOptions, { rows }: Study): Contender[] {
  const way = speculate[0]!
  const own = rows.filter((row) => row.scenario === SCENARIO && row.speculate === way && row.ratePerSec > 0)
  const ours = own.find((row) => row.system === "slos-serve")
  const whole = own.filter((row) => row.spec.split === null)
  return [
    ...(ours ? [{ row: ours, label: "slos-serve, offers", router: null }] : []),
    ...(ours
      ? [{ row: ours, label: "slos-serve, round-robin", router: { kind: "round-robin" } as const }]
      : []),
    ...(["baseline", "configured"] as const).flatMap((group) => {
      const row = bestOf(whole, group, SCENARIO, way)
      return row === null ? [] : [{ row, label: `${systemOf(row.system)!.name}, least loaded`, router: null }]
    }),
  ]
}

/** The scenario's own span whatever the size, so that requests grow with the fleet; and no fewer than its runs have. */
function sizeOf(options: StudyOptions, replicas: number, ratePerSec: number): Size {
  const { requests, spanS } = options.size(SCENARIO)
  const share = Math.max(1, replicas / options.base(SCENARIO).replicas)
  return {
    requests: Math.min(Math.round(requests * share), MOST_REQUESTS),
    spanS: Math.min(spanS, MOST_REQUESTS / ratePerSec),
  }
}
