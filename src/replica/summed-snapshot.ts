/** Several replicas at a glance, as one. */
import type { AppSpeculation, Snapshot } from "../core/protocol.ts"

/** What they have, together; of rates and ratios the mean. */
export function sumOf(snapshots: readonly Snapshot[]): Snapshot {
  const sum = (of: (snapshot: Snapshot) => number) => snapshots.reduce((total, one) => total + of(one), 0)
  const mean = (of: (snapshot: Snapshot) => number) => sum(of) / Math.max(1, snapshots.length)
  const apps = Math.max(0, ...snapshots.map(({ speculation }) => speculation.length))
  const kinds = Math.max(0, ...snapshots.map(({ calibration }) => calibration.length))
  return {
    nowUs: Math.max(0, ...snapshots.map(({ nowUs }) => nowUs)),
    waiting: sum((one) => one.waiting),
    running: sum((one) => one.running),
    bestEffort: sum((one) => one.bestEffort),
    kvUsedTokens: sum((one) => one.kvUsedTokens),
    kvCachedTokens: sum((one) => one.kvCachedTokens),
    kvEvictedTokens: sum((one) => one.kvEvictedTokens),
    kvCapacityTokens: sum((one) => one.kvCapacityTokens),
    batchInFlight: snapshots.some(({ batchInFlight }) => batchInFlight),
    prefillBacklogTokens: sum((one) => one.prefillBacklogTokens),
    prefillUsPerToken: mean((one) => one.prefillUsPerToken),
    calibration: Array.from({ length: kinds }, (_, kind) => mean((one) => one.calibration[kind] ?? 1)),
    speculation: Array.from({ length: apps }, (_, app) =>
      speculationOf(snapshots.flatMap(({ speculation }) => speculation[app] ?? [])),
    ),
  }
}

function speculationOf(apps: readonly AppSpeculation[]): AppSpeculation {
  const sum = (of: (app: AppSpeculation) => number) => apps.reduce((total, app) => total + of(app), 0)
  const mean = (of: (app: AppSpeculation) => number) => sum(of) / Math.max(1, apps.length)
  return {
    acceptance: mean((app) => app.acceptance),
    hitRate: mean((app) => app.hitRate),
    length: mean((app) => app.length),
    draftedTokens: sum((app) => app.draftedTokens),
    acceptedTokens: sum((app) => app.acceptedTokens),
  }
}
