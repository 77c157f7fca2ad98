/** Options about the workload that replay, simulate and capacity share: whose traces, and what zero load is. */
import { UserError } from "../errors.ts"
import { type ArrivalName, followsTrace } from "../load/arrivals.ts"
import type { ZeroLoad } from "../load/classes.ts"
import { readTrace, type Trace } from "../load/trace.ts"
import { APPS, type AppName, appOf, useOfTrace } from "../load/workload.ts"

/** For options that may be repeated. */
export const collect = (value: string, before: string[]): string[] => [...before, value]

/** `--trace`: app=file, or a file alone for a scenario of one app. Paths by app. A trace that none of the `scenarios` of the
 * command would use is refused: its figures would be of other requests than its reader thinks. */
export function tracesOf(
  entries: readonly string[],
  scenario: string,
  arrivals: ArrivalName,
  scenarios: readonly string[] = [scenario],
): Partial<Record<AppName, string>> {
  const traces: Partial<Record<AppName, string>> = {}
  for (const entry of entries) {
    const match = /^(\w+)=(.+)$/.exec(entry)
    const app = appOf(match?.[1] ?? scenario)
    const path = match?.[2] ?? entry
    if (!isApp(app))
      throw new UserError(
        `--trace ${entry}: say whose it is, such as chat=${path} (apps: ${APPS.join(", ")})`,
      )
    if (traces[app] !== undefined)
      throw new UserError(
        `--trace ${entry}: ${app} has a trace already, ${traces[app]}; give one for each app`,
      )
    checkUse(entry, app, scenarios, arrivals)
    traces[app] = path
  }
  return traces
}

/** The traces that `tracesOf` finds, read. */
export function readTraces(
  entries: readonly string[],
  scenario: string,
  arrivals: ArrivalName,
): Partial<Record<AppName, Trace>> {
  const paths = Object.entries(tracesOf(entries, scenario, arrivals))
  return Object.fromEntries(paths.map(([app, path]) => [app, readTrace(path)]))
}

function checkUse(entry: string, app: AppName, scenarios: readonly string[], arrivals: ArrivalName): void {
  const uses = scenarios.map((scenario) => useOfTrace(scenario, app))
  if (uses.includes("lengths")) return
  const names = scenarios.join(", ")
  if (!uses.includes("times"))
    throw new UserError(`--trace ${entry}: ${names} cannot use a trace of ${app}; leave it out`)
  if (!followsTrace(arrivals)) {
    throw new UserError(
      `--trace ${entry}: ${names} can use only the times of a trace of ${app}; use --arrivals superposed, trace or raw`,
    )
  }
}

/** Beside --plan, which says every length and time itself. */
export function refuseTraces(entries: readonly string[]): void {
  if (entries.length > 0)
    throw new UserError(
      `--trace ${entries[0]}: the plan has its requests already; leave --trace or --plan out`,
    )
}

const isApp = (name: string): name is AppName => (APPS as readonly string[]).includes(name)

export interface ZeroLoadOptions {
  zeroLoadMs?: number
  zeroLoadPrefillMsPerToken?: number
}

/** Undefined when nothing was said of it. */
export function zeroLoadOf(options: ZeroLoadOptions): ZeroLoad | undefined {
  const { zeroLoadMs, zeroLoadPrefillMsPerToken } = options
  if (zeroLoadMs === undefined && zeroLoadPrefillMsPerToken === undefined) return undefined
  return { ms: zeroLoadMs ?? 0, msPerToken: zeroLoadPrefillMsPerToken ?? 0 }
}
