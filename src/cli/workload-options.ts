/** Options about the workload that replay, simulate and capacity share: whose traces, and what zero load is. */
import { UserError } from "../errors.ts"
import type { ZeroLoad } from "../load/classes.ts"
import { APPS, type AppName, appOf } from "../load/workload.ts"

/** For options that may be repeated. */
export const collect = (value: string, before: string[]): string[] => [...before, value]

/** `--trace`: app=file, or a file alone for a scenario of one app. Paths by app. */
export function tracesOf(entries: readonly string[], scenario: string): Partial<Record<AppName, string>> {
  const traces: Partial<Record<AppName, string>> = {}
  for (const entry of entries) {
    const match = /^(\w+)=(.+)$/.exec(entry)
    const app = appOf(match?.[1] ?? scenario)
    const path = match?.[2] ?? entry
    if (!isApp(app))
      throw new UserError(
        `--trace ${entry}: say whose it is, such as chat=${path} (apps: ${APPS.join(", ")})`,
      )
    traces[app] = path
  }
  return traces
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
